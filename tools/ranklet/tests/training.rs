//! `train`, `eval`, `plan` and `inspect`, through the command line.

mod common;

use common::*;
use ranklet_cli::save::Out;
use safetensors::tensor::Dtype;
use serde_json::json;

/// 3 classes by the largest of the first three features; the base knows nothing about them.
fn digits(place: &Place, name: &str, rows: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let x = draw.values(rows * 6, 1.0);
    let class = |x: &[f32]| (0..3).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap() as i64;
    let labels: Vec<u8> = x.chunks(6).flat_map(|x| class(x).to_le_bytes()).collect();
    let inputs = Out::f32s(&[rows, 6], &x);
    let inputs_bytes = safetensors::View::data(&inputs).into_owned();
    let views = [
        ("inputs", safetensors::tensor::TensorView::new(Dtype::F32, vec![rows, 6], &inputs_bytes).unwrap()),
        ("labels", safetensors::tensor::TensorView::new(Dtype::I64, vec![rows], &labels).unwrap()),
    ];
    place.write(name, safetensors::serialize(views, None).unwrap());
}

fn setup() -> Place {
    let place = Place::new();
    Net::new(&[6, 24, 3], 8).save(&place, "base", "classification");
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "base", &p("base"), "-o", &p("base.rkl")]).unwrap();
    digits(&place, "train.safetensors", 300, 1);
    digits(&place, "test.safetensors", 100, 2);
    place
}

fn train(place: &Place, out: &str, more: &[&str]) -> anyhow::Result<ranklet_cli::report::Report> {
    let (base, data, out) = (place.str("base.rkl"), place.str("train.safetensors"), place.str(out));
    ranklet(&[&["train", "--base", &base, "--data", &data, "-o", &out], more].concat())
}

fn accuracy(place: &Place, adapter: Option<&str>) -> f64 {
    let (base, data) = (place.str("base.rkl"), place.str("test.safetensors"));
    let adapter = adapter.map(|a| place.str(a));
    let mut args = vec!["eval", "--base", &base, "--data", &data];
    adapter.iter().for_each(|a| args.extend(["--adapter", a]));
    let report = ranklet(&args).unwrap();
    assert_eq!(report.json["per_class"].as_array().unwrap().len(), 3);
    report.json["accuracy"].as_f64().unwrap()
}

#[test]
fn an_adapter_learns() {
    let place = setup();
    let before = std::fs::read(place.path("base.rkl")).unwrap();
    let base = accuracy(&place, None);
    for (out, more) in [
        ("adamw.rkl", &["--optimizer", "adamw", "--lr", "0.01", "--schedule", "linear", "--warmup", "20"][..]),
        ("sgd.rkl", &["--optimizer", "sgd", "--lr", "0.02", "--clip", "5", "--dropout", "0.05"]),
    ] {
        let common = ["--rank", "4", "--alpha", "8", "--batch", "8", "--epochs", "20", "--log"];
        let log = place.str("log.csv");
        let report = train(&place, out, &[&common[..], &[&log], more].concat()).unwrap();
        assert_eq!(report.json["steps"], 20 * 38);
        assert_eq!(report.json["samples"], 20 * 300);
        let (first, last) = (&report.json["first_loss"], &report.json["final_loss"]);
        assert!(last.as_f64().unwrap() < 0.5 * first.as_f64().unwrap(), "{out}: {first} {last}");
        let after = accuracy(&place, Some(out));
        assert!(after >= 90.0 && after > base + 20.0, "{out}: {base} {after}");
        let csv = std::fs::read_to_string(place.path("log.csv")).unwrap();
        assert_eq!(csv.lines().count(), 1 + 20 * 38);
        assert!(csv.starts_with("step,epoch,samples,loss,lr\n1,0,8,"));
    }
    assert_eq!(std::fs::read(place.path("base.rkl")).unwrap(), before, "the base is only read");
}

#[test]
fn a_seed_fixes_everything() {
    let place = setup();
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    for (name, seed) in [("a.rkl", "1"), ("b.rkl", "1"), ("c.rkl", "2")] {
        train(&place, name, &["--steps", "25", "--batch", "4", "--dropout", "0.1", "--seed", seed]).unwrap();
    }
    assert_eq!(bytes("a.rkl"), bytes("b.rkl"));
    assert_ne!(bytes("a.rkl"), bytes("c.rkl"));
}

#[test]
fn training_goes_on_and_comes_back_as_peft() {
    let place = setup();
    let p = |n: &str| place.str(n);
    train(&place, "a.rkl", &["--steps", "40", "--on", "2", "--rank", "3", "--alpha", "4.5", "--lr", "0.01"]).unwrap();
    let report = ranklet(&["inspect", &p("a.rkl"), "--base", &p("base.rkl")]).unwrap();
    assert_eq!(report.json["pairs"].as_array().unwrap().len(), 1);
    assert_eq!(report.json["pairs"][0]["module"], "2");
    assert!(
        report.human.contains("trainable params: 81 || all params: 324 || trainable%: 25.0000"),
        "{}",
        report.human
    );
    let init = p("a.rkl");
    train(&place, "b.rkl", &["--steps", "40", "--init", &init]).unwrap();
    ranklet(&["export", &p("b.rkl"), "--base", &p("base.rkl"), "-o", &p("peft")]).unwrap();
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("peft/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["target_modules"]),
        (&json!(3), &json!(4.5), &json!(["2"]))
    );
    let card = std::fs::read_to_string(place.path("peft/README.md")).unwrap();
    assert!(card.contains("| optimizer | adamw |") && card.contains("| steps | 40 |"), "{card}");
    // Stored for inference alone: refused in the device's words, and nothing is written. Its gradients are there all the same.
    let high = p("high.rkl");
    ranklet(&["convert", "adapter", &p("peft"), "--base", &p("base.rkl"), "--inference-only", "-o", &high]).unwrap();
    let e = train(&place, "c.rkl", &["--steps", "1", "--init", &high]).err().map(|e| format!("{e:#}")).unwrap();
    assert!(e.contains("it was stored for inference alone") && e.contains("--inference-only"), "{e}");
    assert!(!place.path("c.rkl").exists());
    place.tensors("in.safetensors", &[("inputs", &[1, 6], &[0.5; 6]), ("cotangent", &[1, 3], &[1.0, 0.0, -1.0])]);
    let grad = ["--base", &p("base.rkl"), "--input", &p("in.safetensors"), "--output", &p("grad.safetensors")];
    ranklet(&[&["grad", "--adapter", &high], &grad[..]].concat()).unwrap();
    // A directory of ours may be replaced, a stranger's not.
    ranklet(&["export", &p("a.rkl"), "--base", &p("base.rkl"), "-o", &p("peft")]).unwrap();
    place.write("mine/notes.txt", "keep");
    let e = refusal(&["export", &p("a.rkl"), "--base", &p("base.rkl"), "-o", &p("mine")]);
    assert!(e.contains("--force") && place.path("mine/notes.txt").exists(), "{e}");
}

#[test]
fn options_are_checked_before_anything_happens() {
    let place = setup();
    for (more, part) in [
        (&["--rank", "65"][..], "1 to 64"),
        (&["--lr", "-1"], "above 0"),
        (&["--lr", "nan"], "above 0"),
        (&["--dropout", "1"], "below 1"),
        (&["--batch", "0"], "--batch"),
        (&["--epochs", "0"], "nothing to train"),
        (&["--on", "5"], "`0`, `2`"),
        (&["--loss", "mse"], "no tensor `targets`"),
        (&["--init", "x.rkl", "--rank", "3"], "cannot be used with"),
        (&["--epochs", "1", "--steps", "1"], "cannot be used with"),
    ] {
        let e = format!("{:#}", train(&place, "x.rkl", more).unwrap_err());
        assert!(e.contains(part), "{more:?}: {e}");
        assert!(!place.path("x.rkl").exists());
    }
}

#[test]
fn plans_say_whether_and_by_how_much() {
    let place = setup();
    let base = place.str("base.rkl");
    let fits = ranklet(&["plan", "--base", &base, "--train", "adamw", "--rank", "4", "--board", "microbit"]).unwrap();
    assert!(fits.ok && fits.json["fits"] == true, "{}", fits.human);
    let (ram, arena) = (&fits.json["ram"], fits.json["ram"]["arena"].as_u64().unwrap());
    assert_eq!(ram["scratch"].as_u64().unwrap() + ram["learner"].as_u64().unwrap(), arena);
    assert!(fits.human.contains("or 96 elements of an update, of 96"), "{}", fits.human);
    Net::new(&[64, 256, 3], 8).save(&place, "big", "classification");
    ranklet(&["convert", "base", &place.str("big"), "-o", &place.str("big.rkl")]).unwrap();
    let big = ranklet(&["plan", "--base", &place.str("big.rkl"), "--train", "--board", "microbit"]).unwrap();
    assert!(!big.ok && big.human.contains("does NOT fit"), "{}", big.human);
    let short = big.json["board"]["ram_short"].as_u64().unwrap();
    assert_eq!(short, big.json["ram"]["total"].as_u64().unwrap() - 16 * 1024);
    assert!(refusal(&["plan", "--base", &base, "--board", "toaster"]).contains("`microbit`"));
}

#[test]
fn inspect_prints_pefts_line() {
    let place = Place::new();
    let zeros = vec![0.0; 512 * 512];
    place.write("base/config.json", r#"{"model_type": "mlp", "modules": ["0"], "head": "regression"}"#);
    place.tensors("base/model.safetensors", &[("0.weight", &[512, 512], &zeros)]);
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("b.rkl")]).unwrap();
    let report = ranklet(&["inspect", &place.str("b.rkl")]).unwrap();
    let line = "trainable params: 8,192 || all params: 270,336 || trainable%: 3.0303";
    assert!(report.human.contains(line), "{}", report.human);
    assert_eq!(report.json["parameters"], 262_144);
}

#[test]
fn the_other_losses() {
    let place = Place::new();
    let x = Draw::new(1).values(200 * 6, 1.0);
    for (head, width) in [("binary", 2), ("regression", 3)] {
        Net::new(&[6, 16, width], 4).save(&place, head, head);
        let t: Vec<f32> = x
            .chunks(6)
            .flat_map(|x| {
                (0..width).map(move |k| if width == 2 { f32::from(u8::from(x[k] > 0.0)) } else { x[k] * 0.5 })
            })
            .collect();
        place.tensors("train.safetensors", &[("inputs", &[200, 6], &x), ("targets", &[200, width], &t)]);
        let p = |n: &str| place.str(n);
        ranklet(&["convert", "base", &p(head), "-o", &p("base.rkl")]).unwrap();
        let r = train(&place, "a.rkl", &["--epochs", "15", "--batch", "8", "--lr", "0.01", "--alpha", "16"]).unwrap();
        let (first, last) = (r.json["first_loss"].as_f64().unwrap(), r.json["final_loss"].as_f64().unwrap());
        assert!(last < 0.4 * first, "{head}: {first} {last}");
        let (base, data, a) = (p("base.rkl"), p("train.safetensors"), p("a.rkl"));
        let report = ranklet(&["eval", "--base", &base, "--data", &data, "--adapter", &a]).unwrap();
        // Training's losses come from the core, eval's from its logits in f64: the end of one is near the other.
        let loss = report.json["loss"].as_f64().unwrap();
        assert!(loss < 1.2 * last, "{head}: {last} {loss}");
        assert_eq!(report.json["rmse"].is_null(), head == "binary");
    }
}
