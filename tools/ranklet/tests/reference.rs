//! The float reference against PyTorch, for every family and every kind of adapter: what `verify` measures by.

use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::quantize::WeightType;
use ranklet_cli::reference::{Reference, layers::adapt};
use ranklet_cli::sequences::Batch;
use std::path::{Path, PathBuf};

/// Relative L2: the goldens are rounded to `f32`, and the rotary angles to 2^-32 turns.
const LIMIT: f64 = 1e-7;

const FAMILIES: [&str; 15] = [
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

/// Kinds of adapters, and their bases.
const KINDS: [(&str, &str); 7] = [
    ("bias_lora_only", "bert"),
    ("dora", "llama"),
    ("dora_conv1d", "gpt2"),
    ("lora_bias", "bert"),
    ("modules_to_save", "llama"),
    ("patterns", "llama"),
    ("rslora", "llama"),
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases")
}

/// Relative L2 over the positions that count.
fn error(found: &[f64], expected: &[f32], golden: &Checkpoint) -> f64 {
    let mask = golden.contains("output_mask").then(|| golden.i64s("output_mask").unwrap().data);
    let width = mask.as_ref().map_or(1, |m| expected.len() / m.len());
    let counts = |i: usize| mask.as_ref().is_none_or(|m| m[i / width] == 1);
    let pairs =
        || found.iter().zip(expected).enumerate().filter(|&(i, _)| counts(i)).map(|(_, (f, &e))| (f, f64::from(e)));
    let wrong: f64 = pairs().map(|(f, e)| (f - e).powi(2)).sum();
    (wrong / pairs().map(|(_, e)| e * e).sum::<f64>()).sqrt()
}

fn compare(base: &str, golden: &Path, adapter: Option<&Path>, tensor: &str) {
    let golden = Checkpoint::open_file(golden).unwrap();
    let directory = cases().join(base).join("base");
    let checkpoint = Checkpoint::open(&directory).unwrap();
    let network = hf::describe(&Config::read(&directory.join("config.json")).unwrap(), &checkpoint).unwrap();
    let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ()).unwrap();
    let file = ImageFile::of(Path::new(base), &converted.bytes);
    let model = file.model().unwrap();
    let batch = Batch::read(&golden, &model, model.spec().transformer().unwrap()).unwrap();
    let mut reference = Reference::read(&checkpoint, &network).unwrap();
    if let Some(adapter) = adapter {
        let read = peft::read(adapter, None, &Stored::floats(&reference.layers)).unwrap();
        adapt(&mut reference.layers, &read.pairs);
    }
    let found: Vec<f64> =
        (0..batch.count).flat_map(|row| reference.run(&batch.row(row), adapter.is_some(), &mut |_| ())).collect();
    let expected = golden.f32s(tensor).unwrap().data;
    assert_eq!(found.len(), expected.len(), "{base}");
    let error = error(&found, &expected, &golden);
    println!("{base:17} {tensor:15} {error:.1e}");
    assert!(error <= LIMIT, "{base}, {tensor}: {error:.1e}");
}

#[test]
fn families_are_torchs() {
    for case in FAMILIES {
        let (directory, golden) = (cases().join(case), cases().join(case).join("golden.safetensors"));
        compare(case, &golden, None, "output_base");
        compare(case, &golden, Some(&directory.join("adapter")), "output_adapter");
    }
    for case in ["bert", "t5-encoder", "llama", "encoder"] {
        compare(case, &cases().join(case).join("masked.safetensors"), None, "output_base");
    }
    compare("outlier", &cases().join("outlier/golden.safetensors"), None, "output_base");
}

#[test]
fn kinds_are_pefts() {
    for (kind, base) in KINDS {
        let directory = cases().join("adapters").join(kind);
        compare(base, &directory.join("golden.safetensors"), Some(&directory.join("adapter")), "output_adapter");
    }
}
