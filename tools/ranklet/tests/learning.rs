//! `train`, `eval` and `grad` of transformers, through the command line.

mod common;

use common::{Place, ranklet, refusal};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::ImageFile;
use ranklet_cli::save::{Out, safetensors};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn model(name: &str) -> String {
    models().join(name).display().to_string()
}

fn base(place: &Place, checkpoint: &str) -> String {
    let image = place.str("base.rkl");
    ranklet(&["convert", "base", &model(checkpoint), "-o", &image]).unwrap();
    image
}

/// `grad` is the gradient that the library computes, which `gradients.rs` holds against PyTorch: here its worst is looked at again.
#[test]
fn gradients_come_by_command() {
    for case in ["t5-classifier", "llama", "bert-tokens", "encoder"] {
        let place = Place::new();
        let at = |name: &str| model(&format!("cases/{case}/{name}"));
        let (image, adapter, out) = (place.str("base.rkl"), place.str("a.rkl"), place.str("g.safetensors"));
        ranklet(&["convert", "base", &at("base"), "--weights", "i16", "-o", &image]).unwrap();
        ranklet(&["convert", "adapter", &at("adapter"), "--base", &image, "-o", &adapter]).unwrap();
        let golden = at("golden.safetensors");
        ranklet(&["grad", "--base", &image, "--adapter", &adapter, "--input", &golden, "--output", &out]).unwrap();
        let (found, golden) =
            (Checkpoint::open_file(Path::new(&out)).unwrap(), Checkpoint::open_file(Path::new(&golden)).unwrap());
        let mut compared = 0;
        for name in golden.names().filter(|n| n.contains("lora_") && !n.contains("base_layer.out_proj")) {
            let (f, e) = (found.f32s(name).unwrap(), golden.f32s(name).unwrap());
            assert_eq!(f.shape, e.shape, "{name}");
            let wrong: f64 = f.data.iter().zip(&e.data).map(|(f, e)| f64::from(f - e).powi(2)).sum();
            let all: f64 = e.data.iter().map(|&e| f64::from(e).powi(2)).sum();
            assert!((wrong / all).sqrt() < 2e-2, "{case}: {name}");
            compared += 1;
        }
        assert!(compared > 1, "{case}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// A classifier of texts learns other words, with looks at held-out ones; the same seed gives the same bytes.
#[test]
fn a_classifier_learns_from_text() {
    let place = Place::new();
    let image = base(&place, "sentiment/base");
    let (text, held_out, tokenizer) =
        (model("sentiment/tools.tsv"), model("sentiment/tools_heldout.tsv"), model("sentiment/base"));
    let at = |name: &str| place.str(name);
    let evaluate = |adapter: &[&str]| {
        let args = ["eval", "--base", &image, "--text", &held_out, "--tokenizer", &tokenizer];
        ranklet(&[&args[..], adapter].concat()).unwrap().json
    };
    let before = number(&evaluate(&[])["accuracy"]);
    let train = |out: &str, log: &str, plot: &str| {
        ranklet(&[
            "train",
            "--base",
            &image,
            "--text",
            &text,
            "--tokenizer",
            &tokenizer,
            "--on",
            "q,v",
            "--rank",
            "8",
            "--alpha",
            "16",
            "--dropout",
            "0.1",
            "--batch",
            "8",
            "--epochs",
            "12",
            "--lr",
            "0.003",
            "--seed",
            "5",
            "--eval",
            &held_out,
            "--patience",
            "3",
            "--log",
            log,
            "--plot",
            plot,
            "-o",
            out,
        ])
        .unwrap()
    };
    let report = train(&at("one.rkl"), &at("log.csv"), &at("plot.svg"));
    let after = evaluate(&["--adapter", &at("one.rkl")]);
    assert!(before < 60.0 && number(&after["accuracy"]) > before + 15.0, "{before} became {after}");
    // The adapter is the best that was seen, and looks in training are what `eval` finds.
    let looks = report.json["evaluations"].as_array().unwrap();
    let best = looks.iter().map(|l| number(&l["loss"])).fold(f64::INFINITY, f64::min);
    assert!((number(&after["loss"]) - best).abs() < 1e-9, "{after}, {best}");
    let csv = std::fs::read_to_string(place.path("log.csv")).unwrap();
    assert!(csv.starts_with("step,epoch,samples,loss,lr,eval_loss,eval_accuracy\n"));
    assert_eq!(csv.lines().filter(|l| !l.ends_with(",,")).count(), 1 + looks.len());
    let plot = std::fs::read_to_string(place.path("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("loss on --eval") && !plot.contains("NaN"));
    train(&at("two.rkl"), &at("log.json"), &at("again.svg"));
    assert_eq!(std::fs::read(at("one.rkl")).unwrap(), std::fs::read(at("two.rkl")).unwrap());
    let log: Value = serde_json::from_slice(&std::fs::read(at("log.json")).unwrap()).unwrap();
    assert_eq!(log["steps"].as_array().unwrap().len(), csv.lines().count() - 1);
    assert_eq!(log["recipe"]["optimizer"], "adamw");
    // By name, as the base calls its classes.
    place.write("named.tsv", "good\tthe saw is sharp\nbad\tthe saw is dim\n");
    let args = ["eval", "--base", &image, "--text", &at("named.tsv"), "--tokenizer", &tokenizer];
    assert_eq!(ranklet(&args).unwrap().json["answers"], 2);
}

/// A language model takes on a style; packing leaves no piece short.
#[test]
fn a_language_model_learns_from_text() {
    let place = Place::new();
    let image = base(&place, "story/base");
    let (text, held_out, tokenizer) =
        (model("story/style/train.txt"), model("story/style/heldout.txt"), model("story/base"));
    let out = place.str("style.rkl");
    let report = ranklet(&[
        "train",
        "--base",
        &image,
        "--text",
        &text,
        "--tokenizer",
        &tokenizer,
        "--length",
        "32",
        "--on",
        "q,v",
        "--rank",
        "4",
        "--steps",
        "12",
        "--batch",
        "4",
        "--lr",
        "0.01",
        "--clip",
        "1",
        "-o",
        &out,
    ])
    .unwrap();
    assert_eq!(report.json["samples"], 48);
    let perplexity = |adapter: &[&str]| {
        let args = ["eval", "--base", &image, "--text", &held_out, "--tokenizer", &tokenizer, "--length", "32"];
        number(&ranklet(&[&args[..], adapter].concat()).unwrap().json["perplexity"])
    };
    let (before, after) = (perplexity(&[]), perplexity(&["--adapter", &out]));
    assert!(after < 0.9 * before, "{before} became {after}");
}

/// Tokens by tokens, with some that tell nothing.
#[test]
fn tokens_are_learned_where_they_are_told() {
    let place = Place::new();
    let image = base(&place, "cases/bert-tokens/base");
    let ids: Vec<i64> = (0..4 * 6).map(|i| 3 + i * 7 % 20).collect();
    let labels: Vec<i64> = ids.iter().enumerate().map(|(i, id)| if i % 3 == 0 { -100 } else { id % 3 }).collect();
    let write = |name: &str, labels: &[i64]| {
        let tensors = [("input_ids", &ids[..]), ("labels", labels)];
        let tensors = tensors.map(|(n, d)| (n.to_owned(), Out::i64s(&[4, 6], d)));
        place.write(name, safetensors(tensors).unwrap());
        place.str(name)
    };
    let data = write("data.safetensors", &labels);
    let out = place.str("new.rkl");
    let report = ranklet(&[
        "train", "--base", &image, "--data", &data, "--epochs", "20", "--lr", "0.01", "--batch", "2", "-o", &out,
    ])
    .unwrap();
    let (first, last) = (number(&report.json["first_loss"]), number(&report.json["final_loss"]));
    assert!(last < 0.6 * first, "{first} became {last}");
    let evaluated = ranklet(&["eval", "--base", &image, "--adapter", &out, "--data", &data]).unwrap();
    assert_eq!(evaluated.json["answers"], 16);
    assert!(number(&evaluated.json["loss"]) < first);

    // What cannot be learned from, is refused by the place where it is.
    let none: Vec<i64> = labels.iter().enumerate().map(|(i, &l)| if i / 6 == 2 { -100 } else { l }).collect();
    let wrong: Vec<i64> = labels.iter().enumerate().map(|(i, &l)| if i == 8 { 77 } else { l }).collect();
    for (labels, part) in [(none, "row 2 tells nothing"), (wrong, "label 77 at [1, 2]")] {
        let data = write("bad.safetensors", &labels);
        let e = refusal(&["train", "--base", &image, "--data", &data, "-o", &place.str("x.rkl")]);
        assert!(e.contains(part) && !place.path("x.rkl").exists(), "{e}");
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let place = Place::new();
    let image = base(&place, "sentiment/base");
    let (text, tokenizer, out) = (model("sentiment/tools.tsv"), model("sentiment/base"), place.str("x.rkl"));
    place.write("nolabel.tsv", "1\tgood saw\nno tab here\n");
    place.write("wronglabel.tsv", "1\tgood saw\nmaybe\tsome saw\n");
    place.write("empty.tsv", "\n\n");
    let (no_label, wrong, empty) = (place.str("nolabel.tsv"), place.str("wronglabel.tsv"), place.str("empty.tsv"));
    let train =
        |more: &[&str]| refusal(&[&["train", "--base", &image, "--tokenizer", &tokenizer, "-o", &out], more].concat());
    for (more, part) in [
        (&["--text", &no_label][..], "line 2: expected a label, a tab"),
        (&["--text", &wrong], "line 2: label \"maybe\"; expected 0 to 1"),
        (&["--text", &empty], "no texts"),
        (&["--text", &text, "--on", "nothing"], "--on nothing: expected `all`"),
        (&["--text", &text, "--eval", &empty], "no texts"),
        (&["--text", &text, "--eval", &text, "--patience", "0"], "--patience 0"),
        (&["--text", &text, "--every", "3"], "--eval"),
        (&["--text", &text, "--loss", "mse"], "cross-entropy"),
        (&["--text", &text, "--log", &out], "the same file"),
        (&["--text", &text, "--lr", "1e30", "--epochs", "3"], "diverged"),
    ] {
        let e = train(more);
        assert!(e.contains(part), "{more:?}: {e}");
        assert!(!place.path("x.rkl").exists());
    }
    // A DoRA is used and not trained.
    let llama = place.str("llama.rkl");
    let dora = place.str("dora.rkl");
    ranklet(&["convert", "base", &model("cases/llama/base"), "-o", &llama]).unwrap();
    ranklet(&["convert", "adapter", &model("cases/adapters/dora/adapter"), "--base", &llama, "-o", &dora]).unwrap();
    let golden = model("cases/llama/golden.safetensors");
    let e = refusal(&["train", "--base", &llama, "--data", &golden, "--init", &dora, "-o", &out]);
    assert!(e.contains("DoRA"), "{e}");
    // Longer than the base takes.
    let ids = safetensors([
        ("input_ids".to_owned(), Out::i64s(&[1, 600], &[3; 600])),
        ("labels".to_owned(), Out::i64s(&[1], &[1])),
    ]);
    place.write("long.safetensors", ids.unwrap());
    let long = place.str("long.safetensors");
    let e = refusal(&["train", "--base", &image, "--data", &long, "-o", &out]);
    assert!(e.contains("600 tokens; the base takes 1 to 512"), "{e}");
}

/// Stopped and gone on: the same A and B, in the middle of an epoch too; with a schedule, dropout and short last batches.
#[test]
fn training_that_stops_goes_on() {
    let place = Place::new();
    let image = base(&place, "sentiment/base");
    let (text, tokenizer) = (model("sentiment/tools.tsv"), model("sentiment/base"));
    let train = |out: &str, more: &[&str]| {
        let out = place.str(out);
        let args = [
            "train",
            "--base",
            &image,
            "--text",
            &text,
            "--tokenizer",
            &tokenizer,
            "--batch",
            "7",
            "--steps",
            "60",
            "--lr",
            "0.003",
            "--dropout",
            "0.1",
            "--schedule",
            "linear",
            "--warmup",
            "5",
            "--seed",
            "5",
            "-o",
            &out,
        ];
        ranklet(&[&args[..], more].concat())
    };
    let planes = |name: &str| {
        let base = ImageFile::open(Path::new(&image)).unwrap();
        let file = ImageFile::open(&place.path(name)).unwrap();
        let adapter = file.adapter(&base.model().unwrap()).unwrap();
        (adapter.high().to_vec(), adapter.low().to_vec())
    };
    let fresh = ["--on", "q,v", "--rank", "4"];
    train("whole.rkl", &fresh).unwrap();
    // B alone: another adapter, whose A is the one that was drawn.
    let mut start = vec![];
    for steps in ["1", "60"] {
        let report = train("b.rkl", &[&fresh[..], &["--only-b", "--stop", steps]].concat()).unwrap();
        start.push((planes("b.rkl"), report.json["final_loss"].as_f64().unwrap()));
    }
    assert!(start[1].1 < start[0].1 && start[0].0 != start[1].0);
    let (one, two) = (place.str("one.ckpt"), place.str("two.ckpt"));
    train("half.rkl", &[&fresh[..], &["--stop", "17", "--checkpoint", &one]].concat()).unwrap();
    train("more.rkl", &["--resume", &one, "--stop", "46", "--checkpoint", &two]).unwrap();
    let last = train("end.rkl", &["--resume", &two]).unwrap();
    assert_eq!(last.json["steps"], 14);
    assert_ne!(planes("half.rkl"), planes("whole.rkl"));
    assert!(planes("end.rkl") == planes("whole.rkl"));

    let refused = |more: &[&str], part: &str| {
        let e = format!("{:#}", train("x.rkl", more).unwrap_err());
        assert!(e.contains(part) && !place.path("x.rkl").exists(), "{e}");
    };
    refused(&["--resume", &two, "--stop", "30"], "has made 46 steps, and 30 were asked for");
    refused(&["--resume", &two, "--only-b"], "B alone");
    // One that a device has left in the middle of a batch.
    {
        use ranklet::model::{Model, Plan, Roles, Sequence, Train, Workspace};
        use ranklet::train::{AdamW, SequenceTarget, Target, Trainer};
        let file = ImageFile::open(Path::new(&image)).unwrap();
        let model: Model<'_> = file.model().unwrap();
        let plan = Plan::new(model.bytes()).unwrap().train(Train::adamw().rank(4).on(Roles::Q.or(Roles::V)));
        let mut memory = vec![0; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).unwrap();
        let mut learner = learn.fresh(&model, ranklet::Seed(1)).unwrap();
        let mut trainer = Trainer::new(&model, &mut learner, AdamW::DEFAULT).unwrap().accumulate(3);
        let (text, target) = (Sequence::tokens(&[1, 2, 3]), SequenceTarget::At(2, Target::Class(1)));
        trainer.pair(text, text, target, &mut scratch).unwrap();
        trainer.step(&mut scratch).unwrap();
        let mut out = ranklet_cli::image::Sink(vec![]);
        learner.checkpoint(&mut out).unwrap();
        place.write("pending.ckpt", &out.0);
    }
    refused(&["--resume", &place.str("pending.ckpt")], "in the middle of a batch, behind 1 samples");
    refused(&["--resume", &place.str("end.rkl")], "not a checkpoint");
    let whole = std::fs::read(&two).unwrap();
    place.write("cut.ckpt", &whole[..whole.len() - 9]);
    refused(&["--resume", &place.str("cut.ckpt")], "truncated");
    refused(&["--resume", &two, "--rank", "4"], "--rank");
}
