//! Adapters of every kind that real PEFT wrote, `models/cases/adapters`: taken and compared with PyTorch's outputs, or
//! refused with a message that names the thing.

mod common;

use common::{Place, cases, figure, image_of, ranklet, refusal};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::stored::Stored;
use ranklet_cli::image::{ImageFile, adapter};
use ranklet_cli::peft;
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::{self, Batch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Relative L2 of the output, and of what the adapter changes: the contract, as for the families.
const TOLERANCES: [(WeightType, f64, f64); 2] = [(WeightType::I16, 1e-3, 5e-3), (WeightType::I8, 5e-2, 1e-1)];

/// Kinds that are taken.
const TAKEN: [&str; 10] = [
    "bf16",
    "bias_lora_only",
    "dora",
    "dora_conv1d",
    "layers",
    "lora_bias",
    "modules_to_save",
    "patterns",
    "regex",
    "rslora",
];

/// Kinds that are refused, and what the message has to name.
const REFUSED: [(&str, &[&str]); 5] = [
    ("bias_all", &["LayerNorm.bias`", "lora_only"]),
    ("embedding", &["embed_tokens", "embedding"]),
    ("pissa", &["`init_lora_weights`", "\"pissa\"", "changed the base"]),
    ("trainable_tokens", &["`trainable_token_indices`", "trained tokens"]),
    ("trainable_tokens_tied", &["`trainable_token_indices`", "trained tokens"]),
];

/// Holds one adapter in each of two subdirectories.
const SEVERAL: &str = "several";

fn directory(kind: &str) -> PathBuf {
    cases().join("adapters").join(kind)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(directory(name)).unwrap()).unwrap()
}

fn base_of(kind: &str) -> String {
    json("kinds.json")[kind].as_str().unwrap().to_owned()
}

/// Relative L2 error over the positions that count.
fn error(found: &[f64], expected: &[f64], mask: &[bool]) -> f64 {
    let width = expected.len() / mask.len();
    let each = || found.iter().zip(expected).enumerate().filter(|(i, _)| mask[i / width]).map(|(_, v)| v);
    let wrong: f64 = each().map(|(f, e)| (f - e) * (f - e)).sum();
    (wrong / each().map(|(_, e)| e * e).sum::<f64>()).sqrt()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Converts adapters of a kind (by their names, where there are several), runs its base with all of them, and compares
/// with a golden tensor: the output, and what the adapters change of it.
fn compare_outputs(kind: &str, names: &[Option<&str>], golden_name: &str, failures: &mut Vec<String>) {
    let golden = Checkpoint::open_file(&directory(kind).join("golden.safetensors")).unwrap();
    let base_golden = Checkpoint::open_file(&cases().join(base_of(kind)).join("golden.safetensors")).unwrap();
    let off = base_golden.f32s("output_base").unwrap();
    let (expected_on, expected_off) = (wide(&golden.f32s(golden_name).unwrap().data), wide(&off.data));
    let mask: Vec<bool> = match golden.contains("output_mask") {
        true => golden.i64s("output_mask").unwrap().data.iter().map(|&m| m == 1).collect(),
        false => vec![true; off.shape.iter().rev().skip(1).product()],
    };
    for (to, limit, effect_limit) in TOLERANCES {
        let file = image_of(&base_of(kind), to, false);
        let model = file.model().unwrap();
        let t = model.spec().transformer().unwrap();
        let batch = Batch::read(&golden, &model, t).unwrap();
        let stored = Stored::of(&model);
        let read = |name: &Option<&str>| peft::read(&directory(kind).join("adapter"), *name, &stored).unwrap();
        let adapters: Vec<_> = names.iter().map(read).collect();
        let images: Vec<ImageFile> = adapters
            .iter()
            .map(|a| ImageFile::of(Path::new("task"), &adapter::convert(a, &model, false).unwrap()))
            .collect();
        let views: Vec<_> = images.iter().map(|i| i.adapter(&model).unwrap().view()).collect();
        let off = wide(&sequences::run(&model, t, &[], &batch, || ()).unwrap().data);
        let on = wide(&sequences::run(&model, t, &views, &batch, || ()).unwrap().data);
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let effect = error(&minus(&on, &off), &minus(&expected_on, &expected_off), &mask);
        for (what, error, limit) in
            [("output", error(&on, &expected_on, &mask), limit), ("effect", effect, effect_limit)]
        {
            let case = match golden_name {
                "output_adapter" => kind.to_owned(),
                _ => format!("{kind}: {}", golden_name.trim_start_matches("output_")),
            };
            figure("kinds", &case, to.name(), what, &format!("{error:.1e}"), &format!("{limit:.0e}"));
            if error.is_nan() || error > limit {
                failures.push(format!("{kind}, {}, {what}: {error:.2e} is above {limit:.0e}", to.name()));
            }
        }
    }
}

#[test]
fn every_kind_is_accounted_for() {
    let listed: BTreeSet<String> = json("kinds.json").as_object().unwrap().keys().cloned().collect();
    let refused = REFUSED.iter().map(|(kind, _)| *kind);
    let known: BTreeSet<String> = TAKEN.into_iter().chain(refused).chain([SEVERAL]).map(str::to_owned).collect();
    assert_eq!(listed, known);
}

#[test]
fn outputs_are_pefts() {
    let mut failures = vec![];
    for kind in TAKEN {
        compare_outputs(kind, &[None], "output_adapter", &mut failures);
    }
    for (names, golden) in
        [(&["alpha"][..], "output_alpha"), (&["beta"], "output_beta"), (&["alpha", "beta"], "output_both")]
    {
        let names: Vec<Option<&str>> = names.iter().copied().map(Some).collect();
        compare_outputs(SEVERAL, &names, golden, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Writes the base's image into a place of its own.
fn place_with(kind: &str) -> Place {
    let place = Place::new();
    place.write("base.rkl", image_of(&base_of(kind), WeightType::I8, false).bytes());
    place
}

fn refused(place: &Place, adapter: &Path, parts: &[&str], what: &str) {
    let before = place.listing();
    let adapter = adapter.display().to_string();
    let e = refusal(&["convert", "adapter", &adapter, "--base", &place.str("base.rkl"), "-o", &place.str("task.rkl")]);
    assert!(parts.iter().all(|p| e.contains(p)), "{what}: {parts:?} in: {e}");
    assert_eq!(place.listing(), before, "{what}: something was written");
}

#[test]
fn refusals_name_the_thing() {
    for (kind, parts) in REFUSED {
        refused(&place_with(kind), &directory(kind).join("adapter"), parts, kind);
    }
    refused(&place_with(SEVERAL), &directory(SEVERAL).join("adapter"), &["`alpha`, `beta`", "--name"], SEVERAL);
}

/// What `refusals.json` lists, each a change to the configuration of a plain adapter.
#[test]
fn configurations_that_change_the_arithmetic_are_refused() {
    let place = place_with("rslora");
    let plain = cases().join("llama/adapter");
    let config = std::fs::read_to_string(plain.join("adapter_config.json")).unwrap();
    place.write("peft/adapter_model.safetensors", std::fs::read(plain.join("adapter_model.safetensors")).unwrap());
    let listed = json("refusals.json");
    assert_eq!(listed.as_array().unwrap().len(), 20);
    for case in listed.as_array().unwrap() {
        let mut config: Value = serde_json::from_str(&config).unwrap();
        for (k, v) in case["change"].as_object().unwrap() {
            config[k] = v.clone();
        }
        place.write("peft/adapter_config.json", config.to_string());
        let field = case["field"].as_str().unwrap();
        refused(&place, &place.path("peft"), &[field], case["name"].as_str().unwrap());
    }
}

#[test]
fn one_of_several_is_chosen_by_name() {
    let place = place_with(SEVERAL);
    let (dir, base, task) =
        (directory(SEVERAL).join("adapter").display().to_string(), place.str("base.rkl"), place.str("t"));
    let args = |name: &'static str| ["convert", "adapter", &dir, "--base", &base, "-o", &task, "--name", name];
    let report = ranklet(&args("beta")).unwrap();
    assert_eq!(report.json["pairs"].as_array().unwrap().len(), 4);
    assert_eq!(report.json["pairs"][0]["rank"], 3);
    let e = refusal(&args("../adapter/beta"));
    assert!(e.contains("holds no adapter `../adapter/beta`") && e.contains("`alpha`, `beta`"), "{e}");
}

/// Image, PEFT directory, image: what comes back does what went out, magnitudes, biases and whole layers included.
#[test]
fn what_is_exported_comes_back() {
    let kinds = TAKEN.map(|kind| (kind, base_of(kind), directory(kind).join("adapter")));
    // A wrapped attention; heads trained whole, with names in modules_to_save that nobody holds.
    let families = ["encoder", "bert-classifier", "llama-classifier"];
    let families = families.map(|case| (case, case.to_owned(), cases().join(case).join("adapter")));
    for (kind, base, dir) in kinds.into_iter().chain(families) {
        let place = Place::new();
        place.write("base.rkl", image_of(&base, WeightType::I8, false).bytes());
        let p = |n: &str| place.str(n);
        let (base, peft) = (p("base.rkl"), dir.display().to_string());
        ranklet(&["convert", "adapter", &peft, "--base", &base, "-o", &p("task.rkl")]).unwrap();
        ranklet(&["export", &p("task.rkl"), "--base", &base, "-o", &p("back")]).unwrap();
        let (before, after) = (
            Checkpoint::open_file(&dir.join("adapter_model.safetensors")).unwrap(),
            Checkpoint::open_file(&place.path("back/adapter_model.safetensors")).unwrap(),
        );
        assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>(), "{kind}");
        for name in before.names() {
            let (before, after) = (before.f32s(name).unwrap(), after.f32s(name).unwrap());
            assert_eq!(before.shape, after.shape, "{kind}: {name}");
            // A vector (of what is added to the base, and that is less than the base here) has mantissas of 2^14 and more
            // at its peak, so that half a step is 2^-15 of it; a gain's goes into its B, too. The rest is f32.
            let peak = before.data.iter().fold(0.0_f32, |p, v| p.max(v.abs()));
            let worst = before.data.iter().zip(&after.data).fold(0.0_f32, |w, (a, b)| w.max((a - b).abs()));
            let vectors = kind.starts_with("dora") || name.ends_with("bias");
            let limit = if vectors { 2_f32.powi(-15) + 2_f32.powi(-22) } else { 2_f32.powi(-22) };
            assert!(worst <= peak * limit, "{kind}: {name}: {worst:.1e} of {peak:.1e}");
        }
        let config = |dir: PathBuf| -> Value {
            serde_json::from_str(&std::fs::read_to_string(dir.join("adapter_config.json")).unwrap()).unwrap()
        };
        assert_eq!(config(dir), config(place.path("back")), "{kind}: every field");
    }
}
