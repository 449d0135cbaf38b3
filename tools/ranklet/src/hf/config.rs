//! `config.json`: fields by name, and refusals that name them.

use crate::files;
use crate::tensor::{excerpt, name_list, printable};
use ranklet::fixed::Real;
use ranklet::kernel::{MAX_DIM, MAX_OUTPUTS};
use ranklet::layer::Activation;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {problem}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A field that is missing, or says what is not supported.
    #[error("{path}: field `{field}`: {problem}")]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What was found, and what is supported.
        problem: String,
    },
}

/// A parsed configuration.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let wrong = |problem: String| ConfigError::Read { path: path.to_owned(), problem };
        let text = files::read_text(path).map_err(|e| wrong(e.to_string()))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Ok(Config { path: path.to_owned(), fields }),
            Ok(_) => Err(wrong("not a JSON object".to_owned())),
            Err(e) => Err(wrong(e.to_string())),
        }
    }

    /// An error about a field.
    #[must_use]
    pub fn wrong(&self, field: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Field { path: self.path.clone(), field: field.to_owned(), problem: problem.into() }
    }

    fn found(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    fn not(&self, field: &str, expected: &str) -> ConfigError {
        let found = self.fields.get(field).map_or("nothing".to_owned(), shown);
        self.wrong(field, format!("found {found}; expected {expected}"))
    }

    /// A text; `None` where there is none, or null.
    ///
    /// # Errors
    /// Something else.
    pub fn text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.found(field) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.clone())),
            Some(_) => Err(self.not(field, "a text")),
        }
    }

    /// A count above 0.
    ///
    /// # Errors
    /// Something else, or nothing.
    pub fn count(&self, field: &str) -> Result<usize, ConfigError> {
        self.count_or(field, None)
    }

    /// A count above 0, or what stands for it where there is none.
    ///
    /// # Errors
    /// Something else.
    pub fn count_or(&self, field: &str, otherwise: Option<usize>) -> Result<usize, ConfigError> {
        self.up_to(MAX_DIM, field, otherwise)
    }

    /// `vocab_size`, which may be larger than other counts.
    ///
    /// # Errors
    /// Something else, or nothing.
    pub fn vocabulary(&self) -> Result<usize, ConfigError> {
        self.up_to(MAX_OUTPUTS, "vocab_size", None)
    }

    fn up_to(&self, most: usize, field: &str, otherwise: Option<usize>) -> Result<usize, ConfigError> {
        match (self.found(field).and_then(Value::as_u64), otherwise) {
            (Some(n), _) if (1..=most as u64).contains(&n) => Ok(n as usize),
            (None, Some(n)) if self.found(field).is_none() => Ok(n),
            _ => Err(self.not(field, &format!("a number from 1 to {most}"))),
        }
    }

    /// A number, or what stands for it where there is none.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&self, field: &str, otherwise: f64) -> Result<f64, ConfigError> {
        match self.found(field) {
            None => Ok(otherwise),
            Some(v) => v.as_f64().filter(|v| v.is_finite()).ok_or_else(|| self.not(field, "a number")),
        }
    }

    /// Yes or no, or what stands for it where there is none.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(&self, field: &str, otherwise: bool) -> Result<bool, ConfigError> {
        match self.found(field) {
            None => Ok(otherwise),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(self.not(field, "true or false")),
        }
    }

    /// An object.
    #[must_use]
    pub fn object(&self, field: &str) -> Option<Config> {
        match self.found(field) {
            Some(Value::Object(fields)) => Some(Config { path: self.path.clone(), fields: fields.clone() }),
            _ => None,
        }
    }

    /// A token of the vocabulary; `otherwise` where the field is left out, as the family's class has it; [`NO_TOKEN`] for
    /// null, and for what no vocabulary holds. Of a list, the first.
    #[must_use]
    pub fn token(&self, field: &str, otherwise: u32) -> u32 {
        let Some(value) = self.fields.get(field) else { return otherwise };
        let found = value.as_u64().or_else(|| value.get(0)?.as_u64());
        found.and_then(|t| u32::try_from(t).ok()).unwrap_or(NO_TOKEN)
    }

    /// Tokens: one, or a list of them; none for null, and where the field is left out.
    #[must_use]
    pub fn tokens(&self, field: &str) -> Vec<u32> {
        let token = |v: &Value| v.as_u64().and_then(|t| u32::try_from(t).ok());
        match self.found(field) {
            Some(Value::Array(list)) => list.iter().filter_map(token).collect(),
            Some(one) => token(one).into_iter().collect(),
            None => vec![],
        }
    }

    /// The fields' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// Whether the field is there, be it null.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Whether a list of texts holds this one.
    #[must_use]
    pub fn lists(&self, field: &str, text: &str) -> bool {
        self.found(field).and_then(Value::as_array).is_some_and(|list| list.iter().any(|v| v == text))
    }

    /// Refuses a field that is set to anything else than `harmless`.
    ///
    /// # Errors
    /// That it is.
    pub fn refuse(&self, field: &str, harmless: &[Value]) -> Result<(), ConfigError> {
        match self.found(field) {
            Some(v) if !harmless.contains(v) => Err(self.wrong(field, refusal(v, harmless))),
            _ => Ok(()),
        }
    }

    /// What every family refuses.
    ///
    /// # Errors
    /// The first such field.
    pub fn refuse_common(&self) -> Result<(), ConfigError> {
        self.refuse("quantization_config", &[])?;
        self.refuse("is_decoder", &[false.into()])?;
        self.refuse("add_cross_attention", &[false.into()])?;
        self.refuse("pruned_heads", &[Value::Object(Map::new())])
    }

    /// The architecture: one of these.
    ///
    /// # Errors
    /// Another, with what is supported.
    pub fn architecture(&self, supported: &[&str]) -> Result<String, ConfigError> {
        let found = self.found("architectures").and_then(|v| v.get(0)?.as_str());
        match found {
            Some(a) if supported.contains(&a) => Ok(a.to_owned()),
            Some(other) => Err(self.wrong(
                "architectures",
                format!("{other:?} is not supported; supported are: {}", name_list(supported.iter().copied(), 9)),
            )),
            None => Err(self.not("architectures", &name_list(supported.iter().copied(), 9))),
        }
    }

    /// An activation by Hugging Face's name.
    ///
    /// # Errors
    /// Another.
    pub fn activation(&self, field: &str, otherwise: &str) -> Result<Activation, ConfigError> {
        let name = self.text(field)?.unwrap_or_else(|| otherwise.to_owned());
        activation(&name).ok_or_else(|| {
            let supported = "`relu`, `gelu`, `gelu_new`, `gelu_pytorch_tanh`, `silu`, `swish`";
            self.wrong(field, format!("{name:?} is not supported; supported are: {supported}"))
        })
    }

    /// What a classifier's logits mean, by `problem_type`; without it, one output is a value, as transformers has it.
    ///
    /// # Errors
    /// A problem that is not known.
    pub fn problem(&self, outputs: usize) -> Result<HeadKind, ConfigError> {
        match self.text("problem_type")?.as_deref() {
            None if outputs == 1 => Ok(HeadKind::Regression),
            None | Some("single_label_classification") => Ok(HeadKind::Classification),
            Some("multi_label_classification") => Ok(HeadKind::Binary),
            Some("regression") => Ok(HeadKind::Regression),
            Some(_) => {
                let known = "single_label_classification, multi_label_classification, regression";
                Err(self.not("problem_type", known))
            }
        }
    }

    /// Names of the outputs.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<usize, String> {
        let Some(labels) = self.object("id2label") else { return BTreeMap::new() };
        labels.fields.iter().filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_owned()))).collect()
    }
}

/// A value as a message quotes it.
fn shown(value: &Value) -> String {
    printable(&excerpt(value.to_string()))
}

fn refusal(found: &Value, harmless: &[Value]) -> String {
    let found = shown(found);
    match harmless {
        [] => format!("{found} is not supported; supported are models without it"),
        _ => {
            let supported: Vec<String> = harmless.iter().map(Value::to_string).collect();
            format!("{found} is not supported; supported: {}", supported.join(", "))
        }
    }
}

/// An activation by Hugging Face's name.
#[must_use]
pub fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Silu,
        _ => return None,
    })
}

/// A float as the device's scalar.
#[must_use]
pub fn real(x: f64) -> Real {
    Real::from_f64(x)
}

/// 1/√n.
#[must_use]
pub fn one_over_root(n: usize) -> Real {
    Real::int(n as i64).rsqrt()
}
