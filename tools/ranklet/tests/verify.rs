//! `ranklet verify`: what it measures against PyTorch's outputs, the layer that it blames, and what it refuses.

mod common;

use common::{Net, Place, cases, ranklet, refusal};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::report::Report;
use serde_json::Value;
use std::path::Path;

fn checkpoint(case: &str) -> String {
    cases().join(case).join("base").display().to_string()
}

fn peft(case: &str) -> String {
    cases().join(case).join("adapter").display().to_string()
}

/// Converts a case, and its adapter; returns the two images.
fn convert(place: &Place, case: &str, options: &[&str]) -> [String; 2] {
    let images = [place.str("base.rkl"), place.str("adapter.rkl")];
    let checkpoint = checkpoint(case);
    ranklet(&[&["convert", "base", &checkpoint, "-o", &images[0]][..], options].concat()).unwrap();
    ranklet(&["convert", "adapter", &peft(case), "--base", &images[0], "-o", &images[1]]).unwrap();
    images
}

fn verify(case: &str, [base, adapter]: &[String; 2], more: &[&str]) -> Report {
    let (checkpoint, peft) = (checkpoint(case), peft(case));
    let args = ["verify", "--base", base, "--checkpoint", &checkpoint, "--adapter", adapter, "--peft", &peft];
    ranklet(&[&args[..], more].concat()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::INFINITY)
}

/// The least of a column, in dB, and whose.
fn least<'r>(report: &'r Report, column: &str) -> (f64, &'r str) {
    let layers = report.json["layers"].as_array().unwrap();
    let of = |l: &'r Value| (number(&l[column]["snr_db"]), l["module"].as_str().unwrap());
    layers.iter().map(of).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn more_bits_are_more_decibels_in_every_family() {
    for case in ["bert-classifier", "t5-classifier", "llama", "llama-tied", "qwen2", "gpt2", "encoder", "encoder-pre"] {
        let place = Place::new();
        let by_type = ["i4", "i8", "i16"].map(|to| verify(case, &convert(&place, case, &["--weights", to]), &[]));
        for column in ["base", "adapted"] {
            let [i4, i8, i16] = by_type.each_ref().map(|r| least(r, column).0);
            // A step of 8 bits is 16 times, and one of 16 bits 4096 times finer than one of 4: 24 and 72 dB.
            assert!(i4 > 8.0 && i8 > i4 + 14.0 && i16 > i8 + 25.0, "{case} {column}: {i4} {i8} {i16}");
        }
        let [i4, i8, i16] = by_type.each_ref().map(|r| number(&r.json["output"]["snr_db"]));
        assert!(i8 > i4 && i16 > i8 + 20.0, "{case}: {i4} {i8} {i16}");
    }
}

/// The output's error is the one against PyTorch, to the digits that the float reference agrees with it; padding counts for
/// nothing.
#[test]
fn the_error_is_that_against_torch() {
    for (case, golden) in [("bert", "masked"), ("t5-classifier", "golden"), ("gpt2", "golden"), ("encoder", "golden")] {
        let place = Place::new();
        let images = convert(&place, case, &[]);
        let file = cases().join(case).join(format!("{golden}.safetensors"));
        let input = file.display().to_string();
        let report = verify(case, &images, &["--input", &input]);
        let out = place.str("out.safetensors");
        ranklet(&["run", "--base", &images[0], "--input", &input, "--output", &out]).unwrap();
        let (found, golden) = (Checkpoint::open_file(Path::new(&out)).unwrap(), Checkpoint::open_file(&file).unwrap());
        let name = if found.contains("logits") { "logits" } else { "last_hidden_state" };
        let (found, torch) = (found.f32s(name).unwrap(), golden.f32s("output_base").unwrap());
        let mask = golden.contains("output_mask").then(|| golden.i64s("output_mask").unwrap().data);
        let width = torch.shape.last().copied().unwrap();
        let (mut signal, mut noise) = (0.0, 0.0);
        for (i, (&f, &t)) in found.data.iter().zip(&torch.data).enumerate() {
            if mask.as_ref().is_none_or(|m| m[i / width] == 1) {
                signal += f64::from(t).powi(2);
                noise += (f64::from(f) - f64::from(t)).powi(2);
            }
        }
        let (torch, ours) = ((noise / signal).sqrt(), number(&report.json["output"]["relative_error"]));
        assert!((ours / torch - 1.0).abs() < 1e-4, "{case}: {ours:e} against {torch:e}");
    }
}

#[test]
fn the_layer_that_hurts_is_named_and_can_be_kept() {
    let (place, case) = (Place::new(), "llama");
    let hurt = "model.layers.1.mlp.down_proj";
    let coarse = format!("{hurt}=i4");
    let images = convert(&place, case, &["--weights", "i16", "--keep", &coarse]);
    let report = verify(case, &images, &["--min-db", "40"]);
    assert_eq!(report.json["worst"], hurt);
    assert!(report.human.contains(&format!("--keep '{hurt}=i16'")), "{}", report.human);
    assert!(!report.ok && report.human.contains("below --min-db 40"), "{}", report.human);
    // Only this layer has the noise: each is measured by itself.
    for layer in report.json["layers"].as_array().unwrap() {
        assert_eq!(number(&layer["base"]["snr_db"]) < 40.0, layer["module"] == hurt, "{layer}");
    }
    let kept = format!("{hurt}=i16");
    let images = convert(&place, case, &["--weights", "i16", "--keep", &kept]);
    assert!(verify(case, &images, &["--min-db", "40"]).ok);
}

#[test]
fn texts_and_perceptrons_are_taken() {
    let place = Place::new();
    let models = cases().join("../story");
    let at = |name: &str| models.join(name).display().to_string();
    place.write("text", "And it came to pass\n\nIn the beginning\n");
    let (base, text) = (at("story.rkl"), place.str("text"));
    let report = ranklet(&["verify", "--base", &base, "--checkpoint", &at("base"), "--text", &text]).unwrap();
    assert_eq!(report.json["sequences"], 2);
    assert!(number(&report.json["output"]["snr_db"]) > 30.0, "{}", report.human);

    let net = Net::new(&[6, 9, 3], 5);
    net.save(&place, "net", "classification");
    let (dir, image) = (place.str("net"), place.str("net.rkl"));
    ranklet(&["convert", "base", &dir, "-o", &image]).unwrap();
    let report = ranklet(&["verify", "--base", &image, "--checkpoint", &dir, "--count", "20"]).unwrap();
    assert!(report.human.contains("20 rows") && number(&report.json["output"]["snr_db"]) > 30.0, "{}", report.human);
    let refused = refusal(&["verify", "--base", &image, "--checkpoint", &dir, "--text", &text]);
    assert!(refused.contains("reads no text"), "{refused}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let place = Place::new();
    let [base, adapter] = convert(&place, "llama", &[]);
    let (own, other) = (checkpoint("llama"), checkpoint("llama-tied"));
    let refused = refusal(&["verify", "--base", &base, "--checkpoint", &other]);
    assert!(refused.contains("made from another checkpoint") && refused.contains("llama-tied"), "{refused}");
    let wrong = cases().join("adapters/patterns/adapter").display().to_string();
    let with =
        |peft: &str| refusal(&["verify", "--base", &base, "--checkpoint", &own, "--adapter", &adapter, "--peft", peft]);
    assert!(with(&wrong).contains("whose layers or ranks are others"), "{}", with(&wrong));
    assert!(with(&place.str("nothing")).contains("no such file"), "{}", with(&place.str("nothing")));
    let refused = refusal(&["verify", "--base", &base, "--checkpoint", &own, "--adapter", &adapter]);
    assert!(refused.contains("--peft"), "{refused}");
    place.write("empty", "\n \n");
    let refused = refusal(&["verify", "--base", &base, "--checkpoint", &own, "--text", &place.str("empty")]);
    assert!(refused.contains("holds no text"), "{refused}");
    for (option, value) in [("--count", "0"), ("--count", "1000000000"), ("--tokens", "0"), ("--min-db", "NaN")] {
        let refused = refusal(&["verify", "--base", &base, "--checkpoint", &own, option, value]);
        assert!(refused.contains("expected"), "{refused}");
    }
}
