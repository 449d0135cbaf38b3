//! PEFT in, image, PEFT out.

mod common;

use common::*;
use ranklet_host_tests::tolerance::OUTPUT_I16;
use serde_json::{Value, json};

fn setup(dims: &[usize], pairs: &[(usize, usize)], config: Value) -> (Place, Net, Vec<Pair>) {
    let place = Place::new();
    let net = Net::new(dims, 5);
    net.save(&place, "base", "classification");
    let pairs: Vec<Pair> = pairs.iter().map(|&(l, r)| Pair::new(&net, l, r, 7 + l as u64)).collect();
    save_peft(&place, "peft", &net, &pairs, config);
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "base", &p("base"), "-o", &p("base.rkl")]).unwrap();
    (place, net, pairs)
}

fn there_and_back(place: &Place, more: &[&str]) {
    let p = |n: &str| place.str(n);
    let (peft, base, task, back) = (p("peft"), p("base.rkl"), p("task.rkl"), p("back"));
    let mut args = vec!["convert", "adapter", &peft, "--base", &base, "-o", &task];
    args.extend(more);
    ranklet(&args).unwrap();
    ranklet(&["export", &task, "--base", &base, "-o", &back, "--device", "a desk", "--steps", "3"]).unwrap();
}

#[test]
fn tensors_come_back() {
    let user = json!({"alpha_pattern": {}, "peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": ["0", "2"],
                      "lora_dropout": 0.05, "task_type": null, "peft_version": "0.20.0", "use_rslora": true,
                      "base_model_name_or_path": "my/base", "unknown_but_null": null});
    let (place, _, pairs) = setup(&[7, 13, 5], &[(0, 3), (1, 3)], user.clone());
    // Both planes: f32 survives, but for values below 2^-6 of the largest, which keep half a master's LSB. High plane
    // alone: half of a 16-bit step.
    for (more, step) in [(&[][..], 2_f32.powi(-30)), (&["--inference-only"], 2_f32.powi(-14))] {
        there_and_back(&place, more);
        for p in &pairs {
            for (part, want) in [("A", &p.a), ("B", &p.b)] {
                let key = format!("base_model.model.{}.lora_{part}.weight", Net::module(p.layer));
                let got = read(&place.path("back/adapter_model.safetensors"), &key);
                let peak = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                for (g, w) in got.iter().zip(want) {
                    assert!((g - w).abs() <= peak * step, "{key}: {w} became {g}");
                }
            }
        }
        let config = std::fs::read_to_string(place.path("back/adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config.to_string(), user.to_string(), "every field, in its order");
    }
    let card = std::fs::read_to_string(place.path("back/README.md")).unwrap();
    for part in ["base_model: \"my/base\"", "a desk", "| optimizer steps | 3 |", "library_name: peft", "|| trainable%:"]
    {
        assert!(card.contains(part), "{part} in {card}");
    }
}

#[test]
fn what_comes_back_can_go_in_again() {
    let config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6.5, "target_modules": "0|[24]",
                        "rank_pattern": {"2": 9}, "alpha_pattern": {"4": 1}});
    let (place, ..) = setup(&[6, 11, 9, 4], &[(0, 4), (1, 9), (2, 4)], config);
    there_and_back(&place, &[]);
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "adapter", &p("back"), "--base", &p("base.rkl"), "-o", &p("again.rkl")]).unwrap();
    assert_eq!(std::fs::read(p("task.rkl")).unwrap(), std::fs::read(p("again.rkl")).unwrap());
}

#[test]
fn zero_extreme_and_odd_shapes() {
    let (place, net, mut pairs) = setup(&[1, 3, 2], &[(0, 64), (1, 1)], config(64, 8.0, &["0"]));
    pairs[0].b.fill(0.0); // As PEFT starts.
    pairs[1].a.iter_mut().for_each(|v| *v *= 1e-30);
    pairs[1].b[0] = 3e30;
    let mut c = config(64, 8.0, &["0", "2"]);
    c["rank_pattern"] = json!({"2": 1});
    save_peft(&place, "peft", &net, &pairs, c);
    there_and_back(&place, &[]);
    let at = |k: &str| read(&place.path("back/adapter_model.safetensors"), &format!("base_model.model.{k}.weight"));
    assert_eq!(at("0.lora_B"), pairs[0].b);
    assert_eq!(at("2.lora_B")[0], 3e30);
    for (g, w) in at("2.lora_A").iter().zip(&pairs[1].a) {
        assert!((g - w).abs() <= 1e-38, "{w} became {g}");
    }
}

#[test]
fn lora_layers_by_option() {
    let place = Place::new();
    let net = Net::new(&[6, 4], 2);
    net.save(&place, "base", "regression");
    let pair = Pair::new(&net, 0, 2, 3);
    // Theirs: A (out, r), B (r, in), W + alpha · A B.
    place.tensors(
        "layer.safetensors",
        &[("A", &[4, 2], &pair.b), ("B", &[2, 6], &pair.a), ("W", &[4, 6], &net.weights[0])],
    );
    let x = Draw::new(9).values(6, 1.0);
    place.tensors("in.safetensors", &[("inputs", &[1, 6], &x)]);
    let p = |n: &str| place.str(n);
    for weights in ["i8", "i16", "i4"] {
        ranklet(&["convert", "base", &p("base"), "--weights", weights, "-o", &p("b.rkl")]).unwrap();
        let (layer, base, task) = (p("layer.safetensors"), p("b.rkl"), p("t.rkl"));
        let args = ["convert", "adapter", &layer, "--base", &base, "-o", &task, "--format", "lora-layer"];
        assert!(refusal(&args).contains("needs --alpha"));
        let e = refusal(&[&args[..], &["--alpha", "nan"]].concat());
        assert!(e.contains("--alpha NaN") && !e.contains("needs"), "{e}");
        ranklet(&[&args[..], &["--alpha", "1.5"]].concat()).unwrap();
    }
    ranklet(&["convert", "base", &p("base"), "--weights", "i16", "-o", &p("b.rkl")]).unwrap();
    let (input, output) = (p("in.safetensors"), p("o.safetensors"));
    let args = ["run", "--base", &p("b.rkl"), "--adapter", &p("t.rkl"), "--input", &input, "--output", &output];
    ranklet(&args).unwrap();
    let want = outputs(&mlp(&net, |i| net.weights[i].clone()), &oracle_pairs(std::slice::from_ref(&pair), 1.5), &x);
    OUTPUT_I16.check(relative(&read(&place.path("o.safetensors"), "logits"), &want), "a LoRALayer");

    // Messages call the two as the file does: its A is (out, r).
    let swapped: [(&str, &[usize], &[f32]); 2] = [("A", &[2, 6], &pair.a), ("B", &[4, 2], &pair.b)];
    let short: [(&str, &[usize], &[f32]); 2] = [("A", &[4, 2], &pair.b), ("B", &[1, 6], &pair.a[..6])];
    for (tensors, part) in [(swapped, "A is (…, 6) and B is (4, …)"), (short, "A is (…, 2) and B is (1, …)")] {
        place.tensors("layer.safetensors", &tensors);
        let args = ["convert", "adapter", &p("layer.safetensors"), "--base", &p("b.rkl"), "-o", &p("t.rkl")];
        let e = refusal(&[&args[..], &["--format", "lora-layer", "--alpha", "1"]].concat());
        assert!(e.contains(part) && e.matches("layer.safetensors").count() == 1, "{e}");
    }
    place.tensors("layer.safetensors", &[("A", &[3, 2], &pair.b[..6]), ("B", &[2, 6], &pair.a)]);
    let args = ["convert", "adapter", &p("layer.safetensors"), "--base", &p("b.rkl"), "-o", &p("t.rkl")];
    let e = refusal(&[&args[..], &["--format", "lora-layer", "--alpha", "1"]].concat());
    assert!(e.contains("A is (3, …)") && e.contains("4 outputs"), "{e}");

    let mut other = net.weights[0].clone();
    other[7] += 0.5;
    place.tensors(
        "layer.safetensors",
        &[("0.A", &[4, 2], &pair.b), ("0.B", &[2, 6], &pair.a), ("0.W", &[4, 6], &other)],
    );
    let args = ["convert", "adapter", &p("layer.safetensors"), "--base", &p("b.rkl"), "-o", &p("t.rkl")];
    let e = refusal(&[&args[..], &["--format", "lora-layer", "--alpha", "1"]].concat());
    assert!(e.contains("`0.W`") && e.contains("[1, 1]"), "{e}");
}

#[test]
fn a_requantized_base_keeps_its_adapters_and_another_base_does_not() {
    let (place, ..) = setup(&[7, 13, 5], &[(0, 3)], config(3, 3.0, &["0"]));
    there_and_back(&place, &[]);
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "base", &p("base"), "--weights", "i4", "-o", &p("small.rkl")]).unwrap();
    let report = ranklet(&["inspect", &p("task.rkl"), "--base", &p("small.rkl")]).unwrap();
    assert!(report.human.contains("another quantization"), "{}", report.human);
    Net::new(&[7, 13, 5], 99).save(&place, "other", "classification");
    ranklet(&["convert", "base", &p("other"), "-o", &p("other.rkl")]).unwrap();
    let e = refusal(&["export", &p("task.rkl"), "--base", &p("other.rkl"), "-o", &p("no")]);
    assert!(e.contains("made for the checkpoint") && !place.path("no").exists(), "{e}");
}
