//! The project's own language model, `models/story`, as the converter makes it: as good on text that it has not learned
//! from as in f32, small enough for a microcontroller, and two adapters of PEFT that take turns on it.

mod common;

use common::{Place, ranklet};
use ranklet::model::{Active, Model};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::ImageFile;
use ranklet_cli::sequences::{self, Batch};
use ranklet_cli::text::Tokenizer;
use std::path::{Path, PathBuf};

/// Relative difference of the loss on held-out text, i8 and i16 alike: what the design promises of 8-bit weights under
/// 16-bit activations, with room for a model that is another after every training.
const LOSS: f64 = 1e-3;

/// Bytes of the image with i8 weights, at most.
const SIZE: usize = 300_000;

/// Relative L2 of the logits, and of what adapters change of them: the contract, as for the families.
const TOLERANCES: [(&str, f64, f64); 2] = [("i16", 1e-3, 5e-3), ("i8", 5e-2, 1e-1)];

fn story() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/story")
}

/// The base as an image, `base.rkl`.
fn converted(weights: &str) -> Place {
    let place = Place::new();
    let base = story().join("base").display().to_string();
    ranklet(&["convert", "base", &base, "--weights", weights, "-o", &place.str("base.rkl")]).unwrap();
    place
}

fn open(place: &Place, name: &str) -> ImageFile {
    ImageFile::open(&place.path(name)).unwrap()
}

/// An adapter of `models/story/adapters` as an image beside the base.
fn adapter(place: &Place, name: &str) -> ImageFile {
    let (from, to) = (story().join("adapters").join(name).display().to_string(), place.str(name));
    ranklet(&["convert", "adapter", &from, "--base", &place.str("base.rkl"), "-o", &to]).unwrap();
    open(place, name)
}

/// The cross-entropy of a sequence's tokens but the first, summed, in nats.
fn loss(model: &Model<'_>, tokens: &[u32]) -> f64 {
    let t = model.spec().transformer().unwrap();
    let logits = sequences::run(model, t, &[], &Batch::text(t, tokens, vec![]), || ()).unwrap();
    let rows = logits.data.chunks_exact(model.spec().outputs);
    rows.zip(&tokens[1..])
        .map(|(row, &next)| {
            let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
            sum.ln() - f64::from(row[next as usize])
        })
        .sum()
}

#[test]
fn the_loss_on_held_out_text_is_that_of_f32() {
    let heldout = Checkpoint::open_file(&story().join("heldout.safetensors")).unwrap();
    let tokens: Vec<u32> = heldout.i64s("tokens").unwrap().data.iter().map(|&t| u32::try_from(t).unwrap()).collect();
    let boundaries: Vec<usize> = heldout.i64s("boundaries").unwrap().data.iter().map(|&b| b as usize).collect();
    let each = heldout.f32s("loss").unwrap().data;
    let mean = f64::from(heldout.f32s("mean_loss").unwrap().data[0]);
    assert_eq!((boundaries.len(), boundaries.last()), (each.len() + 1, Some(&tokens.len())));
    assert!(tokens.len() > 7000, "{} tokens are too few to tell", tokens.len());
    for weights in ["i8", "i16"] {
        let place = converted(weights);
        let file = open(&place, "base.rkl");
        let model = file.model().unwrap();
        let (mut sum, mut count, mut worst) = (0.0, 0, 0.0_f64);
        for (ends, &expected) in boundaries.windows(2).zip(&each) {
            let sequence = &tokens[ends[0]..ends[1]];
            let (found, expected) = (loss(&model, sequence), f64::from(expected));
            worst = worst.max((found / (sequence.len() - 1) as f64 / expected - 1.0).abs());
            sum += found;
            count += sequence.len() - 1;
        }
        let found = sum / count as f64;
        let difference = found / mean - 1.0;
        println!(
            "{weights:3} {found:.5} nats a token, f32 {mean:.5}: {:+.4} %; the worst sequence {:.3} %",
            100.0 * difference,
            100.0 * worst
        );
        assert!(difference.abs() <= LOSS, "{weights}: {found} against {mean}");
    }
}

#[test]
fn the_image_is_small_and_holds_its_vocabulary() {
    let file = open(&converted("i8"), "base.rkl");
    println!("i8 {} bytes", file.bytes().len());
    assert!(file.bytes().len() <= SIZE, "{} bytes", file.bytes().len());
    let model = file.model().unwrap();
    let t = model.spec().transformer().unwrap();
    assert_eq!((t.vocab, t.positions, model.spec().outputs), (512, 512, 512));
    assert!(model.vocabulary().is_some());
}

/// What a device learns from is what the tokenizer makes of the text beside it.
#[test]
fn the_tokens_to_learn_from_are_those_of_their_texts() {
    let place = converted("i8");
    let file = open(&place, "base.rkl");
    let model = file.model().unwrap();
    let tokenizer = Tokenizer::open(&story().join("base"), model.spec().transformer().unwrap()).unwrap();
    for (part, least, most) in [("train", 4096, 8192), ("heldout", 1024, 2048)] {
        let path = |extension: &str| story().join("style").join(format!("{part}.{extension}"));
        let bytes = std::fs::read(path("u16")).unwrap();
        let (words, rest) = bytes.as_chunks::<2>();
        let tokens: Vec<u32> = words.iter().map(|&word| u16::from_le_bytes(word).into()).collect();
        assert!(rest.is_empty() && (least..=most).contains(&tokens.len()), "{part}: {} tokens", tokens.len());
        assert_eq!(tokens, tokenizer.encode(&std::fs::read_to_string(path("txt")).unwrap()).unwrap(), "{part}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Relative L2.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    norm(&minus(found, expected)) / norm(expected)
}

/// Both adapters are open the whole time; every call says which of them count. What came before leaves no trace.
#[test]
fn adapters_take_turns_as_if_they_were_merged() {
    let golden = Checkpoint::open_file(&story().join("golden.safetensors")).unwrap();
    let expected = |name: &str| wide(&golden.f32s(&format!("output_{name}")).unwrap().data);
    let mut failures = vec![];
    for (weights, limit, effect_limit) in TOLERANCES {
        let place = converted(weights);
        let (base, austen, psalm) = (open(&place, "base.rkl"), adapter(&place, "austen"), adapter(&place, "psalm"));
        let model = base.model().unwrap();
        let t = model.spec().transformer().unwrap();
        let (austen, psalm) = (austen.adapter(&model).unwrap(), psalm.adapter(&model).unwrap());
        let batch = Batch::read(&golden, &model, t).unwrap();
        let run = |active: &[Active<'_>]| wide(&sequences::run(&model, t, active, &batch, || ()).unwrap().data);
        let off = run(&[]);
        let turns: [(&str, &[Active<'_>]); 5] = [
            ("austen", &[austen.view()]),
            ("psalm", &[psalm.view()]),
            ("both", &[austen.view(), psalm.view()]),
            ("base", &[]),
            ("austen", &[austen.view()]),
        ];
        for (name, active) in turns {
            let on = run(active);
            let mut figures = vec![("logits", error(&on, &expected(name)), limit)];
            if active.is_empty() {
                assert_eq!(on, off, "{weights}: off after others is not off");
            } else {
                let effect = error(&minus(&on, &off), &minus(&expected(name), &expected("base")));
                figures.push(("effect", effect, effect_limit));
            }
            for (what, error, limit) in figures {
                println!("{weights:3} {name:6} {what} {error:.2e}");
                if error.is_nan() || error > limit {
                    failures.push(format!("{weights}, {name}, {what}: {error:.2e} is above {limit:.0e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
