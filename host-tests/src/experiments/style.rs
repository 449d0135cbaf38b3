//! Whether a language model takes on a style: the Llama of `models/story`, which has read the Bible, learns from 7,584 tokens of
//! Jane Austen (the beginning of Persuasion, 15 KB of text), as a device does, 32 tokens at a time.

use super::Report;
use super::train::{Recipe, fixed, float, held_out, measure_float};
use crate::convergence::sequences::Sequences;
use crate::oracle::{Optimizer, SequenceTrainer};
use ranklet::fixed::hash::Seed;
use ranklet::layer::sample::Sampler;
use ranklet::model::{Active, Model, Plan, Roles, Sequence, Workspace};
use ranklet::q;
use ranklet_cli::chart::{Chart, Line, picture};
use ranklet_cli::image::{ImageFile, adapter::Parts};
use std::fmt::Write;

const TOKENS: usize = 32;
/// "It is a truth".
const BEGINNING: [u32; 9] = [0, 42, 85, 342, 261, 317, 83, 86, 258];
/// Tokens of a sample, its beginning included.
const LENGTH: usize = 112;
const SAMPLER: Sampler = Sampler { temperature: q!(0.7), min_p: q!(0.05), seed: Seed(4) };
const RECIPE: Recipe = Recipe { rank: 4, alpha: 8, lr: 2e-3, dropout: 0.0, batch: 8, epochs: 4, seed: 1 };

/// Runs it.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn run() -> Report {
    let mut task = Sequences::style(TOKENS);
    let mut markdown = String::from(
        "| what learns | trainable | RAM | held out: loss | perplexity | the same in f32: perplexity |\n|---|---|---|---|---|---|\n",
    );
    let before = held_out(&task, None).0;
    let _ = writeln!(markdown, "| nothing | 0 | | {before:.4} | {:.2} | |", before.exp());
    let adam = Optimizer::AdamW { lr: RECIPE.lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let (mut lines, mut best) = (vec![], None);
    for (name, on, rank, color) in
        [("queries and values", Roles::Q | Roles::V, 4, "#104080"), ("all linear layers", Roles::ALL, 8, "#208040")]
    {
        task.on = on;
        let recipe = Recipe { rank, alpha: 2 * rank, ..RECIPE };
        let learned = fixed(&task, &recipe);
        let after = held_out(&task, Some(&learned.parts)).0;
        let mut lora = SequenceTrainer::<f32>::adapters(task.reference.convert(), &learned.start, adam);
        let values = float(&mut lora, &task, &recipe);
        let float = measure_float(&task, &lora).0;
        let (parameters, bytes) = (learned.parameters, learned.bytes);
        let _ = writeln!(
            markdown,
            "| pairs of rank {rank} on {name} | {parameters} | {bytes} | {after:.4} | {:.2} | {:.2} |",
            after.exp(),
            float.exp()
        );
        lines.push(Line::of(format!("{name}, f32"), &values, "#f0b070"));
        lines.push(Line::of(format!("{name}, fixed point"), &learned.epochs, color));
        best = Some(learned.parts);
    }
    let _ = writeln!(
        markdown,
        "\nWhat it writes, from the same beginning and the same seed, before and after (all linear layers):\n"
    );
    let _ = writeln!(markdown, "```text\n{}\n\n{}\n```", written(&task, None), written(&task, best.as_ref()));
    let title = "training loss by epoch, Persuasion".to_owned();
    Report { markdown, picture: picture(&[Chart { title, across: "epoch", lines }]) }
}

/// A text, as the device writes it.
fn written(task: &Sequences, parts: Option<&Parts>) -> String {
    let model = task.image.model().expect("a model");
    let none = serde_json::Map::new();
    let bytes = parts.map(|p| p.emit(model.source(), model.head().image, &none).expect("an adapter"));
    let file = bytes.map(|b| ImageFile::of("learned".as_ref(), &b));
    let adapter = file.as_ref().map(|f| f.adapter(&model).expect("an adapter"));
    let active: Vec<Active<'_>> = adapter.iter().map(|a| a.view()).collect();
    let text = String::from_utf8_lossy(&tokens(&model, &active)).trim().to_owned();
    // Lines of a page.
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column + word.len() > 96 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
        }
        out.push_str(word);
        column += word.len() + 1;
    }
    out
}

fn tokens(model: &Model<'_>, active: &[Active<'_>]) -> Vec<u8> {
    let plan = Plan::new(model.bytes()).expect("a plan").tokens(BEGINNING.len()).context(LENGTH);
    let mut memory = vec![0; plan.bytes() + 15];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&plan).expect("planned");
    let vocabulary = model.vocabulary().expect("an image with a vocabulary");
    let mut text: Vec<u8> = BEGINNING.iter().flat_map(|&id| vocabulary.bytes_of(id)).copied().collect();
    model.decode(&mut scratch, &mut cache, Sequence::tokens(&BEGINNING), active).expect("a text");
    while cache.len() < LENGTH {
        let last = scratch.len() - 1;
        let logits = model.logits(&mut scratch, last, active).expect("logits");
        let id = SAMPLER.choose(logits, cache.len() as u32) as u32;
        if vocabulary.is_end(id) {
            break;
        }
        text.extend(vocabulary.bytes_of(id));
        model.decode(&mut scratch, &mut cache, Sequence::tokens(&[id]), active).expect("a text");
    }
    text
}
