//! The gradients of A and B through every family, against PyTorch's: `models/cases/*/golden.safetensors` hold them for
//! `L = Σ output · cotangent`.

mod common;

use common::{FAMILIES, cases, checkpoint_of, figure};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::{self, ImageFile, adapter::Parts, sites, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::peft::keys::{Part, name};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::Batch;
use ranklet_cli::training::sequence_gradients;
use std::path::Path;

/// Of all of an adapter's gradients: cosine, at least, and relative L2 error, at most.
const LIMITS: [(WeightType, f64, f64); 2] = [(WeightType::I16, 0.999, 2e-2), (WeightType::I8, 0.99, 8e-2)];

/// PEFT applies the pair on the output of an attention that it wrapped (`nn.MultiheadAttention`) twice, but lets gradients
/// through once only; here it is applied with twice the scaling, and the gradient is that of what is computed.
const WRAPPED: f64 = 2.0;

#[test]
fn gradients_are_torchs() {
    let mut failures = vec![];
    for case in FAMILIES {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let (checkpoint, network) = checkpoint_of(case);
        for (to, least, most) in LIMITS {
            let converted = image::transformer::convert(&checkpoint, &network, to, false, || ()).unwrap();
            let file = ImageFile::of(Path::new(case), &converted.bytes);
            let model = file.model().unwrap();
            let t = model.spec().transformer().unwrap();
            let read = peft::read(&cases().join(case).join("adapter"), None, &Stored::of(&model)).unwrap();
            let batch = Batch::read(&golden, &model, t).unwrap();
            let cotangent = golden.f32s("cotangent").unwrap();
            let found = sequence_gradients(&model, t, &Parts::of(&read.pairs), &batch, &cotangent.data, || ()).unwrap();
            let sites = sites(&model);
            let (mut dot, mut ours, mut theirs, mut wrong) = (0.0, 0.0, 0.0, 0.0);
            let (mut worst, mut pairs) = ((0.0, String::new()), 0);
            for g in &found {
                for (part, values) in [(Part::A, &g.a), (Part::B, &g.b)] {
                    let key = name(&sites[usize::from(g.site)].module, part);
                    if !golden.contains(&key) {
                        // A layer that was trained whole is a pair here and is none there.
                        assert!(trained_whole(case, &key), "{key}");
                        continue;
                    }
                    let expected = golden.f32s(&key).unwrap().data;
                    pairs += 1;
                    assert_eq!(values.len(), expected.len(), "{key}");
                    let (mut e, mut all) = (0.0, 0.0);
                    let times = if key.contains("self_attn.base_layer.out_proj") { WRAPPED } else { 1.0 };
                    for (&v, &w) in values.iter().zip(&expected) {
                        let (v, w) = (f64::from(v), times * f64::from(w));
                        dot += v * w;
                        ours += v * v;
                        theirs += w * w;
                        e += (v - w) * (v - w);
                        all += w * w;
                    }
                    wrong += e;
                    if (e / all).sqrt() > worst.0 {
                        worst = ((e / all).sqrt(), key);
                    }
                }
            }
            let expected = golden.names().filter(|n| n.contains("lora_")).count();
            assert_eq!(pairs, expected, "{case}: every gradient of the file is compared");
            let (cosine, error) = (dot / (ours * theirs).sqrt(), (wrong / theirs).sqrt());
            let worst_text = format!("{:.1e} ({})", worst.0, worst.1.trim_start_matches("base_model.model."));
            figure("gradients", case, to.name(), "cosine", &format!("{cosine:.6}"), &format!("{least}"));
            figure("gradients", case, to.name(), "error", &format!("{error:.1e}"), &format!("{most:.0e}"));
            figure("gradients", case, to.name(), "worst tensor", &worst_text, "");
            if error.is_nan() || cosine < least || error > most {
                failures.push(format!("{case}, {}: cosine {cosine:.6}, error {error:.2e}", to.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whether PEFT's `modules_to_save` holds the module of a tensor's name.
fn trained_whole(case: &str, key: &str) -> bool {
    let path = cases().join(case).join("adapter/adapter_config.json");
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let whole = config["modules_to_save"].as_array().unwrap();
    whole.iter().any(|m| key.contains(&format!(".{}.", m.as_str().unwrap())))
}
