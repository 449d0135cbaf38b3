//! `docs/convergence.md`.

use super::run::METRICS;
use super::study::{COMPARED, Outcome, PERTURBATION, PERTURBED, SEEDS, STEP_CLAIM};
use ranklet::train::Rule;
use std::fmt::Write;

/// The whole document.
#[must_use]
pub fn document(outcomes: &[Outcome], small_batches: &[Outcome]) -> String {
    let s = &outcomes[0].settings;
    let mut out = format!(
        "# Fixed point beside floats

Written by `cargo run --release -p ranklet-host-tests --bin convergence`; with `--check` the command trains, writes
nothing, and fails where a claim below does not hold; `cargo xtask test` does that.

The same training twice: by the core, in integers, and by a float reference on the dequantised base, with the same data
in the same order, the same initial A and B, and the same hyper-parameters.

* Task: the digits of `models/digits`, turned by 90°; base with `i8` weights; 400 images to train on, 397 held out.
* Adapter: rank {}, alpha {}, on every layer. Batches of {}, {} steps. The rest as the defaults.
* Reference: plain loops in `f32` with PyTorch's rules (`host-tests/src/oracle`), gradients checked by finite differences.

![Training loss of fixed point and f32](convergence.svg)

## The first {COMPARED} steps

Claim: the loss of every single step (mean over its batch) is within {} % of `f32`'s, for each of {SEEDS} seeds.

| optimizer | worst difference by seed | f64 | f32, initial values off by {PERTURBATION:e} (worst of {PERTURBED}) |
|---|---|---|---|
",
        s.rank,
        s.alpha,
        s.batch,
        s.steps,
        100.0 * STEP_CLAIM,
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
## The end

Claim: the mean over {SEEDS} seeds lies inside the spread of float trainings that differ from each other only in rounding
or in the fourth decimal of their start: `f32`, `f64`, and {PERTURBED} in `f32` whose initial values of A (up to 0.1 or
so) are each off by up to {PERTURBATION:e}. A spread grows with the number of trainings, so that number is fixed: were fixed
point just one more of them, it would be the least or the largest of {} with a probability of {:.0} %.

| optimizer | after {} steps | fixed point | f32 | spread of the floats | inside |
|---|---|---|---|---|---|
",
        PERTURBED + 3,
        200.0 / (PERTURBED + 3) as f64,
        s.steps
    );
    for o in outcomes {
        for (metric, f) in METRICS.iter().zip(o.finals()) {
            let inside = if f.inside() { "yes" } else { "**no**" };
            let (low, high) = f.spread;
            let _ = writeln!(
                out,
                "| {} | {metric} | {:.5} | {:.5} | {low:.5} to {high:.5} | {inside} |",
                title(o),
                f.fixed,
                f.f32
            );
        }
    }
    out.push_str(
        "
## Where the first claim does not hold

| AdamW, lr 1e-3, batches of 8 | worst difference of the first 50 losses by seed |
|---|---|
",
    );
    for o in small_batches {
        if let Rule::AdamW(r) = o.settings.rule {
            let _ = writeln!(out, "| ε = {:.0e} | {} |", r.epsilon.to_f64(), by_seed(o));
        }
    }
    out.push_str(NOTES);
    out
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
