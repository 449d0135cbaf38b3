//! PyTorch's `nn.TransformerEncoder` over continuous features, with a small spec: see `models/README.md`.

use super::config::{Config, one_over_root, real};
use super::{Bias, HfError, Network, NormSource, Source};
use crate::checkpoint::Checkpoint;
use crate::tensor::name_list;
use crate::text::Text;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};

/// `model_type`.
pub const MODEL_TYPE: &str = "transformer_encoder";

/// `config.json` has these.
const FIELDS: [&str; 16] = [
    "model_type",
    "d_model",
    "nhead",
    "num_layers",
    "dim_feedforward",
    "activation",
    "norm_first",
    "layer_norm_eps",
    "prefix",
    "input",
    "positions",
    "final_norm",
    "pool",
    "classifier",
    "head",
    "id2label",
];

/// The longest sequence of a model without positions.
const POSITIONS: usize = 4096;

/// Describes an encoder.
///
/// # Errors
/// See [`HfError`].
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    let known = |name: &&str| FIELDS.contains(name) || name.starts_with('_');
    if let Some(unknown) = config.names().find(|name| !known(name)) {
        let known = name_list(FIELDS, FIELDS.len());
        return Err(config
            .wrong(unknown, format!("unknown; known are {known} (start notes of your own with `_`)"))
            .into());
    }
    let (dim, heads, layers) = (config.count("d_model")?, config.count("nhead")?, config.count("num_layers")?);
    if !dim.is_multiple_of(heads) {
        return Err(config.wrong("nhead", format!("{heads} does not divide d_model, {dim}")).into());
    }
    let prefix = config.text("prefix")?.unwrap_or_default();
    let norm = |name: String| NormSource::of(checkpoint, name, Bias::IfThere);
    let linear = |name: &str| Source::linear(checkpoint, "", "", name, Bias::IfThere);
    let (mut linears, mut norms, mut flags) = (vec![], vec![], Flags::FUSED);
    let mut features = dim;
    if let Some(input) = config.text("input")? {
        flags = flags.or(Flags::INPUT);
        features = checkpoint.matrix(&format!("{input}.weight"), "(d_model, features)")?.cols;
        linears.push(linear(&input));
    }
    for i in 0..layers {
        let layer = format!("{prefix}layers.{i}");
        let bias = format!("{layer}.self_attn.in_proj_bias");
        linears.push(Source {
            // PEFT wraps the attention as a whole.
            module: format!("{layer}.self_attn"),
            weight: format!("{layer}.self_attn.in_proj_weight"),
            bias: checkpoint.contains(&bias).then_some(bias),
            transposed: false,
        });
        let out = linear(&format!("{layer}.self_attn.out_proj"));
        linears.push(Source { module: format!("{layer}.self_attn.base_layer.out_proj"), ..out });
        linears.push(linear(&format!("{layer}.linear1")));
        linears.push(linear(&format!("{layer}.linear2")));
        norms.push(norm(format!("{layer}.norm1")));
        norms.push(norm(format!("{layer}.norm2")));
    }
    if let Some(name) = config.text("final_norm")? {
        flags = flags.or(Flags::FINAL_NORM);
        norms.push(norm(name));
    }
    if config.flag("norm_first", false)? {
        flags = flags.or(Flags::PRE_NORM);
    }
    let (mut head, mut outputs) = (HeadKind::None, dim);
    if let Some(classifier) = config.text("classifier")? {
        outputs = checkpoint.matrix(&format!("{classifier}.weight"), "(outputs, d_model)")?.rows;
        linears.push(linear(&classifier));
        head = match config.text("head")?.as_deref() {
            Some("classification") => HeadKind::Classification,
            Some("binary") => HeadKind::Binary,
            Some("regression") => HeadKind::Regression,
            other => {
                let problem = format!("found {other:?}; behind a classifier: `classification`, `binary`, `regression`");
                return Err(config.wrong("head", problem).into());
            }
        };
    } else if !matches!(config.text("head")?.as_deref(), None | Some("none")) {
        return Err(config.wrong("head", "there is no `classifier`; expected `none`").into());
    }
    let pool = match config.text("pool")?.as_deref() {
        None | Some("none") => Pool::None,
        Some("mean") => Pool::Mean,
        Some("first") => Pool::First,
        Some("last") => Pool::Last,
        Some(other) => {
            let problem = format!("found {other:?}; expected `none`, `mean`, `first` or `last`");
            return Err(config.wrong("pool", problem).into());
        }
    };
    let positions = config.text("positions")?;
    let rows = match &positions {
        Some(name) => checkpoint.matrix(name, "(positions, d_model)")?.rows,
        None => POSITIONS,
    };
    let transformer = Transformer {
        dim,
        hidden: config.count("dim_feedforward")?,
        vocab: 0,
        positions: rows,
        types: 0,
        heads,
        kv_heads: heads,
        head_dim: dim / heads,
        encoder: layers as u16,
        decoder: 0,
        flags,
        position: if positions.is_some() { Position::Learned } else { Position::None },
        activation: config.activation("activation", "relu")?,
        pool,
        epsilon: real(config.number("layer_norm_eps", 1e-5)?),
        score: one_over_root(dim / heads),
        start: NO_TOKEN,
        end: NO_TOKEN,
        pad: NO_TOKEN,
        rope: NONE,
        bias: [NONE; 2],
        buckets: [NONE; 2],
    };
    Ok(Network {
        family: MODEL_TYPE.to_owned(),
        transformer,
        head,
        features,
        outputs,
        linears,
        tables: positions
            .into_iter()
            .map(|name| Source { weight: name.clone(), ..Source::table("", "", &name) })
            .collect(),
        norms,
        rope: vec![],
        relative: [None, None],
        labels: config.labels(),
        text: Text::default(),
        ignored: vec![],
    })
}
