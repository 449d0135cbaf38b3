//! The small spec file beside a plain `state_dict`: `config.json`.
//!
//! ```json
//! {
//!   "model_type": "mlp",
//!   "modules": ["0", "2", "4"],
//!   "activation": "relu",
//!   "head": "classification",
//!   "id2label": {"0": "zero", "1": "one"},
//!   "normalization": {"mean": "input.mean", "std": "input.std"}
//! }
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `model_type` | `mlp`: linear layers one after the other |
//! | `modules` | the module paths of the linears in the order of the data's way; `<module>.weight` is (out, in), `<module>.bias` (out) may be missing |
//! | `activation` | `relu`: between the linears, none after the last. May be left out where there is one linear |
//! | `head` | `classification` (one logit a class), `binary` (independent yes/no logits), `regression` (values), `none` (features) |
//! | `id2label` | optional: names of the outputs |
//! | `normalization` | optional: names of two tensors (features): the network is fed (x − mean) / std |
//!
//! Fields whose name starts with `_`, and those that Hugging Face adds for information (`architectures`,
//! `torch_dtype`, `dtype`, `transformers_version`), are passed over. Any other unknown field is an error: it would
//! be a wish that nobody hears.

use crate::files;
use crate::hf;
use crate::tensor::{excerpt, name_list};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the spec file in a checkpoint's directory.
pub const FILE: &str = "config.json";

const FIELDS: [&str; 6] = ["model_type", "modules", "activation", "head", "id2label", "normalization"];
const INFORMATION: [&str; 5] = ["architectures", "torch_dtype", "dtype", "transformers_version", "license"];

/// Bytes that the name of a module or an output may have.
pub const MAX_NAME: usize = 1024;

/// What the last vector means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Features for somebody else.
    None,
    /// One logit a class, exclusive.
    Classification,
    /// One logit a label, each yes or no.
    Binary,
    /// Values.
    Regression,
}

impl Head {
    const ALL: [Head; 4] = [Head::Classification, Head::Binary, Head::Regression, Head::None];

    /// As it stands in a spec file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Head::None => "none",
            Head::Classification => "classification",
            Head::Binary => "binary",
            Head::Regression => "regression",
        }
    }
}

/// A parsed and checked spec file.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpSpec {
    /// Module paths of the linears, in the order of the data's way; at least one, all different.
    pub modules: Vec<String>,
    /// Whether a ReLU stands between the linears.
    pub relu: bool,
    /// What the last vector means.
    pub head: Head,
    /// Names of outputs, by index; empty where none are given.
    pub labels: BTreeMap<usize, String>,
    /// Names of the tensors that hold mean and deviation of the input.
    pub normalization: Option<(String, String)>,
}

/// Why a spec file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is none.
    #[error(
        "{path}: no such file; beside the weights a small spec is needed, for instance \
         {{\"model_type\": \"mlp\", \"modules\": [\"0\", \"2\"], \"activation\": \"relu\", \"head\": \"classification\"}}"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not JSON.
    #[error("{path}: not a JSON object: {problem}")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser met.
        problem: String,
    },
    /// An architecture that is not supported.
    #[error("{path}: model_type {found:?} is not supported; supported are: `mlp`, {}", supported())]
    Architecture {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A field that is missing or says something impossible.
    #[error("{path}: field `{field}`: {problem}")]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What was found and what was expected.
        problem: String,
    },
}

impl MlpSpec {
    /// Reads the spec file of a checkpoint: `config.json` in the directory, or beside the file.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn read(path: &Path) -> Result<MlpSpec, SpecError> {
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(SpecError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(SpecError::Io { path: path.to_owned(), source }),
        };
        MlpSpec::parse(path, &text)
    }

    /// Parses the text of a spec file; `path` is for messages.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(path: &Path, text: &str) -> Result<MlpSpec, SpecError> {
        let json = |problem| SpecError::Json { path: path.to_owned(), problem };
        let value: Value = serde_json::from_str(text).map_err(|e| json(e.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(json("something else".to_owned()));
        };
        Parser { path, fields: &fields }.spec()
    }
}

struct Parser<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Parser<'_> {
    fn wrong(&self, field: &str, problem: impl Into<String>) -> SpecError {
        SpecError::Field { path: self.path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    fn spec(&self) -> Result<MlpSpec, SpecError> {
        match self.fields.get("model_type") {
            Some(Value::String(t)) if t == "mlp" => {}
            Some(Value::String(t)) => {
                return Err(SpecError::Architecture { path: self.path.to_owned(), found: t.clone() });
            }
            other => return Err(self.wrong("model_type", format!("found {}; expected \"mlp\"", shown(other)))),
        }
        let known =
            |k: &str| FIELDS.contains(&k) || INFORMATION.contains(&k) || k.starts_with('_') || k == "description";
        if let Some(unknown) = self.fields.keys().find(|k| !known(k)) {
            let known = name_list(FIELDS, FIELDS.len());
            return Err(self.wrong(unknown, format!("unknown; known are {known} (start notes of your own with `_`)")));
        }
        let modules = self.modules()?;
        let relu = match self.fields.get("activation") {
            Some(Value::String(a)) if a == "relu" => modules.len() > 1,
            None if modules.len() == 1 => false,
            other => {
                let problem = format!("found {}; supported are: \"relu\"", shown(other));
                return Err(self.wrong("activation", problem));
            }
        };
        let named = |h: &Head| self.fields.get("head") == Some(&Value::String(h.name().to_owned()));
        let Some(head) = Head::ALL.into_iter().find(named) else {
            let known = name_list(Head::ALL.map(Head::name), 9);
            return Err(
                self.wrong("head", format!("found {}; expected one of {known}", shown(self.fields.get("head"))))
            );
        };
        Ok(MlpSpec { modules, relu, head, labels: self.labels()?, normalization: self.normalization()? })
    }

    fn modules(&self) -> Result<Vec<String>, SpecError> {
        let expected = "the module paths of the linears in order, for instance [\"0\", \"2\", \"4\"]";
        let wrong =
            |found: Option<&Value>| self.wrong("modules", format!("found {}; expected {expected}", shown(found)));
        let Some(Value::Array(list)) = self.fields.get("modules") else {
            return Err(wrong(self.fields.get("modules")));
        };
        let mut modules: Vec<String> = Vec::new();
        for item in list {
            match item {
                Value::String(s) if s.len() > MAX_NAME => {
                    let problem = format!("a name of {} bytes; at most {MAX_NAME} are supported", s.len());
                    return Err(self.wrong("modules", problem));
                }
                // A line break would break the image's list of names.
                Value::String(s) if !s.is_empty() && !s.contains(['\n', '\r']) => {
                    if modules.contains(s) {
                        return Err(
                            self.wrong("modules", format!("names `{s}` twice; shared layers are not supported"))
                        );
                    }
                    modules.push(s.clone());
                }
                other => return Err(wrong(Some(other))),
            }
        }
        if modules.is_empty() { Err(wrong(self.fields.get("modules"))) } else { Ok(modules) }
    }

    fn labels(&self) -> Result<BTreeMap<usize, String>, SpecError> {
        let wrong = |found: String| {
            self.wrong("id2label", format!("found {found}; expected names by index, for instance {{\"0\": \"cat\"}}"))
        };
        match self.fields.get("id2label") {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => {
                let mut labels = BTreeMap::new();
                for (k, v) in map {
                    let (Ok(index), Value::String(name)) = (k.parse(), v) else {
                        return Err(wrong(format!("{k:?}: {v}")));
                    };
                    if name.len() > MAX_NAME {
                        return Err(wrong(format!("a name of {} bytes for output {index}", name.len())));
                    }
                    // `1` and `01` are different keys of the same index.
                    if labels.insert(index, name.clone()).is_some() {
                        return Err(wrong(format!("two names of output {index}")));
                    }
                }
                Ok(labels)
            }
            other => Err(wrong(shown(other))),
        }
    }

    fn normalization(&self) -> Result<Option<(String, String)>, SpecError> {
        match self.fields.get("normalization") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) if map.len() == 2 => match (map.get("mean"), map.get("std")) {
                (Some(Value::String(mean)), Some(Value::String(std))) => Ok(Some((mean.clone(), std.clone()))),
                _ => Err(self.wrong("normalization", "expected the names of two tensors, `mean` and `std`")),
            },
            other => {
                let expected = "{\"mean\": \"input.mean\", \"std\": \"input.std\"} (names of tensors)";
                Err(self.wrong("normalization", format!("found {}; expected {expected}", shown(other))))
            }
        }
    }
}

/// The model types beside `mlp`.
fn supported() -> String {
    name_list(hf::SUPPORTED, hf::SUPPORTED.len())
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("nothing".to_owned(), |v| excerpt(v.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MlpSpec, String> {
        MlpSpec::parse(Path::new("config.json"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_documented_example() {
        let spec = parse(
            r#"{"model_type": "mlp", "modules": ["0", "2", "4"], "activation": "relu", "head": "classification",
                "id2label": {"0": "zero", "1": "one"}, "normalization": {"mean": "input.mean", "std": "input.std"},
                "_made_by": "a script"}"#,
        )
        .unwrap();
        assert_eq!(spec.modules, ["0", "2", "4"]);
        assert!(spec.relu);
        assert_eq!(spec.head, Head::Classification);
        assert_eq!(spec.labels[&1], "one");
        assert_eq!(spec.normalization, Some(("input.mean".to_owned(), "input.std".to_owned())));
    }

    #[test]
    fn long_names_are_refused_without_repeating_them() {
        let name = |bytes| "m".repeat(bytes);
        let module = |n| parse(&format!(r#"{{"model_type": "mlp", "modules": ["{}"], "head": "none"}}"#, name(n)));
        assert!(module(MAX_NAME).is_ok());
        let e = module(MAX_NAME + 1).unwrap_err();
        assert!(e.contains("1025 bytes") && e.len() < 200, "{e}");
        let labels = format!(r#"{{"0": "{}"}}"#, name(70_000));
        let text = format!(r#"{{"model_type": "mlp", "modules": ["0"], "head": "none", "id2label": {labels}}}"#);
        let e = parse(&text).unwrap_err();
        assert!(e.contains("70000 bytes") && e.len() < 200, "{e}");
    }

    #[test]
    fn refusals_name_what_was_found_and_what_is_supported() {
        for (text, parts) in [
            ("[]", ["not a JSON object", "config.json"]),
            (r#"{"modules": ["0"]}"#, ["model_type", "nothing"]),
            (r#"{"model_type": "falcon"}"#, ["\"falcon\"", "supported are: `mlp`, `bert`"]),
            (r#"{"model_type": "mlp", "modules": [], "head": "none"}"#, ["modules", "[]"]),
            (r#"{"model_type": "mlp", "modules": ["0", "0"], "head": "none"}"#, ["`0`", "twice"]),
            (r#"{"model_type": "mlp", "modules": ["0", "1"], "head": "none"}"#, ["activation", "relu"]),
            (r#"{"model_type": "mlp", "modules": ["0"], "activation": "gelu", "head": "none"}"#, ["gelu", "relu"]),
            (r#"{"model_type": "mlp", "modules": ["0"], "head": "softmax"}"#, ["softmax", "`regression`"]),
            (r#"{"model_type": "mlp", "modules": ["0"], "head": "none", "heads": 1}"#, ["`heads`", "unknown"]),
            (r#"{"model_type": "mlp", "modules": ["0"], "head": "none", "id2label": ["a"]}"#, ["id2label", "[\"a\"]"]),
            (
                r#"{"model_type": "mlp", "modules": ["0"], "head": "none", "id2label": {"1": "a", "01": "b"}}"#,
                ["id2label", "two names of output 1"],
            ),
            (r#"{"model_type": "mlp", "modules": ["0"], "head": "none", "normalization": 1}"#, ["normalization", "1"]),
        ] {
            let e = parse(text).unwrap_err();
            assert!(parts.iter().all(|p| e.contains(p)), "{text}: {e}");
        }
    }
}
