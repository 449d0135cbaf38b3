//! All trainings of the study, and what may be claimed of them.

use super::run::{METRICS, Run, Settings, Task, name, perturbed};
use crate::draw::Draw;
use ranklet::fixed::Real;
use ranklet::q;
use ranklet::train::{AdamW, Rule, Sgd};

/// Seeds: each fixes A's initial values and the order of the data.
pub const SEEDS: u32 = 5;
/// Added to or taken from every initial value of A, at most; these are up to 1/√inputs, 0.1 or so.
pub const PERTURBATION: f64 = 1e-4;
/// Steps over which every single loss is compared.
pub const COMPARED: usize = 50;

/// SGD with momentum and AdamW on the digits, as the study runs them.
#[must_use]
pub fn settings() -> [Settings; 2] {
    rules(q!(5e-4), q!(2e-3)).map(|rule| Settings { rule, rank: 8, alpha: 16, batch: 32, steps: 400, claim: 0.002 })
}

/// SGD with momentum and AdamW, at these rates.
#[must_use]
pub const fn rules(sgd: Real, adamw: Real) -> [Rule; 2] {
    [Rule::Sgd(Sgd { lr: sgd, ..Sgd::DEFAULT }), Rule::AdamW(AdamW { lr: adamw, ..AdamW::DEFAULT })]
}

/// AdamW in batches of 8, with two ε: where the first claim does not hold, and what brings it back. Not claimed, shown.
#[must_use]
pub fn small_batches() -> [Settings; 2] {
    [q!(1e-8), q!(1e-6)].map(|epsilon| {
        let rule = Rule::AdamW(AdamW { lr: q!(1e-3), epsilon, ..AdamW::DEFAULT });
        Settings { rule, rank: 8, alpha: 16, batch: 8, steps: COMPARED, claim: 0.002 }
    })
}

/// The trainings of one seed.
#[derive(Clone, Debug)]
pub struct Trial {
    /// In fixed point.
    pub fixed: Run,
    /// `f32`, `f64`, then the perturbed ones.
    pub floats: Vec<Run>,
}

impl Trial {
    /// Trains.
    #[must_use]
    pub fn new<K: Task>(task: &K, s: &Settings, seed: u32, with: u64) -> Trial {
        let (fixed, start) = task.fixed(s, seed);
        let mut floats = vec![task.float::<f32>(s, seed, &start), task.float::<f64>(s, seed, &start)];
        floats.extend((0..with).map(|n| {
            let start = perturbed(&start, PERTURBATION, &mut Draw::new(7000 + 100 * u64::from(seed) + n));
            task.float::<f32>(s, seed, &start)
        }));
        Trial { fixed, floats }
    }

    /// The largest relative difference from `f32` of the first losses.
    #[must_use]
    pub fn step_difference(&self, run: &Run) -> f64 {
        let f32 = &self.floats[0].losses;
        run.losses.iter().zip(f32).take(COMPARED).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    }
}

/// One figure at the end: the mean over the seeds.
#[derive(Clone, Copy, Debug)]
pub struct Final {
    /// In fixed point.
    pub fixed: f64,
    /// The same adapters, as fixed point reads them.
    pub read: f64,
    /// `f32`, unperturbed.
    pub f32: f64,
    /// The smallest and the largest of all float variants.
    pub spread: (f64, f64),
}

impl Final {
    /// Whether fixed point lies inside the spread.
    #[must_use]
    pub fn inside(&self) -> bool {
        (self.spread.0..=self.spread.1).contains(&self.fixed)
    }
}

/// What one optimizer came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it was set.
    pub settings: Settings,
    /// One a seed.
    pub trials: Vec<Trial>,
}

impl Outcome {
    /// Trains all seeds, each with so many perturbed trainings.
    ///
    /// # Panics
    /// Where a training does.
    #[must_use]
    pub fn new<K: Task>(task: &K, settings: Settings, with: u64) -> Outcome {
        let trials = std::thread::scope(|scope| {
            let trial = |seed| scope.spawn(move || Trial::new(task, &settings, seed, with));
            let all: Vec<_> = (0..SEEDS).map(trial).collect();
            all.into_iter().map(|t| t.join().expect("a training")).collect()
        });
        Outcome { settings, trials }
    }

    /// The figures at the end, in the order of [`METRICS`].
    #[must_use]
    pub fn finals(&self) -> [Final; 4] {
        let mean = |of: &dyn Fn(&Trial) -> f64| self.trials.iter().map(of).sum::<f64>() / self.trials.len() as f64;
        std::array::from_fn(|m| {
            let variant = |v: usize| mean(&|t| t.floats[v].finals[m]);
            let all = (0..self.trials[0].floats.len()).map(variant);
            let spread = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
            Final { fixed: mean(&|t| t.fixed.finals[m]), read: mean(&|t| t.fixed.read[m]), f32: variant(0), spread }
        })
    }

    /// Every claim that does not hold; none where all do.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let name = name(&self.settings.rule);
        let mut out = vec![];
        for (seed, t) in self.trials.iter().enumerate() {
            let d = t.step_difference(&t.fixed);
            if d.is_nan() || d > self.settings.claim {
                let (d, claim) = (100.0 * d, 100.0 * self.settings.claim);
                out.push(format!(
                    "{name}, seed {seed}: a loss of the first {COMPARED} is {d:.2} % off, claimed {claim} %"
                ));
            }
        }
        for (metric, f) in METRICS.iter().zip(self.finals()) {
            if !f.inside() {
                let (low, high) = f.spread;
                out.push(format!("{name}: {metric} is {:.5}, outside the spread {low:.5} to {high:.5}", f.fixed));
            }
        }
        out
    }
}
