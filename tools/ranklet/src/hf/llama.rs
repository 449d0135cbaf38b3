//! Llama and its plain relatives: Mistral (a window of attention), Qwen2 (biases on q, k, v).

use super::config::{Config, one_over_root, real};
use super::{HfError, Network, NormSource, Source};
use crate::checkpoint::Checkpoint;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};
use std::f64::consts::TAU;

/// Describes a Llama, a Mistral or a Qwen2.
///
/// # Errors
/// See [`HfError`].
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    let family = config.text("model_type")?.unwrap_or_default();
    let name = match family.as_str() {
        "mistral" => "Mistral",
        "qwen2" => "Qwen2",
        _ => "Llama",
    };
    let (causal, sequence) = (format!("{name}ForCausalLM"), format!("{name}ForSequenceClassification"));
    let architecture = config.architecture(&[&causal, &sequence])?;
    config.refuse_common()?;
    let prefix = if checkpoint.contains("model.embed_tokens.weight") { "model." } else { "" };
    let (dim, heads, layers) =
        (config.count("hidden_size")?, config.count("num_attention_heads")?, config.count("num_hidden_layers")?);
    let head_dim = config.count_or("head_dim", Some((dim / heads).max(1)))?;
    let mut positions = config.count_or("max_position_embeddings", Some(2048))?;
    // A window as long as the text is no window: texts are kept that short.
    if family == "mistral" || config.flag("use_sliding_window", false)? {
        positions = positions.min(config.count_or("sliding_window", Some(positions))?);
    }
    let linear = |name: String| Source::linear(checkpoint, prefix, "model.", &name);
    let (mut linears, mut norms) = (vec![], vec![]);
    for i in 0..layers {
        for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
            linears.push(linear(format!("layers.{i}.{part}")));
        }
        for part in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
            linears.push(linear(format!("layers.{i}.{part}")));
        }
        norms.push(NormSource::of(checkpoint, format!("{prefix}layers.{i}.input_layernorm")));
        norms.push(NormSource::of(checkpoint, format!("{prefix}layers.{i}.post_attention_layernorm")));
    }
    norms.push(NormSource::of(checkpoint, format!("{prefix}norm")));
    let tokens = format!("{prefix}embed_tokens.weight");
    let vocab = config.count("vocab_size")?;
    let (head, outputs) = if architecture == causal {
        let tied = config.flag("tie_word_embeddings", false)?;
        let head = Source::linear(checkpoint, "", "", "lm_head");
        linears.push(if tied { Source { weight: tokens.clone(), ..head } } else { head });
        (HeadKind::Language, vocab)
    } else {
        linears.push(Source::linear(checkpoint, "", "", "score"));
        (config.problem()?, checkpoint.matrix("score.weight", "(labels, dim)")?.rows)
    };
    let transformer = Transformer {
        dim,
        hidden: config.count("intermediate_size")?,
        vocab,
        positions,
        types: 0,
        heads,
        kv_heads: config.count_or("num_key_value_heads", Some(heads))?,
        head_dim,
        encoder: 0,
        decoder: layers as u16,
        flags: Flags::PRE_NORM.or(Flags::RMS).or(Flags::GATED).or(Flags::FINAL_NORM),
        position: Position::Rotary,
        activation: config.activation("hidden_act", "silu")?,
        pool: if architecture == causal { Pool::None } else { Pool::Last },
        epsilon: real(config.number("rms_norm_eps", 1e-6)?),
        score: one_over_root(head_dim),
        start: config.token("bos_token_id"),
        end: config.token("eos_token_id"),
        pad: config.token("pad_token_id"),
        rope: NONE,
        bias: [NONE; 2],
        buckets: [NONE; 2],
    };
    Ok(Network {
        family,
        transformer,
        head,
        features: 0,
        outputs,
        linears,
        tables: vec![Source::table(tokens)],
        norms,
        rope: rope(config, head_dim)?,
        relative: [None, None],
        labels: if architecture == causal { [].into() } else { config.labels() },
        // Older checkpoints keep the frequencies; a tied head may be saved as well.
        ignored: vec!["rotary_emb.inv_freq".to_owned(), "lm_head.weight".to_owned()],
    })
}

/// The angle a position of each frequency, in 2^-32 turns: θ^(−2i/d) / 2π, and what a scaling makes of it.
fn rope(config: &Config, head_dim: usize) -> Result<Vec<u32>, HfError> {
    let parameters = config.object("rope_parameters").or_else(|| config.object("rope_scaling"));
    let theta = match &parameters {
        Some(p) => p.number("rope_theta", config.number("rope_theta", 10_000.0)?)?,
        None => config.number("rope_theta", 10_000.0)?,
    };
    config.refuse("partial_rotary_factor", &[1.into(), 1.0.into()])?;
    let kind = match &parameters {
        Some(p) => p.text("rope_type")?.or(p.text("type")?).unwrap_or_else(|| "default".to_owned()),
        None => "default".to_owned(),
    };
    let frequencies = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64));
    let scaled: Vec<f64> = match (kind.as_str(), &parameters) {
        ("default", _) => frequencies.collect(),
        ("linear", Some(p)) => {
            let factor = p.number("factor", 1.0)?;
            frequencies.map(|f| f / factor).collect()
        }
        ("llama3", Some(p)) => {
            let (factor, low, high) =
                (p.number("factor", 8.0)?, p.number("low_freq_factor", 1.0)?, p.number("high_freq_factor", 4.0)?);
            let context = p.number("original_max_position_embeddings", 8192.0)?;
            frequencies
                .map(|f| {
                    let wavelength = TAU / f;
                    let smooth = ((context / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - smooth) * f / factor + smooth * f
                })
                .collect()
        }
        _ => {
            let problem = format!("rope_type {kind:?} is not supported; supported are: `default`, `linear`, `llama3`");
            return Err(config.wrong("rope_parameters", problem).into());
        }
    };
    Ok(scaled.into_iter().map(|f| (f / TAU * 4_294_967_296.0).round() as u32).collect())
}
