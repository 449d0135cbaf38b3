//! Transformers as Hugging Face saves them, and PyTorch's own encoder: `config.json` and safetensors.
//!
//! Each family's file maps its configuration and tensor names to one neutral description, a [`Network`]; nothing behind
//! it knows a family.
//!
//! | file | model_type | architectures |
//! |---|---|---|
//! | [`bert`] | `bert` | `BertModel`, `BertForSequenceClassification`, `BertForTokenClassification` |
//! | [`t5`] | `t5` | `T5EncoderModel`, `T5ForSequenceClassification` |
//! | [`llama`] | `llama`, `mistral`, `qwen2` | `…ForCausalLM`, `…ForSequenceClassification` |
//! | [`gpt2`] | `gpt2` | `GPT2LMHeadModel` |
//! | [`encoder`] | `transformer_encoder` | `nn.TransformerEncoder` with a small spec (`models/README.md`) |

pub mod bert;
pub mod config;
pub mod encoder;
pub mod gpt2;
pub mod llama;
pub mod t5;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::tensor::{Matrix, name_list};
use config::{Config, ConfigError};
use ranklet::model::HeadKind;
use ranklet::model::spec::Transformer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The model types that are converted here.
pub const SUPPORTED: [&str; 6] = ["bert", "t5", "llama", "mistral", "qwen2", "gpt2"];

/// Why a model cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HfError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Tensors that nothing asks for.
    #[error(
        "{path}: no part of this architecture claims {names}; is `architectures` in config.json right? Save the \
         checkpoint without them"
    )]
    Unclaimed {
        /// The checkpoint.
        path: PathBuf,
        /// Their names.
        names: String,
    },
}

/// Where the weights of one linear layer, or of one table, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The module's path, as PEFT names it.
    pub module: String,
    /// The tensor.
    pub weight: String,
    /// Its bias, if there is one.
    pub bias: Option<String>,
    /// (in, out), as GPT-2's Conv1D.
    pub transposed: bool,
}

impl Source {
    /// A layer of (out, in), whose tensor is in the module of the same name; with a bias where the checkpoint has one.
    #[must_use]
    pub fn linear(checkpoint: &Checkpoint, prefix: &str, module_prefix: &str, name: &str) -> Source {
        let bias = format!("{prefix}{name}.bias");
        Source {
            module: format!("{module_prefix}{name}"),
            weight: format!("{prefix}{name}.weight"),
            bias: checkpoint.contains(&bias).then_some(bias),
            transposed: false,
        }
    }

    /// A tensor of its own name, without bias.
    #[must_use]
    pub fn table(tensor: String) -> Source {
        Source { module: tensor.clone(), weight: tensor, bias: None, transposed: false }
    }
}

/// The tensors of one norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormSource {
    /// Its weight.
    pub weight: String,
    /// Its bias, if there is one.
    pub bias: Option<String>,
}

impl NormSource {
    /// `<name>.weight` and, where the checkpoint has it, `<name>.bias`.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, name: String) -> NormSource {
        let bias = format!("{name}.bias");
        NormSource { weight: format!("{name}.weight"), bias: checkpoint.contains(&bias).then_some(bias) }
    }
}

/// A relative bias: where its table (buckets, heads) is, and the bucket of every distance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelativeSource {
    /// The tensor.
    pub table: String,
    /// Rows: keys up to the query, and, for an encoder, keys behind it.
    pub buckets: Vec<Vec<u8>>,
}

/// A model, neutrally: its numbers, and where everything is.
#[derive(Clone, Debug)]
pub struct Network {
    /// `model_type`.
    pub family: String,
    /// Its numbers; the fields that name sections are still empty.
    pub transformer: Transformer,
    /// What the output means.
    pub head: HeadKind,
    /// Width of a continuous input, or 0.
    pub features: usize,
    /// Width of the output.
    pub outputs: usize,
    /// In the order of the sites; a tied head is last and names the token table.
    pub linears: Vec<Source>,
    /// Tokens, positions, types.
    pub tables: Vec<Source>,
    /// In the order of the spec.
    pub norms: Vec<NormSource>,
    /// The angle a position of each rotary frequency, in 2^-32 turns.
    pub rope: Vec<u32>,
    /// Of encoder and decoder.
    pub relative: [Option<RelativeSource>; 2],
    /// Names of the outputs.
    pub labels: BTreeMap<usize, String>,
    /// Tensors that are known and not needed: ends of names.
    pub ignored: Vec<String>,
}

impl Network {
    /// Whether the head is the token table.
    #[must_use]
    pub fn tied(&self) -> bool {
        match (self.linears.last(), self.tables.first()) {
            (Some(head), Some(tokens)) => self.head == HeadKind::Language && head.weight == tokens.weight,
            _ => false,
        }
    }

    /// Fails where the checkpoint holds a tensor that nothing claims: it would be a part of the model that is lost.
    ///
    /// # Errors
    /// [`HfError::Unclaimed`].
    pub fn check_claims(&self, checkpoint: &Checkpoint) -> Result<(), HfError> {
        let mut claimed: Vec<&str> = Vec::new();
        for source in self.linears.iter().chain(&self.tables) {
            claimed.push(&source.weight);
            claimed.extend(source.bias.as_deref());
        }
        for norm in &self.norms {
            claimed.push(&norm.weight);
            claimed.extend(norm.bias.as_deref());
        }
        claimed.extend(self.relative.iter().flatten().map(|r| r.table.as_str()));
        let lost =
            |name: &&str| !claimed.contains(name) && !self.ignored.iter().any(|end| name.ends_with(end.as_str()));
        let names: Vec<&str> = checkpoint.names().filter(lost).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(HfError::Unclaimed { path: checkpoint.path().to_owned(), names: name_list(names, 12) })
    }
}

/// The matrix of a source, (out, in).
///
/// # Errors
/// [`CheckpointError`].
pub fn matrix(checkpoint: &Checkpoint, source: &Source) -> Result<Matrix, CheckpointError> {
    if !source.transposed {
        return checkpoint.matrix(&source.weight, "(out, in)");
    }
    let m = checkpoint.matrix(&source.weight, "(in, out)")?;
    let mut data = vec![0.0; m.data.len()];
    for (k, row) in m.data.chunks_exact(m.cols.max(1)).enumerate() {
        for (o, &v) in row.iter().enumerate() {
            data[o * m.rows + k] = v;
        }
    }
    Ok(Matrix::new(m.cols, m.rows, data))
}

/// Whether a checkpoint is one of these: its `model_type`, if so.
///
/// # Errors
/// A configuration that cannot be read.
pub fn model_type(path: &Path) -> Result<Option<String>, ConfigError> {
    let config = Config::read(path)?;
    let found = config.text("model_type")?;
    let known = found.as_deref().is_some_and(|t| SUPPORTED.contains(&t) || t == encoder::MODEL_TYPE);
    Ok(found.filter(|_| known))
}

/// Describes a checkpoint.
///
/// # Errors
/// [`HfError`]: an architecture or a field that is not supported, by name; tensors left over.
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    let network = match config.text("model_type")?.as_deref() {
        Some("bert") => bert::describe(config, checkpoint)?,
        Some("t5") => t5::describe(config, checkpoint)?,
        Some("gpt2") => gpt2::describe(config, checkpoint)?,
        Some(encoder::MODEL_TYPE) => encoder::describe(config, checkpoint)?,
        _ => llama::describe(config, checkpoint)?,
    };
    network.check_claims(checkpoint)?;
    Ok(network)
}
