//! `adapter_config.json`: every field that PEFT 0.20 writes, and what is done with it. A field that is on no list
//! and not null is refused by name: it may change what the tensors mean.

use super::pattern::{Key, Modules, PatternError};
use crate::adapter::check_alpha;
use crate::files;
use crate::tensor::excerpt;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What is said of an MLX-LM adapter.
pub const MLX: &str = "an MLX-LM adapter (lora_a is (in, r), lora_b is (r, out), and `scale` takes alpha's place), \
                       which is not supported yet; convert it to PEFT: lora_A = lora_aᵀ, lora_B = lora_bᵀ, \
                       lora_alpha = scale · r";

/// Fields that say nothing about what the tensors mean, or are read below.
const KNOWN: [&str; 32] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Fields that change the mathematics: refused if set (to anything but null, false, `[]` and `{}`).
const REFUSED: [(&str, &str); 11] = [
    ("use_qalora", "QA-LoRA pools the inputs in groups, which no kernel here does"),
    ("kasa_config", "KaSA changes the base weights"),
    ("monteclora_config", "MonteCLoRA samples its weights"),
    ("use_bdlora", "block-diagonal LoRA has A and B of another form"),
    ("arrow_config", "Arrow routes between several adapters"),
    ("alora_invocation_tokens", "aLoRA is active behind certain tokens only"),
    ("layer_replication", "it changes the base's layers"),
    ("target_parameters", "LoRA on bare parameters (mixtures of experts)"),
    ("megatron_config", "Megatron splits layers over machines"),
    ("velora_config", "VeLoRA is not known here"),
    ("trainable_token_indices", "not supported: trained tokens; train without them"),
];

/// Values of `init_lora_weights` that leave the base alone.
const INNOCENT_INIT: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Values that subtract what A and B start with from the base weight: the adapter belongs to that changed base.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// Patterns in one field: more than any model has layers that differ.
const MAX_PATTERNS: usize = 1024;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a JSON object.
    #[error("{path}: not a JSON object: {problem}")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser met.
        problem: String,
    },
    /// It belongs to another kind of adapter.
    #[error("{path}: {what}")]
    OtherKind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A field that cannot be honoured.
    #[error("{path}: field `{field}` is {found}: {why}")]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What it says.
        found: String,
        /// Why not, and what would do.
        why: String,
    },
}

/// Which biases of the base were trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// None.
    None,
    /// Those of the layers that have a pair.
    LoraOnly,
    /// Those of every module.
    All,
}

/// Whether a module is, or is within, one that PEFT finds under this name in `modules_to_save`: the end of its path.
#[must_use]
pub fn is_within(module: &str, name: &str) -> bool {
    let ancestors = module.match_indices('.').map(|(dot, _)| &module[..dot]);
    ancestors.chain([module]).any(|path| path.ends_with(name))
}

/// Whether the configuration puts a pair on a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selects {
    /// It does.
    Yes,
    /// It may: the rest is for the tensors to tell.
    Perhaps,
    /// It does not, and why.
    No(String),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// As it came, in its order.
    pub fields: Map<String, Value>,
    /// Layers that were trained whole; the file may hold none of them.
    pub modules_to_save: Vec<String>,
    /// Whether every pair has magnitudes.
    pub dora: bool,
    /// Whether every B has a bias.
    pub lora_bias: bool,
    /// Trained biases of the base.
    pub biases: Biases,
    /// What the user should know, although it is no error.
    pub warnings: Vec<String>,
    r: usize,
    alpha: f64,
    rslora: bool,
    rank_pattern: Vec<(Key, usize)>,
    alpha_pattern: Vec<(Key, f64)>,
    target: Option<Modules>,
    exclude: Option<Modules>,
    by_layer: bool,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = files::read_text(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    /// Checks a text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let json = |problem| ConfigError::Json { path: path.to_owned(), problem };
        match serde_json::from_str(text).map_err(|e| json(e.to_string()))? {
            Value::Object(fields) => Parser { path, fields: &fields }.config(),
            _ => Err(json("something else".to_owned())),
        }
    }

    /// The rank of a module's pair.
    #[must_use]
    pub fn rank(&self, module: &str) -> usize {
        first(&self.rank_pattern, module).unwrap_or(self.r)
    }

    /// The alpha of a module's pair.
    #[must_use]
    pub fn alpha(&self, module: &str) -> f64 {
        first(&self.alpha_pattern, module).unwrap_or(self.alpha)
    }

    /// The scaling of a module's pair: alpha / r, or alpha / √r with `use_rslora`.
    #[must_use]
    pub fn scaling(&self, module: &str, rank: usize) -> f64 {
        let rank = rank as f64;
        self.alpha(module) / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether this module was trained whole.
    #[must_use]
    pub fn saves(&self, module: &str) -> bool {
        self.modules_to_save.iter().any(|name| is_within(module, name))
    }

    /// Whether it puts a pair on this module.
    #[must_use]
    pub fn selects(&self, module: &str) -> Selects {
        if self.exclude.as_ref().is_some_and(|e| e.matches(module)) {
            return Selects::No("exclude_modules leaves it out".to_owned());
        }
        match &self.target {
            Some(target) if !target.matches(module) => {
                let shown = self.fields.get("target_modules").map(|v| excerpt(v.to_string())).unwrap_or_default();
                Selects::No(format!("target_modules ({shown}) does not select it"))
            }
            Some(Modules::AllLinear) | None => Selects::Perhaps,
            Some(_) if self.by_layer => Selects::Perhaps,
            Some(_) => Selects::Yes,
        }
    }
}

fn first<T: Copy>(patterns: &[(Key, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(key, _)| key.matches(module)).map(|&(_, value)| value)
}

struct Parser<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl<'a> Parser<'a> {
    /// A field that is there and not null.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    fn wrong(&self, field: &str, why: impl Into<String>) -> ConfigError {
        let found = self.fields.get(field).map_or("missing".to_owned(), |v| excerpt(v.to_string()));
        ConfigError::Field { path: self.path.to_owned(), field: field.to_owned(), found, why: why.into() }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        self.kind()?;
        for (field, why) in REFUSED {
            if self.get(field).is_some_and(is_set) {
                return Err(self.wrong(field, why));
            }
        }
        let known = |k: &String| KNOWN.contains(&k.as_str()) || REFUSED.iter().any(|(r, _)| r == k);
        if let Some(field) = self.fields.keys().find(|k| !known(k) && self.get(k).is_some()) {
            return Err(self.wrong(field, "a field that is not known here and may change what the tensors mean"));
        }
        self.initialisation()?;
        let modules_to_save = self.modules_to_save()?;
        let (dora, lora_bias) = (self.flag("use_dora")?, self.flag("lora_bias")?);
        if dora && lora_bias {
            return Err(self.wrong("lora_bias", "PEFT has no lora_bias with use_dora"));
        }
        if self.flag("ensure_weight_tying")? && !modules_to_save.is_empty() {
            let why = "not supported with modules_to_save: it may have changed the embedding along with the head";
            return Err(self.wrong("ensure_weight_tying", why));
        }
        let mut warnings = Vec::new();
        let alpha = match self.get("lora_alpha") {
            Some(v) => self.alpha("lora_alpha", v)?,
            None => {
                warnings.push("the configuration has no lora_alpha; PEFT's default 8 is used".to_owned());
                8.0
            }
        };
        let r = self.get("r").map_or(Ok(8), |v| self.count("r", v))?;
        Ok(Config {
            fields: self.fields.clone(),
            modules_to_save,
            dora,
            lora_bias,
            biases: self.biases()?,
            warnings,
            r,
            alpha,
            rslora: self.flag("use_rslora")?,
            rank_pattern: self.patterns("rank_pattern", |v| self.count("rank_pattern", v))?,
            alpha_pattern: self.patterns("alpha_pattern", |v| self.alpha("alpha_pattern", v))?,
            target: self.modules("target_modules")?,
            exclude: self.modules("exclude_modules")?,
            by_layer: self.get("layers_to_transform").is_some_and(is_set),
        })
    }

    fn kind(&self) -> Result<(), ConfigError> {
        let other = |what: String| Err(ConfigError::OtherKind { path: self.path.to_owned(), what });
        match self.fields.get("peft_type") {
            Some(Value::String(t)) if t == "LORA" => Ok(()),
            Some(t) => other(format!("peft_type is {t}; only \"LORA\" adapters are supported")),
            None if ["lora_parameters", "fine_tune_type", "lora_layers"]
                .iter()
                .any(|f| self.fields.contains_key(*f)) =>
            {
                other(MLX.to_owned())
            }
            None => other("it has no peft_type; expected the configuration of a PEFT adapter, \"LORA\"".to_owned()),
        }
    }

    fn initialisation(&self) -> Result<(), ConfigError> {
        let field = "init_lora_weights";
        match self.get(field) {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(s)) if INNOCENT_INIT.contains(&s.as_str()) => Ok(()),
            Some(Value::String(s)) if CHANGES_BASE.iter().any(|c| s.starts_with(c)) => {
                let why = "this initialisation changed the base weights, so the adapter is wrong on the original base; \
                           save it with path_initial_model_for_weight_conversion, which makes an ordinary LoRA of it";
                Err(self.wrong(field, why))
            }
            Some(_) => Err(self.wrong(field, "an initialisation that is not known here and may have changed the base")),
        }
    }

    fn alpha(&self, field: &str, value: &Value) -> Result<f64, ConfigError> {
        let alpha = value.as_f64().ok_or_else(|| self.wrong(field, "expected a number"))?;
        check_alpha(alpha).map_err(|e| self.wrong(field, e.to_string()))?;
        Ok(alpha)
    }

    fn count(&self, field: &str, value: &Value) -> Result<usize, ConfigError> {
        let count = value.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
        count.ok_or_else(|| self.wrong(field, "expected a whole number above 0"))
    }

    fn flag(&self, field: &str) -> Result<bool, ConfigError> {
        match self.get(field) {
            None => Ok(false),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(field, "expected true or false")),
        }
    }

    /// In file order: the first key that matches counts.
    fn patterns<T>(
        &self,
        field: &str,
        read: impl Fn(&Value) -> Result<T, ConfigError>,
    ) -> Result<Vec<(Key, T)>, ConfigError> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) if map.len() > MAX_PATTERNS => {
                Err(self.wrong(field, format!("more than {MAX_PATTERNS} patterns")))
            }
            Some(Value::Object(map)) => {
                map.iter().map(|(k, v)| Ok((Key::new(k).map_err(|e| self.pattern(field, &e))?, read(v)?))).collect()
            }
            Some(_) => Err(self.wrong(field, "expected an object: module pattern to number")),
        }
    }

    fn modules(&self, field: &str) -> Result<Option<Modules>, ConfigError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        match Modules::new(value).map_err(|e| self.pattern(field, &e))? {
            Some(modules) => Ok(Some(modules)),
            None => Err(self.wrong(field, "expected a list of names, or a regular expression")),
        }
    }

    fn biases(&self) -> Result<Biases, ConfigError> {
        match self.get("bias").map(Value::as_str) {
            None | Some(Some("none")) => Ok(Biases::None),
            Some(Some("lora_only")) => Ok(Biases::LoraOnly),
            Some(Some("all")) => Ok(Biases::All),
            Some(_) => Err(self.wrong("bias", "expected \"none\", \"lora_only\" or \"all\"")),
        }
    }

    fn modules_to_save(&self) -> Result<Vec<String>, ConfigError> {
        match self.get("modules_to_save") {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                let names: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                names.ok_or_else(|| self.wrong("modules_to_save", "expected a list of names"))
            }
            Some(_) => Err(self.wrong("modules_to_save", "expected a list of names")),
        }
    }

    fn pattern(&self, field: &str, e: &PatternError) -> ConfigError {
        self.wrong(field, e.to_string())
    }
}

/// Whether a field switches something on.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(changes: Value) -> Result<Config, String> {
        let mut fields = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["0", "2"]});
        for (k, v) in changes.as_object().unwrap() {
            fields[k] = v.clone();
        }
        Config::parse(Path::new("adapter_config.json"), &fields.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_peft_writes_by_default_is_accepted() {
        let written = json!({
            "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
            "base_model_name_or_path": "x", "bias": "none", "corda_config": null, "ensure_weight_tying": false,
            "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
            "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
            "layers_to_transform": null, "loftq_config": {}, "lora_bias": false, "lora_dropout": 0.05,
            "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": null, "monteclora_config": null, "peft_version": "0.20.0", "qalora_group_size": 16,
            "rank_pattern": {}, "revision": null, "target_parameters": null, "task_type": null,
            "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false,
            "use_rslora": false, "velora_config": null, "some_future_field": null
        });
        let c = parse(written).unwrap();
        assert_eq!(c.scaling("0", 4), 2.0);
        assert!(c.warnings.is_empty());
        assert_eq!(c.fields.keys().next().unwrap(), "peft_type", "order is kept");
    }

    #[test]
    fn scaling_follows_patterns_in_file_order() {
        let text = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6.5, "target_modules": ["0", "2"],
            "rank_pattern": {"2": 9, ".*": 3}, "alpha_pattern": {"2": 18, "[02]": 5}, "use_rslora": true}"#;
        let c = Config::parse(Path::new("x"), text).unwrap();
        assert_eq!((c.rank("2"), c.rank("0"), c.rank("a.2")), (9, 3, 9));
        assert_eq!(c.scaling("2", 9), 6.0);
        assert_eq!(c.alpha("0"), 5.0);
        assert_eq!(c.alpha("7"), 6.5);
    }

    #[test]
    fn selection_is_a_cross_check() {
        let c = parse(json!({"exclude_modules": ["2"]})).unwrap();
        assert_eq!(c.selects("0"), Selects::Yes);
        assert!(matches!(c.selects("2"), Selects::No(why) if why.contains("exclude_modules")));
        assert!(matches!(c.selects("4"), Selects::No(why) if why.contains(r#"["0","2"]"#)));
        assert_eq!(parse(json!({"target_modules": "all-linear"})).unwrap().selects("9"), Selects::Perhaps);
        assert_eq!(parse(json!({"layers_to_transform": [1]})).unwrap().selects("0"), Selects::Perhaps);
    }

    #[test]
    fn refusals_name_the_field() {
        let many: Map<String, Value> = (0..1025).map(|i| (i.to_string(), json!(1))).collect();
        for (changes, part) in [
            (json!({"peft_type": "LOHA"}), "LOHA"),
            (json!({"peft_type": null}), "peft_type"),
            (json!({"use_dora": 1}), "true or false"),
            (json!({"use_dora": true, "lora_bias": true}), "`lora_bias`"),
            (json!({"ensure_weight_tying": true, "modules_to_save": ["head"]}), "`ensure_weight_tying`"),
            (json!({"use_qalora": true}), "use_qalora"),
            (json!({"kasa_config": {"beta": 1}}), "kasa_config"),
            (json!({"bias": "some"}), "lora_only"),
            (json!({"trainable_token_indices": [1]}), "trained tokens"),
            (json!({"init_lora_weights": "pissa_niter_16"}), "changed the base"),
            (json!({"init_lora_weights": "olora"}), "changed the base"),
            (json!({"init_lora_weights": "new"}), "not known"),
            (json!({"brand_new": 1}), "brand_new"),
            (json!({"brand_new": false}), "brand_new"),
            (json!({"r": 0}), "above 0"),
            (json!({"r": 2.5}), "whole number"),
            (json!({"lora_alpha": "8"}), "number"),
            (json!({"lora_alpha": 1e-300}), "between 1e-290 and 1e290"),
            (json!({"alpha_pattern": {"0": 5e-324}}), "`alpha_pattern`"),
            (json!({"target_modules": 3}), "list of names"),
            (json!({"target_modules": "(?!0).*"}), "look-around"),
            (json!({"rank_pattern": {"(": 1}}), "rank_pattern"),
            (json!({"alpha_pattern": {"[0-9&&[^2]]": 8}}), "Python"),
            (json!({"target_modules": "[0--9]"}), "Python"),
            (json!({"rank_pattern": many}), "1024 patterns"),
            (json!({"use_rslora": "yes"}), "true or false"),
            (json!({"modules_to_save": "fc"}), "list of names"),
        ] {
            let e = parse(changes.clone()).unwrap_err();
            assert!(e.contains(part), "{changes}: {e}");
        }
    }

    #[test]
    fn modules_to_save_match_as_pefts_do() {
        let c = parse(json!({"modules_to_save": ["classifier"], "bias": "lora_only", "use_dora": true})).unwrap();
        assert!(c.saves("classifier") && c.saves("a.classifier") && c.saves("classifier.out_proj"));
        assert!(!c.saves("classifier2") && !c.saves("a.dense"));
        assert_eq!((c.biases, c.dora, c.lora_bias), (Biases::LoraOnly, true, false));
    }

    #[test]
    fn mlx_is_recognised() {
        let text = r#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}"#;
        let e = Config::parse(Path::new("x"), text).unwrap_err().to_string();
        assert!(e.contains("MLX-LM"), "{e}");
    }
}
