//! Which matrix is stored how: one type for all, and others for some by name.

use super::WeightType;
use crate::peft::pattern::Key;
use crate::tensor::name_list;
use clap::ValueEnum;
use std::str::FromStr;

/// `PATTERN=TYPE`: matrices whose module matches keep this type.
///
/// The pattern is a regular expression for the whole module path, or for its end after a dot, as a key of PEFT's
/// `rank_pattern`.
#[derive(Clone, Debug)]
pub struct Keep {
    pattern: String,
    key: Key,
    to: WeightType,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Keep, String> {
        let form = "expected PATTERN=i8, PATTERN=i16 or PATTERN=i4, for instance 'lm_head=i16'";
        let (pattern, to) = text.rsplit_once('=').ok_or(form)?;
        let to = WeightType::from_str(to, false).map_err(|_| format!("type {to:?}: {form}"))?;
        let key = Key::new(pattern).map_err(|e| e.to_string())?;
        Ok(Keep { pattern: pattern.to_owned(), key, to })
    }
}

/// How the matrices of a base are stored.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where nothing else is said.
    pub to: WeightType,
    /// The first that matches counts.
    pub keep: Vec<Keep>,
}

impl From<WeightType> for Recipe {
    fn from(to: WeightType) -> Recipe {
        Recipe { to, keep: vec![] }
    }
}

impl Recipe {
    /// The type of a matrix that goes by these names: a tied table has that of the head as well.
    #[must_use]
    pub fn of(&self, names: &[&str]) -> WeightType {
        let kept = self.keep.iter().find(|k| names.iter().any(|n| k.key.matches(n)));
        kept.map_or(self.to, |k| k.to)
    }

    /// Refuses a pattern that none of these modules matches: a wish that nobody hears.
    ///
    /// # Errors
    /// The pattern, and what there is.
    pub fn check(&self, modules: &[&str]) -> anyhow::Result<()> {
        match self.keep.iter().find(|k| !modules.iter().any(|m| k.key.matches(m))) {
            Some(k) => anyhow::bail!(
                "--keep {}={}: no matrix is called so; there are {}",
                k.pattern,
                k.to.name(),
                name_list(modules.iter().copied(), 12)
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let keep = ["head=i16", r".*\.attn\..*=i4", "a=i4"].map(|k| k.parse().unwrap()).to_vec();
        let recipe = Recipe { to: WeightType::I8, keep };
        assert_eq!(recipe.of(&["model.head"]), WeightType::I16);
        assert_eq!(recipe.of(&["model.ahead"]), WeightType::I8);
        assert_eq!(recipe.of(&["b", "a"]), WeightType::I4);
        assert_eq!(recipe.of(&["x.attn.q"]), WeightType::I4);
        assert!(recipe.check(&["head", "h.attn.q", "a"]).is_ok());
        let e = recipe.check(&["head", "a"]).unwrap_err().to_string();
        assert!(e.contains("attn") && e.contains("`head`"), "{e}");
        for (bad, part) in [("head", "PATTERN=i8"), ("head=f32", "f32"), ("(=i8", "regular expression")] {
            let e = bad.parse::<Keep>().unwrap_err();
            assert!(e.contains(part), "{e}");
        }
    }
}
