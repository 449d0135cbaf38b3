//! BERT: an encoder with norms behind, learned positions, token types.

use super::config::{Config, one_over_root, real};
use super::{Bias, HfError, Network, NormSource, Source};
use crate::checkpoint::Checkpoint;
use crate::text::Text;
use ranklet::image::layout::NONE;
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};

const MODEL: &str = "BertModel";
const SEQUENCE: &str = "BertForSequenceClassification";
const TOKENS: &str = "BertForTokenClassification";

/// Describes a BERT.
///
/// # Errors
/// See [`HfError`].
pub fn describe(config: &Config, checkpoint: &Checkpoint) -> Result<Network, HfError> {
    let architecture = config.architecture(&[MODEL, SEQUENCE, TOKENS])?;
    config.refuse_common()?;
    config.refuse("position_embedding_type", &["absolute".into()])?;
    let module = if architecture == MODEL { "" } else { "bert." };
    let prefix = if checkpoint.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
    let (dim, heads, layers) =
        (config.count("hidden_size")?, config.count("num_attention_heads")?, config.count("num_hidden_layers")?);
    if !dim.is_multiple_of(heads) {
        return Err(config.wrong("num_attention_heads", format!("{heads} does not divide hidden_size, {dim}")).into());
    }
    let linear = |name: &str| Source::linear(checkpoint, prefix, module, name, Bias::Needed);
    let norm = |name: &str| NormSource::of(checkpoint, format!("{prefix}{name}"), Bias::Needed);
    let (mut linears, mut norms) = (vec![], vec![norm("embeddings.LayerNorm")]);
    for i in 0..layers {
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            linears.push(linear(&format!("encoder.layer.{i}.{part}")));
        }
        linears.push(linear(&format!("encoder.layer.{i}.intermediate.dense")));
        linears.push(linear(&format!("encoder.layer.{i}.output.dense")));
        norms.push(norm(&format!("encoder.layer.{i}.attention.output.LayerNorm")));
        norms.push(norm(&format!("encoder.layer.{i}.output.LayerNorm")));
    }
    let mut flags = Flags::EMBEDDING_NORM;
    let mut ignored = vec!["position_ids".to_owned()];
    if architecture == SEQUENCE {
        flags = flags.or(Flags::POOLER);
        linears.push(linear("pooler.dense"));
    } else {
        ignored.extend(["pooler.dense.weight".to_owned(), "pooler.dense.bias".to_owned()]);
    }
    let (mut head, mut outputs) = (HeadKind::None, dim);
    if architecture != MODEL {
        linears.push(Source::linear(checkpoint, "", "", "classifier", Bias::Needed));
        outputs = checkpoint.matrix("classifier.weight", "(labels, dim)")?.rows;
        head = if architecture == SEQUENCE { config.problem(outputs)? } else { HeadKind::Classification };
    }
    let embedding = |name: &str| Source::table(prefix, module, &format!("embeddings.{name}_embeddings"));
    let transformer = Transformer {
        dim,
        hidden: config.count("intermediate_size")?,
        vocab: config.vocabulary()?,
        positions: config.count("max_position_embeddings")?,
        types: config.count("type_vocab_size")?,
        heads,
        kv_heads: heads,
        head_dim: dim / heads,
        encoder: layers as u16,
        decoder: 0,
        flags,
        position: Position::Learned,
        activation: config.activation("hidden_act", "gelu")?,
        pool: if architecture == SEQUENCE { Pool::First } else { Pool::None },
        epsilon: real(config.number("layer_norm_eps", 1e-12)?),
        score: one_over_root(dim / heads),
        start: NO_TOKEN,
        end: NO_TOKEN,
        pad: config.token("pad_token_id", 0),
        rope: NONE,
        bias: [NONE; 2],
        buckets: [NONE; 2],
    };
    Ok(Network {
        family: "bert".to_owned(),
        transformer,
        head,
        features: 0,
        outputs,
        linears,
        tables: vec![embedding("word"), embedding("position"), embedding("token_type")],
        norms,
        rope: vec![],
        relative: [None, None],
        labels: config.labels(),
        text: Text::default(),
        ignored,
    })
}
