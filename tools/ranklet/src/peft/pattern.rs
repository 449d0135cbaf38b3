//! How PEFT matches module names: keys of `rank_pattern`, entries of `target_modules`.

use regex::Regex;
use serde_json::Value;

/// An expression that this cannot evaluate (look-around, back references: Python has them, Rust's engine does not).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the regular expression {expression:?} cannot be evaluated here: {why}")]
pub struct PatternError {
    /// As it stands in the configuration.
    pub expression: String,
    /// The engine's words, on one line.
    pub why: String,
}

/// A key of `rank_pattern` or `alpha_pattern`: `^(.*\.)?(key)$`.
#[derive(Clone, Debug)]
pub struct Key(Regex);

impl Key {
    /// From the configuration.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(key: &str) -> Result<Key, PatternError> {
        compile(key, &format!(r"^(.*\.)?({key})$")).map(Key)
    }

    /// Whether it is about this module.
    #[must_use]
    pub fn matches(&self, module: &str) -> bool {
        self.0.is_match(module)
    }
}

/// `target_modules` or `exclude_modules`.
#[derive(Clone, Debug)]
pub enum Modules {
    /// `"all-linear"`: PEFT leaves the output layer of a Transformers model out, so this says little.
    AllLinear,
    /// Matched whole.
    Expression(Regex),
    /// Exact, or after a dot at the end.
    List(Vec<String>),
}

impl Modules {
    /// From the configuration; `None` for a value of another kind.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(value: &Value) -> Result<Option<Modules>, PatternError> {
        Ok(match value {
            Value::String(s) if s.eq_ignore_ascii_case("all-linear") => Some(Modules::AllLinear),
            Value::String(s) => Some(Modules::Expression(compile(s, &format!("^(?:{s})$"))?)),
            Value::Array(list) => {
                let names: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                names.map(Modules::List)
            }
            _ => None,
        })
    }

    /// Whether it names this module.
    #[must_use]
    pub fn matches(&self, module: &str) -> bool {
        match self {
            Modules::AllLinear => true,
            Modules::Expression(e) => e.is_match(module),
            Modules::List(names) => names
                .iter()
                .any(|n| module.strip_suffix(n.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.'))),
        }
    }
}

fn compile(expression: &str, whole: &str) -> Result<Regex, PatternError> {
    Regex::new(whole).map_err(|e| {
        let text = e.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        PatternError { expression: expression.to_owned(), why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pattern_keys_match_at_a_dot() {
        let key = Key::new("0").unwrap();
        assert!(key.matches("0") && key.matches("net.0"));
        assert!(!key.matches("10") && !key.matches("0.fc"));
        assert!(Key::new(r"layers\.\d+").unwrap().matches("model.layers.12"));
        assert!(Key::new("a|b").unwrap().matches("x.b"));
        assert!(Key::new("(?=x)").unwrap_err().to_string().contains("look-around"));
    }

    #[test]
    fn targets_match_as_pefts_do() {
        let of = |v| Modules::new(&v).unwrap().unwrap();
        let list = of(json!(["fc1", "net.2"]));
        assert!(list.matches("fc1") && list.matches("a.fc1") && list.matches("net.2") && list.matches("b.net.2"));
        assert!(!list.matches("xfc1") && !list.matches("2"));
        let expression = of(json!(r".*fc\d|0"));
        assert!(expression.matches("a.fc1") && expression.matches("0"));
        assert!(!expression.matches("a.fc1.x") && !expression.matches("00"));
        assert!(of(json!("all-linear")).matches("anything"));
        assert!(Modules::new(&json!(3)).unwrap().is_none());
        assert!(Modules::new(&json!([3])).unwrap().is_none());
    }
}
