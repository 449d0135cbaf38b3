//! Whether a T5 classifier learns other words: the recipe of `T5ForSequenceClassification` with r = 8, alpha = 16 on q and v, dropout 0.1,
//! prediction by argmax, at a tiny scale. The base has learned from sentences on food; sentences on tools are judged in words
//! that it has never seen.

use super::Report;
use super::train::{Recipe, fixed, float, held_out, measure_float};
use crate::convergence::sequences::{Sequences, models};
use crate::oracle::{Goal, Item, Optimizer, SequenceTrainer};
use ranklet::model::Roles;
use ranklet_cli::chart::{Chart, Line, picture};
use ranklet_cli::commands::export;
use ranklet_cli::sequences::Batch;
use ranklet_cli::text::tokenizer::Tokenizer;
use std::fmt::Write;
use std::path::Path;

const BASE: &str = "sentiment/base";
const RECIPE: Recipe = Recipe { rank: 8, alpha: 16, lr: 2e-3, dropout: 0.1, batch: 8, epochs: 30, seed: 1 };

/// Runs it. Base, adapter and its PEFT directory are left in `target/experiments/sentiment`.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn run() -> Report {
    let t = Sequences::spec_of(BASE);
    let tokenizer = Tokenizer::open(&models().join(BASE), &t).expect("a tokenizer");
    let items = |name: &str| -> Vec<Item> {
        let text = std::fs::read_to_string(models().join("sentiment").join(name)).expect("sentences");
        let item = |line: &str| {
            let (label, text) = line.split_once('\t').expect("a label, a tab, a text");
            let ids = tokenizer.encode(text).expect("tokens");
            Item { batch: Batch::text(&t, &ids, vec![]), goal: Goal::Class(label.parse().expect("0 or 1")) }
        };
        text.lines().map(item).collect()
    };
    let on = Roles::Q | Roles::V;
    let food = Sequences::new(BASE, on, [vec![], items("food.tsv")]);
    let task = Sequences::new(BASE, on, [items("tools.tsv"), items("tools_heldout.tsv")]);
    let learned = fixed(&task, &RECIPE);
    let adam = Optimizer::AdamW { lr: RECIPE.lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let mut lora = SequenceTrainer::<f32>::adapters(task.reference.convert(), &learned.start, adam);
    let values = float(&mut lora, &task, &RECIPE);

    let mut markdown = String::from(
        "| | trainable | RAM | tools, held out: loss | right | food: right |\n|---|---|---|---|---|---|\n",
    );
    let mut row = |what: &str, sizes: &str, (loss, right): (f64, f64), food: f64| {
        let (right, food) = (100.0 * right, 100.0 * food);
        let _ = writeln!(markdown, "| {what} | {sizes} | {loss:.4} | {right:.1} % | {food:.1} % |");
    };
    row("before", "0 | ", held_out(&task, None), held_out(&food, None).1);
    let sizes = format!("{} | {}", learned.parameters, learned.bytes);
    row(
        "after, in fixed point",
        &sizes,
        held_out(&task, Some(&learned.parts)),
        held_out(&food, Some(&learned.parts)).1,
    );
    row("after, in f32 without dropout", "| ", measure_float(&task, &lora), measure_float(&food, &lora).1);
    markdown += &exported(&task, &learned.parts);
    let lines = vec![
        Line::of("f32, without dropout", &values, "#f0b070"),
        Line::of("fixed point, dropout 0.1", &learned.epochs, "#104080"),
    ];
    let title = "training loss by epoch, sentences on tools".to_owned();
    Report { markdown, picture: picture(&[Chart { title, across: "epoch", lines }]) }
}

/// What was learned, as a PEFT directory; and the note that tells of it.
fn exported(task: &Sequences, parts: &ranklet_cli::image::adapter::Parts) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/experiments/sentiment");
    std::fs::create_dir_all(&folder).expect("a directory");
    let model = task.image.model().expect("a model");
    let bytes = parts.emit(model.source(), model.head().image, &serde_json::Map::new()).expect("an adapter");
    std::fs::write(folder.join("base.rkl"), task.image.bytes()).expect("a file");
    std::fs::write(folder.join("tools.rkl"), bytes).expect("a file");
    let [adapter, base, output] = ["tools.rkl", "base.rkl", "peft"].map(|name| folder.join(name));
    export::execute(&export::Args { adapter, base, device: None, steps: None, force: true, output })
        .expect("a PEFT directory");
    "\nThe adapter is exported as PEFT has it: `target/experiments/sentiment/peft`.\n".to_owned()
}
