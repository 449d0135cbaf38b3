//! T5: encoder and decoder with norms in front, relative positions in buckets, unscaled scores, no biases.

use super::config::{Config, real};
use super::{Bias, HfError, Network, NormSource, RelativeSource, Source};
use crate::checkpoint::Checkpoint;
use crate::text::Text;
use ranklet::fixed::Real;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};

const ENCODER: &str = "T5EncoderModel";
const SEQUENCE: &str = "T5ForSequenceClassification";

/// Describes a T5.
///
/// # Errors
/// See [`HfError`].
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    let architecture = config.architecture(&[ENCODER, SEQUENCE])?;
    config.refuse("quantization_config", &[])?;
    let whole = architecture == SEQUENCE;
    let module = if whole { "transformer." } else { "" };
    let prefix = if checkpoint.names().any(|n| n.starts_with("transformer.")) { "transformer." } else { "" };
    let dim = config.count("d_model")?;
    let encoder = config.count("num_layers")?;
    let decoder = if whole { config.count_or("num_decoder_layers", Some(encoder))? } else { 0 };
    let (gated, name) = match config.text("feed_forward_proj")?.as_deref() {
        None => (false, "relu".to_owned()),
        // Transformers takes the tanh form for this name.
        Some("gated-gelu") => (true, "gelu_new".to_owned()),
        Some(other) => match other.strip_prefix("gated-") {
            Some(act) => (true, act.to_owned()),
            None => (false, other.to_owned()),
        },
    };
    let Some(activation) = super::config::activation(&name) else {
        let problem =
            format!("{name:?} is not supported; supported are: `relu`, `gated-gelu`, `gelu`, `silu`, `gated-silu`");
        return Err(config.wrong("feed_forward_proj", problem).into());
    };
    // Both follow from `feed_forward_proj`, and are saved beside it.
    config.refuse("is_gated_act", &[gated.into()])?;
    if let Some(saved) = config.text("dense_act_fn")?
        && super::config::activation(&saved) != Some(activation)
    {
        let problem = format!("{saved:?}, but `feed_forward_proj` says {name:?}");
        return Err(config.wrong("dense_act_fn", problem).into());
    }
    let linear = |name: String| Source::linear(checkpoint, prefix, module, &name, Bias::Never);
    let norm = |name: String| NormSource::of(checkpoint, format!("{prefix}{name}"), Bias::Never);
    let (mut linears, mut norms) = (vec![], vec![]);
    for (stack, blocks) in [("encoder", encoder), ("decoder", decoder)] {
        for i in 0..blocks {
            let block = format!("{stack}.block.{i}.layer");
            let mut attention = |at: usize, name: &str| {
                for part in ["q", "k", "v", "o"] {
                    linears.push(linear(format!("{block}.{at}.{name}.{part}")));
                }
            };
            attention(0, "SelfAttention");
            let feed = if stack == "decoder" { 2 } else { 1 };
            if stack == "decoder" {
                attention(1, "EncDecAttention");
            }
            for part in if gated { &["wi_0", "wi_1", "wo"][..] } else { &["wi", "wo"] } {
                linears.push(linear(format!("{block}.{feed}.DenseReluDense.{part}")));
            }
            norms.extend((0..=feed).map(|at| norm(format!("{block}.{at}.layer_norm"))));
        }
        if blocks > 0 {
            norms.push(norm(format!("{stack}.final_layer_norm")));
        }
    }
    let mut flags = Flags::PRE_NORM.or(Flags::RMS).or(Flags::FINAL_NORM);
    if gated {
        flags = flags.or(Flags::GATED);
    }
    let (mut head, mut outputs) = (HeadKind::None, dim);
    if whole {
        flags = flags.or(Flags::POOLER);
        for name in ["classification_head.dense", "classification_head.out_proj"] {
            linears.push(Source::linear(checkpoint, "", "", name, Bias::Needed));
        }
        outputs = checkpoint.matrix("classification_head.out_proj.weight", "(labels, dim)")?.rows;
        head = config.problem(outputs)?;
    }
    // One of the copies may be all that was saved.
    let copies = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"].map(|n| format!("{prefix}{n}.weight"));
    let tokens = copies.iter().find(|n| checkpoint.contains(n)).unwrap_or(&copies[0]).clone();
    let buckets = config.count_or("relative_attention_num_buckets", Some(32))?;
    let distance = config.count_or("relative_attention_max_distance", Some(128))?;
    if !(4..=256).contains(&buckets) || distance <= buckets / 2 {
        let problem =
            format!("{buckets} buckets for distances up to {distance}; supported are 4 to 256, fewer than twice that");
        return Err(config.wrong("relative_attention_num_buckets", problem).into());
    }
    let relative = |stack: &str, two: bool| {
        let table = format!("{prefix}{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        RelativeSource { table, buckets: bucket_table(buckets, distance, two) }
    };
    let start = config.token("decoder_start_token_id", NO_TOKEN);
    if whole && start == NO_TOKEN {
        return Err(config.wrong("decoder_start_token_id", "found none; the decoder's input starts with it").into());
    }
    let heads = config.count("num_heads")?;
    let transformer = Transformer {
        dim,
        hidden: config.count("d_ff")?,
        vocab: config.vocabulary()?,
        positions: config.count_or("n_positions", Some(512))?,
        types: 0,
        heads,
        kv_heads: heads,
        head_dim: config.count("d_kv")?,
        encoder: encoder as u16,
        decoder: decoder as u16,
        flags,
        position: Position::Relative,
        activation,
        pool: if whole { Pool::End } else { Pool::None },
        epsilon: real(config.number("layer_norm_epsilon", 1e-6)?),
        score: Real::ONE,
        start,
        end: config.token("eos_token_id", 1),
        pad: config.token("pad_token_id", 0),
        rope: NONE,
        bias: [NONE; 2],
        buckets: [NONE; 2],
    };
    Ok(Network {
        family: "t5".to_owned(),
        transformer,
        head,
        features: 0,
        outputs,
        linears,
        tables: vec![Source { weight: tokens, ..Source::table(prefix, module, "shared") }],
        norms,
        rope: vec![],
        relative: [Some(relative("encoder", true)), whole.then(|| relative("decoder", false))],
        labels: config.labels(),
        text: Text::default(),
        // Copies of the shared table.
        ignored: vec!["embed_tokens.weight".to_owned()],
    })
}

/// The bucket of every distance up to where the last one begins, in transformers' own `f32` arithmetic: keys up to the
/// query, and, where both directions are told apart, keys behind it.
fn bucket_table(buckets: usize, max_distance: usize, two: bool) -> Vec<Vec<u8>> {
    let each = if two { buckets / 2 } else { buckets };
    let exact = each / 2;
    let of = |distance: usize| {
        if distance < exact {
            return distance;
        }
        let (n, exact_f) = (distance as f32, exact as f32);
        let ratio = (n / exact_f).ln() / (max_distance as f64 / exact as f64).ln() as f32;
        (exact + (ratio * (each - exact) as f32) as usize).min(each - 1)
    };
    let row = |offset: usize| (0..=max_distance).map(|d| (of(d) + offset) as u8).collect();
    if two { vec![row(0), row(each)] } else { vec![row(0)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each bucket begins, as `T5Attention._relative_position_bucket` of transformers has it.
    #[test]
    fn buckets_are_transformers() {
        let starts = |row: &[u8]| -> Vec<usize> {
            let changes = (1..row.len()).filter(|&d| row[d] != row[d - 1]);
            [0].into_iter().chain(changes).collect()
        };
        let two = bucket_table(32, 128, true);
        assert_eq!(starts(&two[0]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]);
        assert!(two[0].iter().zip(&two[1]).all(|(a, b)| a + 16 == *b));
        let [one] = &bucket_table(32, 128, false)[..] else { panic!() };
        let log = [19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113];
        assert_eq!(starts(one), (0..=16).chain(log).collect::<Vec<usize>>());
        assert_eq!(starts(&bucket_table(8, 16, true)[0]), [0, 1, 2, 6]);
        assert_eq!(starts(&bucket_table(8, 16, false)[0]), [0, 1, 2, 3, 4, 6, 8, 12]);
        assert_eq!(starts(&bucket_table(16, 64, true)[0]), [0, 1, 2, 3, 4, 8, 16, 32]);
        let wide = starts(&bucket_table(64, 256, true)[0]);
        assert_eq!(wide[16..], [16, 20, 23, 27, 32, 39, 46, 54, 64, 77, 91, 108, 128, 153, 182, 216]);
    }
}
