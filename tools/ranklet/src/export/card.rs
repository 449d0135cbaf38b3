//! The model card: filled in, where PEFT's own is mostly "[More Information Needed]".

use crate::adapter::{Adapter, Site, trainable_line};
use crate::report::{decimal, table};
use serde_json::{Map, Value};

/// What is known about an adapter beside its tensors.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Fingerprint of the base's checkpoint.
    pub source: String,
    /// Fingerprint of the base's image.
    pub image: String,
    /// How the base's weights are stored.
    pub weights: String,
    /// Frozen parameters of the base.
    pub base_parameters: u64,
    /// Signal to noise of the base's stored weights, by module, in decibels.
    pub snr_db: Map<String, Value>,
    /// How it was trained, as the image's metadata have it; empty where nothing is known.
    pub training: Map<String, Value>,
    /// Where it was trained, as the user says.
    pub device: Option<String>,
    /// Optimizer steps, as the user says.
    pub steps: Option<u64>,
}

/// The card's text.
#[must_use]
pub fn text(adapter: &Adapter, sites: &[Site], facts: &Facts) -> String {
    let trainable = adapter.pairs.iter().map(crate::adapter::Pair::parameters).sum();
    let base_model = adapter.config.get("base_model_name_or_path").and_then(Value::as_str).filter(|s| !s.is_empty());
    let front = base_model.map_or(String::new(), |name| format!("base_model: {}\n", Value::from(name)));
    let mut rows = vec![["module", "in", "out", "rank", "scaling", "base SNR", "more"].map(str::to_owned).to_vec()];
    for p in &adapter.pairs {
        let site = &sites[p.site];
        let snr = match facts.snr_db.get(&site.module) {
            Some(Value::Number(db)) => format!("{db} dB"),
            Some(Value::Null) => "exact".to_owned(),
            _ => "unknown".to_owned(),
        };
        rows.push(vec![
            site.module.clone(),
            site.inputs.to_string(),
            site.outputs.to_string(),
            p.rank().to_string(),
            decimal(p.scaling, 6),
            snr,
            p.more(),
        ]);
    }
    let line = trainable_line(trainable, facts.base_parameters);
    format!(
        "---\nlibrary_name: peft\n{front}tags:\n- lora\n- ranklet\n---\n\n\
         # LoRA adapter, trained in fixed point\n\n\
         A low-rank adapter (LoRA) for a base model that lies quantized and frozen in a microcontroller's flash, \
         written by `ranklet export`.\n\n\
         | | |\n|---|---|\n\
         | base, fingerprint of the checkpoint | `{source}` |\n\
         | base, fingerprint of the image | `{image}` |\n\
         | base weights during training | {weights}, frozen |\n{training}\n\
         ```text\n{line}\n```\n\n\
         ## Layers\n\n```text\n{layers}\n```\n\n\
         `base SNR`: signal to noise of the quantized base weights that the adapter was used with, against the \
         checkpoint. The adapter has learned on the quantized base; on the original weights its outputs differ by about \
         that much.\n\n\
         ## How to load it\n\n\
         ```python\nfrom peft import PeftModel\n\nmodel = ...  # the base, with the checkpoint's weights\n\
         model = PeftModel.from_pretrained(model, \"path/to/this/directory\")\n```\n\n\
         Tensors are F32: what the device has learned in 32-bit masters, rounded once to 24 bits.\n",
        source = facts.source,
        image = facts.image,
        weights = facts.weights,
        training = training(facts),
        layers = table(&rows),
    )
}

fn training(facts: &Facts) -> String {
    let mut out = String::new();
    let mut row = |k: &str, v: String| out += &format!("| {k} | {v} |\n");
    if let Some(device) = &facts.device {
        row("trained on", device.replace(['|', '\n'], " "));
    }
    if let Some(steps) = facts.steps {
        row("optimizer steps", steps.to_string());
    }
    for (k, v) in &facts.training {
        if k == "steps" && facts.steps.is_some() {
            continue;
        }
        row(&k.replace('_', " "), v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Pair;
    use crate::tensor::Matrix;

    #[test]
    fn nothing_is_left_to_fill_in() {
        let sites = [Site { module: "0".to_owned(), inputs: 512, outputs: 512 }];
        let zeros = |r, c| Matrix::new(r, c, vec![0.0; r * c]);
        let pairs = vec![Pair::new(0, zeros(8, 512), zeros(512, 8), 2.0)];
        let adapter = Adapter { pairs, config: Map::new(), warnings: Vec::new() };
        let facts = Facts { source: "ab".to_owned(), base_parameters: 512 * 512, steps: Some(7), ..Facts::default() };
        let card = text(&adapter, &sites, &facts);
        assert!(card.contains("trainable params: 8,192 || all params: 270,336"), "{card}");
        assert!(card.contains("| optimizer steps | 7 |"), "{card}");
        assert!(!card.contains("More Information Needed"));
    }
}
