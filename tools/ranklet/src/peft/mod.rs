//! PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! | file | what it knows |
//! |---|---|
//! | [`config`] | every field, and what is done with it |
//! | [`keys`] | every kind of tensor name |
//! | [`pattern`] | how PEFT matches module names |
//!
//! PEFT itself loads leniently: a missing tensor only warns, an extra one and a NaN are silent. Here each of them is
//! an error, because an adapter in flash has nobody to read its warnings.

pub mod config;
pub mod keys;
pub mod pattern;

use crate::adapter::{Adapter, MAX_RANK, Pair, PairError, Site, find};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::files;
use crate::tensor::name_list;
use config::{Config, ConfigError, Selects};
use keys::{Key, Part};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The configuration's file name.
pub const CONFIG: &str = "adapter_config.json";
/// The weights' file name.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// Why an adapter cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeftError {
    /// There is no such thing, or it is of another kind.
    #[error("{path}: {problem}")]
    NotPeft {
        /// Where.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A pair that does not fit the base.
    #[error("{path}")]
    Pair {
        /// The weights.
        path: PathBuf,
        /// Why.
        source: PairError,
    },
    /// Tensors that cannot be used.
    #[error("{path}: {problem}")]
    Tensors {
        /// The weights.
        path: PathBuf,
        /// Which, and why.
        problem: String,
    },
}

/// Reads an adapter for a base with these sites. `path` is a directory, or a `.safetensors` file with
/// `adapter_config.json` beside it.
///
/// # Errors
/// [`PeftError`]: anything that PEFT knows and this does not, by name; any tensor left over.
pub fn read(path: &Path, sites: &[Site]) -> Result<Adapter, PeftError> {
    let (config_path, weights_path) = locate(path)?;
    let config = Config::read(&config_path)?;
    let weights = Checkpoint::open_file(&weights_path)?;
    let pairs = sort(&weights_path, &weights, &config)?;
    let mut adapter = Adapter { pairs: Vec::new(), config: config.fields.clone(), warnings: Vec::new() };
    adapter.warnings.extend(config.warnings.iter().cloned());
    for name in &config.modules_to_save {
        // The file holds no tensor for it (`sort` would have refused); does the base hold such a module?
        if sites.iter().any(|s| s.module == *name || s.module.ends_with(&format!(".{name}"))) {
            let problem =
                format!("modules_to_save names `{name}`, a layer of this base, but the file does not hold it");
            return Err(PeftError::Tensors { path: weights_path, problem });
        }
        let warning = format!("modules_to_save names `{name}`, which neither the base nor the file holds: passed over");
        adapter.warnings.push(warning);
    }
    let fit = |source| PeftError::Pair { path: weights_path.clone(), source };
    for (module, Half { a, b }) in pairs {
        find(&module, sites).map_err(fit)?;
        let (Some(a_name), Some(b_name)) = (&a, &b) else {
            let (found, missing) = if a.is_some() { ("lora_A", "lora_B") } else { ("lora_B", "lora_A") };
            let problem = format!("`{module}` has {found} but no {missing}; save the adapter again");
            return Err(PeftError::Tensors { path: weights_path, problem });
        };
        // PEFT wraps PyTorch's attention as a whole, and what is inside with it.
        let selected = module.split(".base_layer.").next().unwrap_or(&module);
        if let Selects::No(why) = config.selects(selected) {
            let problem = format!("tensors for `{module}`, but {why}; PEFT would not load them");
            return Err(PeftError::Tensors { path: weights_path, problem });
        }
        let a = weights.matrix(a_name, "(r, in)")?;
        let b = weights.matrix(b_name, "(out, r)")?;
        let rank = config.rank(&module);
        if (1..=MAX_RANK).contains(&a.rows) && a.rows != rank {
            let problem = format!(
                "`{module}`: lora_A has rank {}, but the configuration says {rank} (r, or rank_pattern); they belong \
                 to different adapters",
                a.rows
            );
            return Err(PeftError::Tensors { path: weights_path, problem });
        }
        let mut scaling = config.scaling(&module, a.rows);
        if module.contains(".base_layer.") {
            // PEFT adds the pair of a wrapped attention's output to the weight, and then merges the wrapped layer, which
            // adds it again: whoever trained it, trained it twice.
            scaling *= 2.0;
            let warning =
                format!("`{module}`: PEFT (seen in 0.21) adds this pair twice; so it is stored at twice its scaling");
            adapter.warnings.push(warning);
        }
        adapter.pairs.push(Pair::fit(&module, a, b, scaling, sites).map_err(fit)?);
    }
    adapter.pairs.sort_by_key(|p| p.site);
    let bare = |s: &&Site| {
        !adapter.pairs.iter().any(|p| sites[p.site] == **s) && matches!(config.selects(&s.module), Selects::Yes)
    };
    let missing: Vec<&str> = sites.iter().filter(bare).map(|s| s.module.as_str()).collect();
    if !missing.is_empty() {
        let problem = format!(
            "target_modules selects {}, but the file holds no tensors for it; the file is incomplete",
            name_list(missing, 8)
        );
        return Err(PeftError::Tensors { path: weights_path, problem });
    }
    if adapter.pairs.is_empty() {
        let problem = "holds no lora_A / lora_B tensors".to_owned();
        return Err(PeftError::Tensors { path: weights_path, problem });
    }
    Ok(adapter)
}

/// The tensors of one module.
#[derive(Default)]
struct Half {
    a: Option<String>,
    b: Option<String>,
}

/// Sorts tensor names by module; whatever is on no list is refused by name.
fn sort(path: &Path, weights: &Checkpoint, config: &Config) -> Result<BTreeMap<String, Half>, PeftError> {
    let refuse = |problem| Err(PeftError::Tensors { path: path.to_owned(), problem });
    let mut pairs: BTreeMap<String, Half> = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in weights.names() {
        match keys::parse(name) {
            Key::Lora { module, part } => {
                let half = pairs.entry(module.to_owned()).or_default();
                let place = if part == Part::A { &mut half.a } else { &mut half.b };
                *place = Some(name.to_owned());
            }
            Key::NotSupported(what) => return refuse(format!("tensor `{name}`: not supported yet: {what}")),
            Key::Mlx => return refuse(format!("tensor `{name}`: {}", config::MLX)),
            Key::Unknown => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(pairs);
    }
    let hint = if unknown.iter().any(|n| keys::carries_adapter_name(n)) {
        "; they carry an adapter's name, as a state_dict() does: save with PEFT's save_pretrained() instead"
    } else if unknown.iter().all(|n| !n.starts_with(keys::PREFIX)) {
        "; PEFT's names start with `base_model.model.`: save with PEFT's save_pretrained()"
    } else if config.modules_to_save.is_empty() {
        ""
    } else {
        "; modules_to_save (layers trained whole) is not supported yet"
    };
    let names = name_list(unknown.iter().copied(), 8);
    refuse(format!("left-over tensors that no rule claims: {names}{hint}"))
}

/// Configuration and weights of what the user named.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf), PeftError> {
    let wrong = |problem: &str| PeftError::NotPeft { path: path.to_owned(), problem: problem.to_owned() };
    if path.is_file() {
        if starts_with(path, b"GGUF") {
            return Err(wrong("a llama.cpp GGUF adapter: not supported yet; give the PEFT adapter it was made from"));
        }
        let config = path.with_file_name(CONFIG);
        if !config.is_file() {
            let problem = "there is no adapter_config.json beside it, which tells alpha; for a plain LoRALayer \
                           state_dict use --format lora-layer --alpha X";
            return Err(wrong(problem));
        }
        return Ok((config, path.to_owned()));
    }
    if !path.is_dir() {
        let found = if path.exists() { files::found(path) } else { "no such file or directory" };
        return Err(wrong(&format!("{found}; expected a PEFT adapter directory")));
    }
    let (config, weights) = (path.join(CONFIG), path.join(WEIGHTS));
    if !config.is_file() {
        return Err(wrong(
            "holds no adapter_config.json; expected a PEFT adapter directory, as save_pretrained() writes",
        ));
    }
    if weights.is_file() {
        return Ok((config, weights));
    }
    if path.join("adapters.safetensors").is_file() {
        return Err(wrong(config::MLX));
    }
    if path.join("adapter_model.bin").is_file() {
        let problem = "holds adapter_model.bin, a pickle, which runs code when it is loaded and is not read; save \
                       again with safe_serialization=True";
        return Err(wrong(problem));
    }
    Err(wrong("holds adapter_config.json, but no adapter_model.safetensors"))
}

fn starts_with(path: &Path, magic: &[u8]) -> bool {
    use std::io::Read;
    let mut start = vec![0; magic.len()];
    std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_ok() && start == magic
}
