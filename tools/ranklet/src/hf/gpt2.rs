//! GPT-2: a decoder with norms in front, learned positions, one layer for q, k and v, and weights of (in, out).

use super::config::{Config, one_over_root, real};
use super::{Bias, HfError, Network, NormSource, Source};
use crate::checkpoint::Checkpoint;
use crate::text::Text;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};

/// Describes a GPT-2.
///
/// # Errors
/// See [`HfError`].
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    config.architecture(&["GPT2LMHeadModel"])?;
    config.refuse_common()?;
    config.refuse("scale_attn_weights", &[true.into()])?;
    config.refuse("scale_attn_by_inverse_layer_idx", &[false.into()])?;
    let prefix = if checkpoint.contains("transformer.wte.weight") { "transformer." } else { "" };
    let (dim, heads, layers) = (config.count("n_embd")?, config.count("n_head")?, config.count("n_layer")?);
    if !dim.is_multiple_of(heads) {
        return Err(config.wrong("n_head", format!("{heads} does not divide n_embd, {dim}")).into());
    }
    let norm = |name: String| NormSource::of(checkpoint, name, Bias::Needed);
    let (mut linears, mut norms) = (vec![], vec![]);
    for i in 0..layers {
        for part in ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"] {
            let source = Source::linear(checkpoint, prefix, "transformer.", &format!("h.{i}.{part}"), Bias::Needed);
            linears.push(Source { transposed: true, ..source });
        }
        norms.push(norm(format!("{prefix}h.{i}.ln_1")));
        norms.push(norm(format!("{prefix}h.{i}.ln_2")));
    }
    norms.push(norm(format!("{prefix}ln_f")));
    let tokens = format!("{prefix}wte.weight");
    let head = Source::linear(checkpoint, "", "", "lm_head", Bias::Never);
    let tied = config.flag("tie_word_embeddings", true)?;
    linears.push(if tied { Source { weight: tokens.clone(), ..head } } else { head });
    let vocab = config.vocabulary()?;
    let transformer = Transformer {
        dim,
        hidden: config.count_or("n_inner", Some(4 * dim))?,
        vocab,
        positions: config.count("n_positions")?,
        types: 0,
        heads,
        kv_heads: heads,
        head_dim: dim / heads,
        encoder: 0,
        decoder: layers as u16,
        flags: Flags::PRE_NORM.or(Flags::FUSED).or(Flags::FINAL_NORM),
        position: Position::Learned,
        activation: config.activation("activation_function", "gelu_new")?,
        pool: Pool::None,
        epsilon: real(config.number("layer_norm_epsilon", 1e-5)?),
        score: one_over_root(dim / heads),
        start: config.token("bos_token_id", 50_256),
        end: config.token("eos_token_id", 50_256),
        pad: config.token("pad_token_id", NO_TOKEN),
        rope: NONE,
        bias: [NONE; 2],
        buckets: [NONE; 2],
    };
    Ok(Network {
        family: "gpt2".to_owned(),
        transformer,
        head: HeadKind::Language,
        features: 0,
        outputs: vocab,
        linears,
        tables: ["wte", "wpe"].map(|name| Source::table(prefix, "transformer.", name)).to_vec(),
        norms,
        rope: vec![],
        relative: [None, None],
        labels: [].into(),
        text: Text::default(),
        // Masks that old checkpoints keep; a tied head may be saved as well.
        ignored: vec![".attn.bias".to_owned(), ".attn.masked_bias".to_owned(), "lm_head.weight".to_owned()],
    })
}
