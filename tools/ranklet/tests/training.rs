//! `train`, `eval`, `plan` and `inspect`, through the command line.

mod common;

use common::*;
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::train::Rule;
use ranklet::train::{LearnError, LossKind, Schedule, Sgd};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::dataset;
use ranklet_cli::image::{ImageFile, adapter::Parts};
use ranklet_cli::save::Out;
use ranklet_cli::training::material::Rows;
use ranklet_cli::training::{self, Recipe, Start};
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
fn divergence_is_no_success() {
    let place = setup();
    for (lr, more) in [("30", &["--batch", "8"][..]), ("1e30", &[]), ("1e300", &["--loss", "cross-entropy"])] {
        let log = place.str("log.csv");
        let args = ["--optimizer", "sgd", "--epochs", "20", "--log", &log, "--lr", lr];
        let e = format!("{:#}", train(&place, "x.rkl", &[&args[..], more].concat()).unwrap_err());
        assert!(e.contains("diverged at step") && e.contains("--lr") && e.contains("--clip"), "{lr}: {e}");
        assert!(!place.path("x.rkl").exists() && !place.path("log.csv").exists(), "{lr}");
    }
}

#[test]
fn numbers_beyond_f32_are_reported() {
    let place = setup();
    let p = |n: &str| place.str(n);
    train(&place, "a.rkl", &["--steps", "3"]).unwrap();
    // As a device may have saved it: fixed point goes on where f32 ends.
    let base = ImageFile::open(&place.path("base.rkl")).unwrap();
    let model = base.model().unwrap();
    let file = ImageFile::open(&place.path("a.rkl")).unwrap();
    let mut parts = Parts::copy(&file.adapter(&model).unwrap());
    parts.records[1].b_exponent = 200;
    place.write("big.rkl", parts.emit(model.source(), model.head().image, &serde_json::Map::new()).unwrap());
    let (base, big, data, out) = (p("base.rkl"), p("big.rkl"), p("test.safetensors"), p("out"));
    let e = refusal(&["export", &big, "--base", &base, "-o", &out]);
    assert!(e.contains("`2`: B is beyond f32 at [") && !e.contains(".ranklet-"), "{e}");
    assert!(!place.path("out").exists());
    let e = refusal(&["eval", "--base", &base, "--adapter", &big, "--data", &data]);
    assert!(e.contains("beyond f32"), "{e}");
    let report = ranklet(&["run", "--base", &base, "--adapter", &big, "--input", &data, "--output", &out]).unwrap();
    assert!(report.human.contains("outputs beyond f32"), "{}", report.human);
    assert_eq!(report.json["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_to_measure_is_no_measure() {
    let place = setup();
    digits(&place, "empty.safetensors", 0, 1);
    let e = refusal(&["eval", "--base", &place.str("base.rkl"), "--data", &place.str("empty.safetensors")]);
    assert!(e.contains("no rows"), "{e}");
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
    // Ours, until somebody puts files of their own into it; and never with what is read.
    place.write("peft/notes.txt", "keep");
    let e = refusal(&["export", &p("a.rkl"), "--base", &p("base.rkl"), "-o", &p("peft")]);
    assert!(e.contains("notes.txt") && place.path("peft/notes.txt").exists(), "{e}");
    std::fs::copy(place.path("a.rkl"), place.path("peft/a.rkl")).unwrap();
    let e = refusal(&["export", &p("peft/a.rkl"), "--base", &p("base.rkl"), "-o", &p("peft"), "--force"]);
    assert!(e.contains("holds the input") && place.path("peft/a.rkl").exists(), "{e}");
}

#[test]
fn an_adapter_that_cannot_learn_is_not_trained() {
    let place = setup();
    let p = |n: &str| place.str(n);
    train(&place, "a.rkl", &["--steps", "3", "--rank", "2"]).unwrap();
    let base = ImageFile::open(&place.path("base.rkl")).unwrap();
    let model = base.model().unwrap();
    let file = ImageFile::open(&place.path("a.rkl")).unwrap();
    let whole = Parts::copy(&file.adapter(&model).unwrap());
    let (mut off, mut empty) = (whole.clone(), whole);
    off.scale(0.0).unwrap();
    empty.records.clear();
    let data = Checkpoint::open_file(&place.path("train.safetensors")).unwrap();
    let inputs = dataset::inputs(&data, 6).unwrap();
    let targets = dataset::targets(&data, LossKind::CrossEntropy, inputs.rows(), 3).unwrap();
    let rows = Rows { inputs: &inputs, targets: &targets, outputs: 3 };
    for (name, parts, pairs) in [("off.rkl", off, 2), ("empty.rkl", empty, 0)] {
        place.write(name, parts.emit(model.source(), model.head().image, &serde_json::Map::new()).unwrap());
        let e = format!("{:#}", train(&place, "x.rkl", &["--init", &p(name)]).unwrap_err());
        assert!(e.contains(name) && e.contains("nothing to train"), "{e}");
        assert!(!place.path("x.rkl").exists());
        // The core refuses it too.
        let recipe = Recipe {
            optimizer: Rule::Sgd(Sgd::DEFAULT),
            schedule: Schedule::Constant,
            batch: 1,
            steps: 1,
            stop: 1,
            clip: None,
            dropout: Real::ZERO,
            seed: Seed(0),
            loss: LossKind::CrossEntropy,
            shuffle: false,
            only_b: false,
        };
        let e = training::train(&model, Start::Adapter(&parts), &rows, &recipe, None, |_| ()).unwrap_err();
        assert_eq!(e.downcast::<LearnError>().unwrap(), LearnError::NothingToTrain);
        // But its gradients are known: zeros.
        let count = 3 * inputs.rows();
        let gradients = training::gradients(&model, &parts, &inputs, &vec![1.0; count], || ()).unwrap();
        assert_eq!(gradients.len(), pairs);
        assert!(gradients.iter().all(|g| g.a.iter().chain(&g.b).all(|&v| v == 0.0) && g.b.len() % 2 == 0));
    }
}

#[test]
fn a_batch_beyond_the_data_is_all_of_it() {
    let place = setup();
    let report = train(&place, "a.rkl", &["--batch", "4294967295", "--steps", "2"]).unwrap();
    assert_eq!((&report.json["steps"], &report.json["samples"]), (&json!(2), &json!(600)));
}

#[test]
fn options_are_checked_before_anything_happens() {
    let place = setup();
    for (more, part) in [
        (&["--rank", "65"][..], "1 to 64"),
        (&["--lr", "-1"], "above 0"),
        (&["--lr", "nan"], "above 0"),
        (&["--alpha", "1e-300"], "--alpha"),
        (&["--alpha", "1e300"], "--alpha 1e300: expected"),
        (&["--dropout", "1"], "below 1"),
        (&["--batch", "0"], "--batch"),
        (&["--epochs", "0"], "nothing to train"),
        (&["--on", "5"], "`0`, `2`"),
        (&["--steps", "4294967295", "--batch", "4294967295"], "at most"),
        (&["--epochs", "4294967295"], "at most"),
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
    for option in ["--firmware", "--stack"] {
        let e = refusal(&["plan", "--base", &base, "--board", "microbit", option, &u64::MAX.to_string()]);
        assert!(e.contains(option) && e.contains("counted"), "{e}");
    }
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

/// A training that goes on from a checkpoint keeps what was best before it, at --output or in the checkpoint, where nothing better comes.
#[test]
fn what_was_best_before_stays() {
    let place = setup();
    let (test, checkpoint) = (place.str("test.safetensors"), place.str("one.ckpt"));
    let looks = ["--eval", &test, "--every", "5", "--patience", "3"];
    train(&place, "new.rkl", &[&looks[..], &["--lr", "0.01", "--steps", "40", "--checkpoint", &checkpoint]].concat())
        .unwrap();
    let before = std::fs::read(place.path("new.rkl")).unwrap();
    let planes = |name: &str| {
        let base = ImageFile::open(&place.path("base.rkl")).unwrap();
        let file = ImageFile::open(&place.path(name)).unwrap();
        let adapter = file.adapter(&base.model().unwrap()).unwrap();
        (adapter.high().to_vec(), adapter.low().to_vec())
    };
    let best = planes("new.rkl");
    // Far too fast: everything that comes is worse.
    let ruin = ["--resume", &checkpoint, "--lr", "3", "--steps", "80"];
    for out in ["new.rkl", "other.rkl"] {
        let report = train(&place, out, &[&looks[..], &ruin[..]].concat()).unwrap();
        assert!(report.json["stopped_early"] == true && planes(out) == best, "{out}");
        assert_eq!(report.json["kept_step"], 40);
    }
    // Something else that lies there is not what was best: it is replaced, as ever.
    train(&place, "else.rkl", &["--rank", "16", "--lr", "0.01", "--steps", "300"]).unwrap();
    let good = ["--resume", &checkpoint, "--lr", "0.01", "--steps", "60"];
    let report = train(&place, "else.rkl", &[&looks[..], &good[..]].concat()).unwrap();
    assert!(report.json["kept_step"].as_u64().unwrap() <= 60 && planes("else.rkl").0.len() == best.0.len());
    // The same planes; how far training has come stands beside them.
    assert_ne!(std::fs::read(place.path("new.rkl")).unwrap(), before, "its training goes on in its metadata");
}
