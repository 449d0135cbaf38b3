//! `docs/convergence.md`.

use super::chapter::Chapter;
use super::run::METRICS;
use super::study::{COMPARED, Outcome, PERTURBATION, SEEDS};
use ranklet::train::Rule;
use std::fmt::Write;

/// The whole document.
#[must_use]
pub fn document(chapters: &[Chapter], small_batches: &[Outcome]) -> String {
    let mut out = HEAD.to_owned();
    for chapter in chapters {
        self::chapter(&mut out, chapter);
        if chapter.name == "digits" {
            out.push_str(SMALL);
            for o in small_batches {
                if let Rule::AdamW(r) = o.settings.rule {
                    let _ = writeln!(out, "| ε = {:.0e} | {} |", r.epsilon.to_f64(), by_seed(o));
                }
            }
            out.push_str(NOTES);
        }
    }
    out
}

const HEAD: &str = "# Fixed point beside floats

Written by `cargo run --release -p ranklet-host-tests --bin convergence`. With `--check` the command trains, writes nothing,
and fails where a claim below does not hold; behind it may stand one of `digits`, `rows` and `style`, the chapters.
`cargo xtask test` checks the first, and the first steps of all.

The same training twice: by the core, in integers, and by a float reference on the dequantised base, with the same data
in the same order, the same initial A and B, and the same hyper-parameters. The references are plain loops in `f32` with PyTorch's
rules: of perceptrons in `host-tests/src/oracle`, gradients checked by finite differences; of transformers in
`tools/ranklet/src/reference`, outputs and gradients checked against PyTorch's for every family.

How far apart may two honest trainings end? `f32` and `f64` do not agree with each other either, and initial values that differ
in the fourth decimal end elsewhere. So the figures at the end are compared with the *spread* of float trainings that differ from
each other only so: `f32`, `f64`, and some in `f32` whose initial values of A (up to 1/√inputs) are each off by up to 1e-4.
A spread grows with the number of trainings, so that number is fixed: were fixed point just one more of them, it would
be the least or the largest with the probability that is given. What a transformer has learned in fixed point is read in f32 for the comparison,
as what `f32` has learned is: training is compared, not inference, whose own error ([accuracy](accuracy.md)) the next column shows.
";

const SMALL: &str = "
### Where the first claim does not hold

| AdamW, lr 1e-3, batches of 8 | worst difference of the first 50 losses by seed |
|---|---|
";

fn chapter(out: &mut String, chapter: &Chapter) {
    let outcomes = &chapter.outcomes;
    let (s, with) = (&outcomes[0].settings, chapter.perturbed);
    let _ = write!(
        out,
        "
## {}

{} Pairs of rank {}, alpha {}. Batches of {}, {} steps. The rest as the defaults.

![Training loss of fixed point and f32]({})

Claim: the loss of every single one of the first {COMPARED} steps (mean over its batch) is within {} % of `f32`'s, for each of
{SEEDS} seeds.

| optimizer | worst difference by seed | f64 | f32, initial values off by {PERTURBATION:e} (worst of {with}) |
|---|---|---|---|
",
        chapter.title,
        chapter.about,
        s.rank,
        s.alpha,
        s.batch,
        s.steps,
        chapter.picture(),
        100.0 * s.claim,
    );
    for o in outcomes {
        let worst = |range: &dyn Fn(usize) -> bool| {
            let of = o.trials.iter().flat_map(|t| {
                t.floats.iter().enumerate().filter(|(n, _)| range(*n)).map(|(_, r)| t.step_difference(r))
            });
            percent(of.fold(0.0, f64::max))
        };
        let (f64, perturbed) = (worst(&|n| n == 1), worst(&|n| n > 1));
        let _ = writeln!(out, "| {} | {} | {f64} | {perturbed} |", title(o), by_seed(o));
    }
    let _ = write!(
        out,
        "
Claim: the mean over {SEEDS} seeds lies inside the spread of {} float trainings (outside by chance: {:.0} %).

| optimizer | after {} steps | learned in fixed point | as the device reads it | learned in f32 | spread of the floats | inside |
|---|---|---|---|---|---|---|
",
        with + 2,
        200.0 / (with + 3) as f64,
        s.steps
    );
    for o in outcomes {
        for (metric, f) in METRICS.iter().zip(o.finals()) {
            let inside = if f.inside() { "yes" } else { "**no**" };
            let (low, high) = f.spread;
            let _ = writeln!(
                out,
                "| {} | {metric} | {:.5} | {:.5} | {:.5} | {low:.5} to {high:.5} | {inside} |",
                title(o),
                f.fixed,
                f.read,
                f.f32
            );
        }
    }
}

fn percent(v: f64) -> String {
    format!("{:.4} %", 100.0 * v)
}

fn by_seed(o: &Outcome) -> String {
    o.trials.iter().map(|t| percent(t.step_difference(&t.fixed))).collect::<Vec<_>>().join(", ")
}

fn title(o: &Outcome) -> String {
    match o.settings.rule {
        Rule::Sgd(r) => format!("SGD, lr {:.0e}, momentum {:.1}", r.lr.to_f64(), r.momentum.to_f64()),
        Rule::AdamW(r) => format!("AdamW, lr {:.0e}", r.lr.to_f64()),
    }
}

const NOTES: &str = include_str!("notes.md");
