//! PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! | file | what it knows |
//! |---|---|
//! | [`config`] | every field, and what is done with it |
//! | [`keys`] | every kind of tensor name |
//! | [`pattern`] | how PEFT matches module names |
//! | `reader` | from tensors to pairs |
//!
//! PEFT itself loads leniently: a missing tensor only warns, an extra one and a NaN are silent. Here each of them is
//! an error, because an adapter in flash has nobody to read its warnings.

pub mod config;
pub mod keys;
pub mod pattern;
mod reader;

use crate::adapter::{Adapter, PairError};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::files;
use crate::image::stored::Stored;
use crate::tensor::name_list;
use config::{Config, ConfigError};
use reader::Reader;
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

/// How often PEFT adds the pair of a wrapped attention's output projection: to the weight, and then it merges the wrapped
/// layer, which adds it again. Whoever trained it, trained it twice.
pub const WRAPPED_TIMES: f64 = 2.0;

/// Of a module inside PyTorch's attention, which PEFT wraps as a whole: the attention.
#[must_use]
pub fn wrapper(module: &str) -> Option<&str> {
    module.split_once(".base_layer.").map(|(outer, _)| outer)
}

/// Reads an adapter for a base. `path` is a directory, or a `.safetensors` file with `adapter_config.json` beside it;
/// `name` chooses among several adapters in one directory.
///
/// # Errors
/// [`PeftError`]: anything that PEFT knows and this does not, by name; any tensor left over.
pub fn read(path: &Path, name: Option<&str>, base: &Stored<'_>) -> Result<Adapter, PeftError> {
    let path = choose(path, name)?;
    let (config, weights_path) = locate(&path)?;
    let config = Config::read(&config)?;
    let weights = Checkpoint::open_file(&weights_path)?;
    Reader { path: &weights_path, config: &config, weights: &weights, base }.read()
}

/// The directory of the adapter that is meant. `save_pretrained` gives every adapter a subdirectory of its name, but the
/// one called "default", which lies in the directory itself.
///
/// # Errors
/// [`PeftError::NotPeft`] where it takes a name to choose, or where there is none of that name.
pub fn choose(path: &Path, name: Option<&str>) -> Result<PathBuf, PeftError> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let adapters = entries.filter(|e| e.path().join(CONFIG).is_file());
    let mut names: Vec<String> = adapters.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let has_default = path.join(CONFIG).is_file();
    let held = || {
        let default = has_default.then_some("default");
        name_list(default.into_iter().chain(names.iter().map(String::as_str)), 12)
    };
    let wrong = |problem: String| Err(PeftError::NotPeft { path: path.to_owned(), problem });
    match name {
        Some("default") if has_default => Ok(path.to_owned()),
        Some(name) if names.iter().any(|n| n == name) => Ok(path.join(name)),
        Some(name) => wrong(format!("holds no adapter `{name}` (--name); it holds {}", held())),
        None if !has_default && !names.is_empty() => {
            wrong(format!("holds no adapter itself, but in its subdirectories: {}; choose with --name", held()))
        }
        None => Ok(path.to_owned()),
    }
}

/// Configuration and weights of what the user named.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf), PeftError> {
    let wrong = |problem: &str| PeftError::NotPeft { path: path.to_owned(), problem: problem.to_owned() };
    if path.is_file() {
        if starts_with(path, b"GGUF") {
            return Err(wrong("a GGUF file where a PEFT adapter was expected; give it alone, without --name"));
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
