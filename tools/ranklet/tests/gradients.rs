//! The gradients of A and B through every family, against PyTorch's: `models/cases/*/golden.safetensors` hold them for
//! `L = Σ output · cotangent`.

use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile, adapter::Parts, sites, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::peft::keys::{Part, name};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::Batch;
use ranklet_cli::training::sequence_gradients;
use std::path::{Path, PathBuf};

/// Of all of an adapter's gradients: cosine, at least, and relative L2 error, at most.
const LIMITS: [(WeightType, f64, f64); 2] = [(WeightType::I16, 0.999, 2e-2), (WeightType::I8, 0.99, 8e-2)];

const CASES: [&str; 15] = [
    "bert",
    "bert-classifier",
    "bert-tokens",
    "t5-encoder",
    "t5-classifier",
    "llama",
    "llama-tied",
    "llama-classifier",
    "llama-bf16",
    "mistral",
    "qwen2",
    "gpt2",
    "gpt2-f16",
    "encoder",
    "encoder-pre",
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases")
}

#[test]
fn gradients_are_torchs() {
    let mut failures = vec![];
    for case in CASES {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let base = cases().join(case).join("base");
        let checkpoint = Checkpoint::open(&base).unwrap();
        let network = hf::describe(&Config::read(&base.join("config.json")).unwrap(), &checkpoint).unwrap();
        for (to, least, most) in LIMITS {
            let converted = image::transformer::convert(&checkpoint, &network, to, false, || ()).unwrap();
            let file = ImageFile::of(Path::new(case), &converted.bytes);
            let model = file.model().unwrap();
            let t = model.spec().transformer().unwrap();
            let read = peft::read(&cases().join(case).join("adapter"), None, &Stored::of(&model)).unwrap();
            let batch = Batch::read(&golden, &model, t).unwrap();
            let cotangent = golden.f32s("cotangent").unwrap();
            let found = match sequence_gradients(&model, t, &Parts::of(&read.pairs), &batch, &cotangent.data, || ()) {
                Ok(found) => found,
                Err(e) => {
                    println!("{case}: {e:#}");
                    continue;
                }
            };
            let sites = sites(&model);
            let (mut dot, mut ours, mut theirs, mut wrong) = (0.0, 0.0, 0.0, 0.0);
            let mut worst = (0.0, String::new());
            for g in &found {
                for (part, values) in [(Part::A, &g.a), (Part::B, &g.b)] {
                    let key = name(&sites[usize::from(g.site)].module, part);
                    let expected = golden.f32s(&key).unwrap().data;
                    assert_eq!(values.len(), expected.len(), "{key}");
                    let (mut e, mut all) = (0.0, 0.0);
                    for (&v, &w) in values.iter().zip(&expected) {
                        let (v, w) = (f64::from(v), f64::from(w));
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
            let (cosine, error) = (dot / (ours * theirs).sqrt(), (wrong / theirs).sqrt());
            println!(
                "{case:17} {:3} cosine {cosine:.6} error {error:.2e}; worst {:.2e} {}",
                to.name(),
                worst.0,
                worst.1
            );
            if error.is_nan() || cosine < least || error > most {
                failures.push(format!("{case}, {}: cosine {cosine:.6}, error {error:.2e}", to.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
