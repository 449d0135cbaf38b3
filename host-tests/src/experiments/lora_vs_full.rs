//! The classical comparison: sequences of 50 vectors of 10, two classes, one block of 2 heads; batches of 32, Adam at 1e-3, five
//! epochs, binary cross-entropy on a sigmoid. LoRA in fixed point, LoRA in f32, and everything in f32.
//!
//! Classically the labels are random: then there is nothing to learn but the training set by heart, and what falls is no
//! evidence of anything. So the same is done with labels that the sequences tell.

use super::Report;
use super::train::{Recipe, fixed, float, held_out, measure_float};
use crate::convergence::sequences::Sequences;
use crate::draw::Draw;
use crate::oracle::{Goal, Item, Optimizer, SequenceTrainer};
use ranklet::model::Roles;
use ranklet_cli::chart::{Chart, Line, picture};
use ranklet_cli::save::{Out, safetensors};
use ranklet_cli::sequences::Batch;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const WIDTH: usize = 10;
const HEADS: usize = 2;
const TOKENS: usize = 50;
/// Sequences to train on, and held out.
const COUNTS: [usize; 2] = [1024, 256];
const RECIPE: Recipe = Recipe { rank: 4, alpha: 8, lr: 1e-3, dropout: 0.0, batch: 32, epochs: 5, seed: 1 };
const COLORS: [&str; 3] = ["#f0b070", "#104080", "#909090"];

/// Runs it.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn run() -> Report {
    let mut markdown = String::from(
        "| labels | what learns | trainable | RAM | loss of epoch 1 | 2 | 3 | 4 | 5 | held out: loss | right |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut charts = vec![];
    for told in [false, true] {
        let labels = if told { "told by the sequence" } else { "random" };
        let task = Sequences::new(base().to_str().expect("a path"), Roles::QKV | Roles::HEAD, items(told));
        let learned = fixed(&task, &RECIPE);
        let adam = Optimizer::AdamW { lr: RECIPE.lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
        let mut lora = SequenceTrainer::<f32>::adapters(task.reference.convert(), &learned.start, adam);
        let mut full = SequenceTrainer::<f32>::whole(task.reference.convert(), adam);
        let epochs = [float(&mut lora, &task, &RECIPE), learned.epochs.clone(), float(&mut full, &task, &RECIPE)];
        let ends = [measure_float(&task, &lora), held_out(&task, Some(&learned.parts)), measure_float(&task, &full)];
        let floats = |trainer: &mut SequenceTrainer<f32>| {
            let activations = trainer.net.tape(&task.train[0].batch.row(0), true, &mut |_| ()).0.values();
            let parameters = trainer.parameters();
            (parameters, 4 * (4 * parameters + 2 * activations))
        };
        let sizes = [floats(&mut lora), (learned.parameters, learned.bytes), floats(&mut full)];
        let names = ["LoRA, f32", "LoRA, fixed point", "everything, f32"];
        for n in [1, 0, 2] {
            let losses = epochs[n].iter().map(|l| format!("{l:.4}")).collect::<Vec<_>>().join(" | ");
            let ((parameters, bytes), (loss, right)) = (sizes[n], ends[n]);
            let right = 100.0 * right;
            let _ = writeln!(
                markdown,
                "| {labels} | {} | {parameters} | {bytes} | {losses} | {loss:.4} | {right:.1} % |",
                names[n]
            );
        }
        let line = |n: usize| Line::of(names[n].to_owned(), &epochs[n], COLORS[n]);
        let title = format!("mean training loss by epoch, labels {labels}");
        charts.push(Chart { title, across: "epoch", lines: (0..3).map(line).collect() });
    }
    Report { markdown, picture: picture(&charts) }
}

/// Sequences, and a label each: random, or whether they lean to one side of a plane.
fn items(told: bool) -> [Vec<Item>; 2] {
    let mut draw = Draw::new(11);
    let plane: Vec<f32> = (0..WIDTH).map(|_| draw.normal() as f32).collect();
    let mut item = || {
        // Twelve fraction bits: the same value on both sides.
        let mut value = || ((draw.normal() * 4096.0).round() / 4096.0) as f32;
        let features: Vec<f32> = (0..TOKENS * WIDTH).map(|_| value()).collect();
        let lean: f32 = features.chunks_exact(WIDTH).flat_map(|x| x.iter().zip(&plane).map(|(x, p)| x * p)).sum();
        let label = if told { lean > 0.0 } else { draw.below(2) == 1 };
        Item { batch: Batch::features(features, TOKENS), goal: Goal::Labels(vec![label]) }
    };
    COUNTS.map(|count| (0..count).map(|_| item()).collect())
}

/// The base: one block as PyTorch makes it, with random weights, in `target/experiments`.
fn base() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/experiments/lora_vs_full");
    std::fs::create_dir_all(&folder).expect("a directory");
    let mut draw = Draw::new(12);
    let mut uniform = |n: usize, bound: f64| (0..n).map(|_| (bound * draw.uniform()) as f32).collect::<Vec<f32>>();
    let (d, h) = (WIDTH, 4 * WIDTH);
    let root = |n: usize| 1.0 / (n as f64).sqrt();
    let mut tensors = vec![];
    let mut add =
        |name: &str, shape: &[usize], data: Vec<f32>| tensors.push((name.to_owned(), Out::f32s(shape, &data)));
    add("layers.0.self_attn.in_proj_weight", &[3 * d, d], uniform(3 * d * d, (6.0 / (4 * d) as f64).sqrt()));
    add("layers.0.self_attn.in_proj_bias", &[3 * d], vec![0.0; 3 * d]);
    add("layers.0.self_attn.out_proj.weight", &[d, d], uniform(d * d, root(d)));
    add("layers.0.self_attn.out_proj.bias", &[d], vec![0.0; d]);
    add("layers.0.linear1.weight", &[h, d], uniform(h * d, root(d)));
    add("layers.0.linear1.bias", &[h], uniform(h, root(d)));
    add("layers.0.linear2.weight", &[d, h], uniform(d * h, root(h)));
    add("layers.0.linear2.bias", &[d], uniform(d, root(h)));
    for norm in ["norm1", "norm2"] {
        add(&format!("layers.0.{norm}.weight"), &[d], vec![1.0; d]);
        add(&format!("layers.0.{norm}.bias"), &[d], vec![0.0; d]);
    }
    add("classifier.weight", &[1, d], uniform(d, root(d)));
    add("classifier.bias", &[1], uniform(1, root(d)));
    let config = json!({
        "model_type": "transformer_encoder", "d_model": d, "nhead": HEADS, "num_layers": 1, "dim_feedforward": h,
        "activation": "relu", "norm_first": false, "layer_norm_eps": 1e-5, "pool": "mean", "classifier": "classifier",
        "head": "binary",
    });
    std::fs::write(folder.join("model.safetensors"), safetensors(tensors).expect("tensors")).expect("a file");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    folder
}
