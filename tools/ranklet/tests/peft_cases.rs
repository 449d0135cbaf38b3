//! The golden cases of `models/cases`: adapters that real PEFT wrote, logits and gradients that real PyTorch computed.

mod common;

use common::*;
use ranklet_host_tests::fixture::relative_l2;
use ranklet_host_tests::tolerance::{GRADIENT_I16, OUTPUT_I8, OUTPUT_I16};
use std::path::{Path, PathBuf};

/// The two cases: directory of the case, of its base, and the adapted modules.
const CASES: [(&str, &str, &[&str]); 2] =
    [("cases/odd", "cases/odd/base", &["0", "2"]), ("cases/digits", "digits/base", &["0", "2", "4"])];

fn models(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn error(found: &Path, name: &str, golden: &Path, expected: &str) -> f64 {
    relative_l2(&wide(&read(found, name)), &wide(&read(golden, expected)))
}

#[test]
fn logits_and_gradients_are_pytorchs() {
    for (case, base, modules) in CASES {
        for (weights, tolerance) in [("i16", &OUTPUT_I16), ("i8", &OUTPUT_I8)] {
            let place = Place::new();
            let p = |n: &str| place.str(n);
            let (golden, peft) = (models(case).join("golden.safetensors"), models(case).join("adapter"));
            let (base, golden_path) = (models(base).display().to_string(), golden.display().to_string());
            let peft = peft.display().to_string();
            ranklet(&["convert", "base", &base, "--weights", weights, "-o", &p("base.rkl")]).unwrap();
            ranklet(&["convert", "adapter", &peft, "--base", &p("base.rkl"), "-o", &p("task.rkl")]).unwrap();

            let run = |output: &str, adapter: &[&str]| {
                let (base, output) = (p("base.rkl"), p(output));
                let mut args = vec!["run", "--base", &base, "--input", &golden_path, "--output", &output];
                args.extend(adapter);
                ranklet(&args).unwrap();
            };
            run("off.safetensors", &[]);
            run("on.safetensors", &["--adapter", &p("task.rkl")]);
            let what = format!("{case}, {weights}");
            tolerance.check(error(&place.path("off.safetensors"), "logits", &golden, "logits_base"), &what);
            tolerance.check(error(&place.path("on.safetensors"), "logits", &golden, "logits_adapter"), &what);
            if weights != "i16" {
                continue;
            }

            let (base, task, out) = (p("base.rkl"), p("task.rkl"), p("grad.safetensors"));
            ranklet(&["grad", "--base", &base, "--adapter", &task, "--input", &golden_path, "--output", &out]).unwrap();
            for module in modules {
                for part in ["lora_A", "lora_B"] {
                    let key = format!("base_model.model.{module}.{part}.weight");
                    GRADIENT_I16.check(error(Path::new(&out), &key, &golden, &key), &format!("{what}, {key}"));
                }
            }
        }
    }
}

/// PEFT in, image, PEFT out: no value moves by more than half a 16-bit step of its tensor.
#[test]
fn an_adapter_comes_back() {
    for (case, base, modules) in CASES {
        let place = Place::new();
        let p = |n: &str| place.str(n);
        let (base, peft) = (models(base).display().to_string(), models(case).join("adapter"));
        let peft_path = peft.display().to_string();
        ranklet(&["convert", "base", &base, "--weights", "i8", "-o", &p("base.rkl")]).unwrap();
        ranklet(&["convert", "adapter", &peft_path, "--base", &p("base.rkl"), "-o", &p("task.rkl")]).unwrap();
        ranklet(&["export", &p("task.rkl"), "--base", &p("base.rkl"), "-o", &p("back")]).unwrap();
        let (before, after) = (peft.join("adapter_model.safetensors"), place.path("back/adapter_model.safetensors"));
        for module in modules {
            for part in ["lora_A", "lora_B"] {
                let key = format!("base_model.model.{module}.{part}.weight");
                let (before, after) = (read(&before, &key), read(&after, &key));
                let peak = before.iter().fold(0.0_f32, |p, v| p.max(v.abs()));
                let worst = before.iter().zip(&after).fold(0.0_f32, |w, (a, b)| w.max((a - b).abs()));
                // The peak's high plane has 14 bits.
                assert!(worst <= peak / 16384.0, "{case}, {key}: {worst} of {peak}");
            }
        }
    }
}
