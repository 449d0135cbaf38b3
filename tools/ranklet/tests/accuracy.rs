//! What the contract says beside the families: the recipe of a classical T5 classifier, the 8-bit cache, and a residual stream
//! with an outlier.

mod common;

use common::{cases, figure, image_of};
use ranklet::model::CacheType;
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::{ImageFile, adapter, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::{self, Batch};
use std::path::Path;

fn golden(case: &str) -> Checkpoint {
    Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap()
}

/// Relative L2 error over the positions that count.
fn error(found: &[f32], expected: &[f32], golden: &Checkpoint) -> f64 {
    let mask = golden.contains("output_mask").then(|| golden.i64s("output_mask").unwrap().data);
    let width = mask.as_ref().map_or(1, |m| expected.len() / m.len());
    let counts = |i: usize| mask.as_ref().is_none_or(|m| m[i / width] == 1);
    let pairs = || {
        found
            .iter()
            .zip(expected)
            .enumerate()
            .filter(|&(i, _)| counts(i))
            .map(|(_, (&f, &e))| (f64::from(f), f64::from(e)))
    };
    let wrong: f64 = pairs().map(|(f, e)| (f - e).powi(2)).sum();
    (wrong / pairs().map(|(_, e)| e * e).sum::<f64>()).sqrt()
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

/// `T5ForSequenceClassification`, r = 8, alpha = 16, on q and v, dropout 0.1 in training, prediction by argmax.
#[test]
fn the_recipe_of_a_t5_classifier_agrees() {
    let case = "t5-classifier";
    let config = std::fs::read_to_string(cases().join(case).join("adapter/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let mut targets: Vec<&str> =
        config["target_modules"].as_array().unwrap().iter().filter_map(|t| t.as_str()).collect();
    targets.sort_unstable();
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_u64(), targets), (Some(8), Some(16), vec!["q", "v"]));
    assert_eq!(config["lora_dropout"].as_f64(), Some(0.1));
    let golden = golden(case);
    for to in [WeightType::I16, WeightType::I8] {
        let file = image_of(case, to, false);
        let model = file.model().unwrap();
        let t = model.spec().transformer().unwrap();
        let batch = Batch::read(&golden, &model, t).unwrap();
        let read = peft::read(&cases().join(case).join("adapter"), None, &Stored::of(&model)).unwrap();
        let task = ImageFile::of(Path::new("task"), &adapter::convert(&read, &model, false).unwrap());
        let adapter = task.adapter(&model).unwrap();
        for (what, name, adapters) in
            [("base", "output_base", vec![]), ("with adapter", "output_adapter", vec![adapter.view()])]
        {
            let found = sequences::run(&model, t, &adapters, &batch, || ()).unwrap();
            let expected = golden.f32s(name).unwrap();
            let outputs = model.spec().outputs;
            let rows = || found.data.chunks(outputs).zip(expected.data.chunks(outputs));
            let same = rows().filter(|(f, e)| argmax(f) == argmax(e)).count();
            figure("t5", case, to.name(), what, &format!("{same} of {}", rows().count()), "all");
            assert_eq!(same, rows().count(), "{}, {what}", to.name());
        }
    }
}

/// Keys and values in 8 bits, beside those in 16, of every kind of decoder.
#[test]
fn an_8_bit_cache_costs_little() {
    for case in ["llama", "llama-tied", "mistral", "qwen2", "gpt2", "t5-classifier"] {
        let golden = golden(case);
        for to in [WeightType::I16, WeightType::I8] {
            let file = image_of(case, to, false);
            let model = file.model().unwrap();
            let t = model.spec().transformer().unwrap();
            let batch = Batch::read(&golden, &model, t).unwrap();
            let run = |cache| sequences::run_with(&model, t, &[], &batch, cache, || ()).unwrap().data;
            let error = error(&run(CacheType::I8), &run(CacheType::I16), &golden);
            figure("cache", case, to.name(), "8-bit cache", &format!("{error:.1e}"), "2e-2");
            assert!(error > 0.0 && error < 2e-2, "{case}, {}: {error:.1e}", to.name());
        }
    }
}

/// One channel of the stream is some 10^3 to 10^4 times the others: 32 bits hold both, 16 do not.
#[test]
fn an_outlier_needs_a_wide_stream() {
    let golden = golden("outlier");
    let expected = golden.f32s("output_base").unwrap();
    let run = |to, wide| {
        let file = image_of("outlier", to, wide);
        let model = file.model().unwrap();
        let t = model.spec().transformer().unwrap();
        let batch = Batch::read(&golden, &model, t).unwrap();
        error(&sequences::run(&model, t, &[], &batch, || ()).unwrap().data, &expected.data, &golden)
    };
    for (to, limit) in [(WeightType::I16, 1e-3), (WeightType::I8, 5e-2)] {
        let (wide, narrow) = (run(to, true), run(to, false));
        figure("outlier", "outlier", to.name(), "32-bit stream", &format!("{wide:.1e}"), &format!("{limit:.0e}"));
        figure("outlier", "outlier", to.name(), "16-bit stream", &format!("{narrow:.1e}"), "");
        assert!(wide <= limit, "{}: {wide:.1e}", to.name());
        assert!(narrow > 0.1, "{}: with 16 bits it would do: {narrow:.1e}", to.name());
    }
}
