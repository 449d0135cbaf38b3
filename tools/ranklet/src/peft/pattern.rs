//! How PEFT matches module names: keys of `rank_pattern`, entries of `target_modules`.
//!
//! PEFT asks Python's `re`. Rust's engine agrees on what both can evaluate, but for the few spellings that mean
//! something else there: those are refused ([`PatternError`]), for a wrong match is a wrong rank or alpha.

use crate::tensor::excerpt;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// An expression that this cannot evaluate (look-around, back references: Python has them, Rust's engine does not), or
/// not as Python does.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the regular expression {expression:?} cannot be evaluated here: {why}; {advice}")]
pub struct PatternError {
    /// As it stands in the configuration.
    pub expression: String,
    /// The engine's words, on one line.
    pub why: String,
    /// What to write instead.
    pub advice: &'static str,
}

/// Bytes that a compiled expression may take: beyond what any name needs, and compiled in milliseconds.
const SIZE_LIMIT: usize = 1 << 18;

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
    let wrong = |why: String, advice| PatternError { expression: excerpt(expression.to_owned()), why, advice };
    if let Some(spelling) = differs(expression) {
        let why = format!("Python reads {spelling} in another way");
        return Err(wrong(why, "escape what is meant as a plain character"));
    }
    RegexBuilder::new(whole).size_limit(SIZE_LIMIT).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => {
            let why = format!("compiled, it takes more than {SIZE_LIMIT} bytes");
            wrong(why, "write it with smaller repetitions, or name the modules")
        }
        e => {
            let text = e.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let missing = why.contains("look-around") || why.contains("backreference");
            wrong(
                why,
                if missing { "write it in another way" } else { "it is no regular expression, or Python's alone" },
            )
        }
    })
}

/// The first spelling that Python and Rust read differently: classes in classes and their set operations, which are
/// plain characters in Python; and a `+` behind a quantifier, which is possessive there and a repetition here.
fn differs(expression: &str) -> Option<&'static str> {
    let mut rest = expression.chars().peekable();
    // Of an open class: how many characters it has so far, for a `]` that comes first is a plain one.
    let mut class: Option<usize> = None;
    let mut quantified = false;
    while let Some(c) = rest.next() {
        let twice = rest.peek() == Some(&c);
        let behind_quantifier = std::mem::take(&mut quantified);
        match (c, class) {
            ('\\', _) => {
                rest.next();
                class = class.map(|n| n + 1);
            }
            ('[', None) => {
                rest.next_if_eq(&'^');
                class = Some(0);
            }
            ('+', None) if behind_quantifier => return Some("+ behind a quantifier"),
            (_, None) => quantified = matches!(c, '*' | '+' | '?' | '}'),
            ('[', Some(_)) => return Some("[ in a class"),
            ('&', Some(_)) if twice => return Some("&& in a class"),
            ('-', Some(_)) if twice => return Some("-- in a class"),
            ('~', Some(_)) if twice => return Some("~~ in a class"),
            (']', Some(1..)) => class = None,
            (_, Some(n)) => class = Some(n + 1),
        }
    }
    None
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
    fn what_python_reads_differently_is_refused() {
        // Of the digits but 2, in Rust; `&`, `[`, `^` and `2` before a `]`, in Python.
        for bad in ["[0-9&&[^2]]", "[0-9--2]", "[a~~b]", "[[:alpha:]]", "[]&&x]", "a*+", "a++", "(0|2)?+", "a{2}+b"] {
            let e = Key::new(bad).unwrap_err().to_string();
            assert!(e.contains("Python"), "{bad}: {e}");
        }
        for good in [r"[\[\]&-]", "[]a-z]+", "[^]&]", r"a\++", "(a+)+", "a+?", r"\[&&\]", "a&&b--c", "[+-]+"] {
            assert!(Key::new(good).is_ok(), "{good}");
        }
        assert!(Key::new(r"[\[\]&-]").unwrap().matches("&"));
    }

    #[test]
    fn large_expressions_are_refused_for_what_they_are() {
        for large in [r"\w{90}7", "(a{1000}){1000}"] {
            let e = Key::new(large).unwrap_err().to_string();
            assert!(e.contains("bytes") && e.contains("smaller") && !e.contains("look-around"), "{e}");
        }
        let e = Key::new("(").unwrap_err().to_string();
        assert!(e.contains("unclosed") && !e.contains("another way"), "{e}");
        assert!(Key::new(r"model\.layers\.(1?\d|2[0-3])\.(self_attn|mlp)\.[a-z_]+\d*").is_ok());
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
