//! Llama and its plain relatives: Mistral (a window of attention), Qwen2 (biases on q, k, v).

use super::config::{Config, one_over_root, real};
use super::{Bias, HfError, Network, NormSource, Source};
use crate::checkpoint::Checkpoint;
use crate::text::Text;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
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
    let slides = match family.as_str() {
        "llama" => false,
        "mistral" => true,
        _ => config.flag("use_sliding_window", false)?,
    };
    if slides || config.lists("layer_types", "sliding_attention") {
        let none = if config.has("sliding_window") { positions } else { 4096 };
        positions = positions.min(config.count_or("sliding_window", Some(none))?);
    }
    let linear = |name: String, bias| Source::linear(checkpoint, prefix, "model.", &name, Bias::of(bias));
    let norm = |name: String| NormSource::of(checkpoint, name, Bias::Never);
    let (qkv_bias, o_bias, mlp_bias) = match family.as_str() {
        "llama" => {
            let attention = config.flag("attention_bias", false)?;
            (attention, attention, config.flag("mlp_bias", false)?)
        }
        family => (family == "qwen2", false, false),
    };
    let (mut linears, mut norms) = (vec![], vec![]);
    for i in 0..layers {
        for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
            let bias = if part.ends_with("o_proj") { o_bias } else { qkv_bias };
            linears.push(linear(format!("layers.{i}.{part}"), bias));
        }
        for part in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
            linears.push(linear(format!("layers.{i}.{part}"), mlp_bias));
        }
        norms.push(norm(format!("{prefix}layers.{i}.input_layernorm")));
        norms.push(norm(format!("{prefix}layers.{i}.post_attention_layernorm")));
    }
    norms.push(norm(format!("{prefix}norm")));
    let tokens = format!("{prefix}embed_tokens.weight");
    let vocab = config.vocabulary()?;
    let (head, outputs) = if architecture == causal {
        let tied = config.flag("tie_word_embeddings", false)?;
        let head = Source::linear(checkpoint, "", "", "lm_head", Bias::Never);
        linears.push(if tied { Source { weight: tokens.clone(), ..head } } else { head });
        (HeadKind::Language, vocab)
    } else {
        linears.push(Source::linear(checkpoint, "", "", "score", Bias::Never));
        let outputs = checkpoint.matrix("score.weight", "(labels, dim)")?.rows;
        (config.problem(outputs)?, outputs)
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
        start: config.token("bos_token_id", if family == "qwen2" { NO_TOKEN } else { 1 }),
        end: config.token("eos_token_id", if family == "qwen2" { NO_TOKEN } else { 2 }),
        pad: config.token("pad_token_id", NO_TOKEN),
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
        tables: vec![Source::table(prefix, "model.", "embed_tokens")],
        norms,
        rope: rope(config, head_dim)?,
        relative: [None, None],
        labels: if architecture == causal { [].into() } else { config.labels() },
        text: Text::default(),
        // Older checkpoints keep the frequencies; a tied head may be saved as well.
        ignored: vec!["rotary_emb.inv_freq".to_owned(), "lm_head.weight".to_owned()],
    })
}

fn above_zero(config: &Config, field: &str) -> Result<f64, HfError> {
    match config.number(field, 0.0)? {
        n if n > 0.0 => Ok(n),
        n => Err(config.wrong(field, format!("found {n} or nothing; expected a number above 0")).into()),
    }
}

/// The angle a position of each frequency, in 2^-32 turns: θ^(−2i/d) / 2π, and what a scaling makes of it.
fn rope(config: &Config, head_dim: usize) -> Result<Vec<u32>, HfError> {
    let parameters = config.object("rope_parameters").or_else(|| config.object("rope_scaling"));
    let theta = match &parameters {
        Some(p) => p.number("rope_theta", config.number("rope_theta", 10_000.0)?)?,
        None => config.number("rope_theta", 10_000.0)?,
    };
    for c in parameters.iter().chain([config]) {
        c.refuse("partial_rotary_factor", &[1.into(), 1.0.into()])?;
    }
    if theta < 1.0 {
        return Err(config.wrong("rope_theta", format!("{theta}; supported are 1 and above")).into());
    }
    let kind = match &parameters {
        Some(p) => p.text("rope_type")?.or(p.text("type")?).unwrap_or_else(|| "default".to_owned()),
        None => "default".to_owned(),
    };
    let frequencies = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64));
    let scaled: Vec<f64> = match (kind.as_str(), &parameters) {
        ("default", _) => frequencies.collect(),
        ("linear", Some(p)) => {
            let factor = above_zero(p, "factor")?;
            frequencies.map(|f| f / factor).collect()
        }
        ("llama3", Some(p)) => {
            let (factor, low, high) =
                (above_zero(p, "factor")?, above_zero(p, "low_freq_factor")?, above_zero(p, "high_freq_factor")?);
            let context = above_zero(p, "original_max_position_embeddings")?;
            if high <= low {
                return Err(p.wrong("high_freq_factor", format!("{high} must be above low_freq_factor, {low}")).into());
            }
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
