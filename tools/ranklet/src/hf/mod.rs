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
use crate::text::Text;
use config::{Config, ConfigError};
use ranklet::kernel::{MAX_DIM, MAX_OUTPUTS};
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::MAX_HEADS;
use ranklet::model::spec::{Position, Transformer};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// The model types that are converted here.
pub const SUPPORTED: [&str; 7] = ["bert", "t5", "llama", "mistral", "qwen2", "gpt2", encoder::MODEL_TYPE];

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
    /// Numbers beyond what is supported.
    #[error("{path}: {problem}")]
    Beyond {
        /// The checkpoint.
        path: PathBuf,
        /// What was found, and what is supported.
        problem: String,
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

/// Whether a layer has a bias. What the checkpoint lacks or has beyond that is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Yes.
    Needed,
    /// No.
    Never,
    /// Where the checkpoint has one.
    IfThere,
}

impl Bias {
    /// Yes or no.
    #[must_use]
    pub const fn of(needed: bool) -> Bias {
        if needed { Bias::Needed } else { Bias::Never }
    }

    fn name(self, checkpoint: &Checkpoint, name: String) -> Option<String> {
        let there = match self {
            Bias::Needed => true,
            Bias::Never => false,
            Bias::IfThere => checkpoint.contains(&name),
        };
        there.then_some(name)
    }
}

impl Source {
    /// A layer of (out, in), whose tensors are in the module of the same name.
    #[must_use]
    pub fn linear(checkpoint: &Checkpoint, prefix: &str, module_prefix: &str, name: &str, bias: Bias) -> Source {
        Source {
            module: format!("{module_prefix}{name}"),
            weight: format!("{prefix}{name}.weight"),
            bias: bias.name(checkpoint, format!("{prefix}{name}.bias")),
            transposed: false,
        }
    }

    /// A table of embeddings, in the module of the same name.
    #[must_use]
    pub fn table(prefix: &str, module_prefix: &str, name: &str) -> Source {
        let (module, weight) = (format!("{module_prefix}{name}"), format!("{prefix}{name}.weight"));
        Source { module, weight, bias: None, transposed: false }
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
    /// `<name>.weight` and `<name>.bias`; `gamma` and `beta`, as old checkpoints call them.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, name: String, bias: Bias) -> NormSource {
        let old = format!("{name}.gamma");
        if checkpoint.contains(&old) && bias != Bias::Never {
            return NormSource { weight: old, bias: Some(format!("{name}.beta")) };
        }
        NormSource { weight: format!("{name}.weight"), bias: bias.name(checkpoint, format!("{name}.bias")) }
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
    /// What ends a text, and what its tokens write: [`describe`] leaves it empty.
    pub text: Text,
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

impl Network {
    /// What no tensor's shape would tell.
    fn check_numbers(&self, checkpoint: &Checkpoint) -> Result<(), HfError> {
        let wrong = |problem: String| Err(HfError::Beyond { path: checkpoint.path().to_owned(), problem });
        let t = &self.transformer;
        if t.heads > MAX_HEADS || !t.heads.is_multiple_of(t.kv_heads) {
            let (heads, kv) = (t.heads, t.kv_heads);
            return wrong(format!(
                "{heads} heads on {kv} of keys and values; heads must be a multiple, up to {MAX_HEADS}"
            ));
        }
        if t.head_dim > MAX_DIM / MAX_HEADS || (t.position == Position::Rotary && !t.head_dim.is_multiple_of(2)) {
            let (d, most) = (t.head_dim, MAX_DIM / MAX_HEADS);
            return wrong(format!("heads of {d}; supported are up to {most}, and where they are rotated, even widths"));
        }
        if t.vocab > MAX_OUTPUTS {
            return wrong(format!("a vocabulary of {}; supported are up to {MAX_OUTPUTS}", t.vocab));
        }
        let mut seen = HashSet::new();
        for module in self.linears.iter().map(|l| l.module.as_str()) {
            // A line break would break the image's list of names.
            if module.is_empty() || module.contains(['\n', '\r']) || !seen.insert(module) {
                return wrong(format!(
                    "a layer called {}; names must be of one line, and differ",
                    name_list([module], 1)
                ));
            }
        }
        Ok(())
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
    let known = found.as_deref().is_some_and(|t| SUPPORTED.contains(&t));
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
    network.check_numbers(checkpoint)?;
    Ok(network)
}
