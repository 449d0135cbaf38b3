//! The JSON object that travels with an image: what the device has no use for, and the way back needs.
//!
//! | in | key | value |
//! |---|---|---|
//! | base | `id2label` | names of the outputs |
//! | base | `model_type` | of a transformer |
//! | base | `eos_token_id` | of a language model: the tokens that end a text |
//! | base | `snr_db` | by module: signal to noise of the stored weights; null where nothing was lost |
//! | adapter | `peft_config` | the fields of the `adapter_config.json` it came from, in their order |
//! | adapter | `base_parameters` | frozen parameters of its base, for PEFT's line |
//! | adapter | `training` | how it was trained: optimizer, steps, samples, final loss; of a sum, `merged`: of what |

use super::base::LayerReport;
use crate::base::Base;
use serde_json::{Map, Value, json};

/// Of a base.
#[must_use]
pub fn of_base(base: &Base, layers: &[LayerReport]) -> String {
    let mut metadata = Map::new();
    if !base.spec.labels.is_empty() {
        let labels = base.spec.labels.iter().map(|(i, name)| (i.to_string(), json!(name)));
        metadata.insert("id2label".to_owned(), Value::Object(labels.collect()));
    }
    let snr = layers.iter().map(|l| (l.module.clone(), json!((l.snr_db * 10.0).round() / 10.0)));
    metadata.insert("snr_db".to_owned(), Value::Object(snr.collect()));
    Value::Object(metadata).to_string()
}

/// Parses what an image holds; an empty object where there is none, or where it is no JSON object (it is information
/// only, and no reason to refuse an image).
#[must_use]
pub fn parse(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The label of an output, if the metadata name it.
#[must_use]
pub fn label(metadata: &Map<String, Value>, index: usize) -> Option<&str> {
    metadata.get("id2label")?.get(index.to_string())?.as_str()
}
