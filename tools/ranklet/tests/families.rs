//! Every family against PyTorch, transformers and PEFT: `models/cases/*/golden.safetensors`.

use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile, adapter::Parts};
use ranklet_cli::peft;
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::{self, Batch};
use std::path::{Path, PathBuf};

/// Tolerances: relative L2 of the output, and of what the adapter changes, each against `f64`.
///
/// * `i16` weights: 1e-3 and 5e-3, the contract. 16-bit activations leave about 1e-4 a block; the adapter's part is a third
///   of the output, and its error that of both outputs.
/// * `i8` weights: 5e-2 and 1e-1, the contract. Rounding to 8 bits alone is 40 to 45 dB a layer.
const TOLERANCES: [(WeightType, f64, f64); 2] = [(WeightType::I16, 1e-3, 5e-3), (WeightType::I8, 5e-2, 1e-1)];

/// Adapters that wait for layers trained whole (`modules_to_save`).
const WITHOUT_ADAPTER: [&str; 2] = ["bert-classifier", "llama-classifier"];

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

fn convert(case: &str, to: WeightType, wide: bool) -> ImageFile {
    let base = cases().join(case).join("base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let network = hf::describe(&Config::read(&base.join("config.json")).unwrap(), &checkpoint).unwrap();
    let converted = image::transformer::convert(&checkpoint, &network, to, wide, || ()).unwrap();
    ImageFile::of(Path::new(case), &converted.bytes)
}

/// Relative L2 error over the positions that count.
fn error(found: &[f64], expected: &[f64], mask: &[bool]) -> f64 {
    let width = expected.len() / mask.len();
    let each = || found.iter().zip(expected).enumerate().filter(|(i, _)| mask[i / width]).map(|(_, v)| v);
    let wrong: f64 = each().map(|(f, e)| (f - e) * (f - e)).sum();
    let all: f64 = each().map(|(_, e)| e * e).sum();
    (wrong / all).sqrt()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn outputs_are_torchs() {
    let mut failures = vec![];
    for case in CASES {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let base = golden.f32s("output_base").unwrap();
        let adapted = wide(&golden.f32s("output_adapter").unwrap().data);
        let expected = wide(&base.data);
        let positions = base.shape.iter().rev().skip(1).product();
        let mask = match golden.contains("output_mask") {
            true => golden.i64s("output_mask").unwrap().data.iter().map(|&m| m == 1).collect(),
            false => vec![true; positions],
        };
        for (to, limit, effect_limit) in TOLERANCES {
            let file = convert(case, to, false);
            let model = file.model().unwrap();
            let t = model.spec().transformer().unwrap();
            let batch = Batch::read(&golden, &model, t).unwrap();
            let out = sequences::run(&model, t, &[], &batch, || ()).unwrap();
            assert_eq!(out.shape, base.shape, "{case}");
            let off = wide(&out.data);
            let mut figures = vec![("output", error(&off, &expected, &mask), limit)];
            if !WITHOUT_ADAPTER.contains(&case) {
                let sites = image::sites(&model);
                let read = peft::read(&cases().join(case).join("adapter"), &sites).unwrap();
                let bytes =
                    Parts::of(&read.pairs).emit(model.source(), model.head().image, &Default::default()).unwrap();
                let task = ImageFile::of(Path::new("task"), &bytes);
                let adapter = task.adapter(&model).unwrap();
                let on = wide(&sequences::run(&model, t, &[adapter.view()], &batch, || ()).unwrap().data);
                figures.push(("with adapter", error(&on, &adapted, &mask), limit));
                let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
                let effect = error(&minus(&on, &off), &minus(&adapted, &expected), &mask);
                figures.push(("adapter's effect", effect, effect_limit));
            }
            for (what, error, limit) in figures {
                println!("{case:17} {:3} {what:16} {error:.2e}", to.name());
                if error.is_nan() || error > limit {
                    failures.push(format!("{case}, {}, {what}: {error:.2e} is above {limit:.0e}", to.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A 32-bit residual stream computes the same function.
#[test]
fn a_wide_stream_is_as_good() {
    for case in ["llama", "gpt2", "t5-encoder"] {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let expected = golden.f32s("output_base").unwrap();
        let file = convert(case, WeightType::I16, true);
        let model = file.model().unwrap();
        let t = model.spec().transformer().unwrap();
        let batch = Batch::read(&golden, &model, t).unwrap();
        let out = sequences::run(&model, t, &[], &batch, || ()).unwrap();
        let positions: usize = expected.shape.iter().rev().skip(1).product();
        let mask = match golden.contains("output_mask") {
            true => golden.i64s("output_mask").unwrap().data.iter().map(|&m| m == 1).collect(),
            false => vec![true; positions],
        };
        let error = error(&wide(&out.data), &wide(&expected.data), &mask);
        println!("{case}: {error:.2e}");
        assert!(error <= 1e-3, "{case}: {error:.2e}");
    }
}
