//! The loop around the optimizer: accumulate, clip, step.

use super::{Masks, Mlp, Moments, Optimizer, Pair, PairGradient, Scalar, Schedule, Target, loss};
use ranklet::fixed::hash::Seed;

/// Trains pairs on a frozen network, a sample at a time.
#[derive(Clone, Debug)]
pub struct Trainer<T> {
    /// Frozen.
    pub net: Mlp<T>,
    /// What learns.
    pub pairs: Vec<Pair<T>>,
    /// Its rule.
    pub optimizer: Optimizer,
    /// Of the learning rate.
    pub schedule: Schedule,
    /// Samples a step.
    pub accumulate: usize,
    /// `clip_grad_norm_` over all tensors together.
    pub clip: Option<f64>,
    /// Probability and seed.
    pub dropout: Option<(f64, Seed)>,
    moments: Vec<[Moments<T>; 2]>,
    gradients: Vec<PairGradient<T>>,
    pending: usize,
    samples: u32,
    steps: u32,
}

impl<T: Scalar> Trainer<T> {
    /// One sample a step, constant rate, no clipping, no dropout.
    #[must_use]
    pub fn new(net: Mlp<T>, pairs: Vec<Pair<T>>, optimizer: Optimizer) -> Trainer<T> {
        let moments = pairs.iter().map(|p| [Moments::new(p.a.len()), Moments::new(p.b.len())]).collect();
        let gradients = empty(&pairs);
        let (schedule, accumulate, clip, dropout) = (Schedule::Constant, 1, None, None);
        Trainer {
            net,
            pairs,
            optimizer,
            schedule,
            accumulate,
            clip,
            dropout,
            moments,
            gradients,
            pending: 0,
            samples: 0,
            steps: 0,
        }
    }

    /// Takes a sample, and steps where enough have come; the sample's loss, before the step.
    pub fn sample(&mut self, input: &[T], target: &Target<T>) -> T {
        self.samples += 1;
        let masks = self.dropout.map(|(p, seed)| Masks { p, seed, sample: self.samples });
        let trace = self.net.trace(input, &self.pairs, masks);
        let (value, dy) = loss(&trace[trace.len() - 1], target);
        let (fresh, _) = self.net.backward(&trace, &self.pairs, masks, &dy);
        for (sum, g) in self.gradients.iter_mut().zip(fresh) {
            sum.a.iter_mut().zip(g.a).for_each(|(s, g)| *s += g);
            sum.b.iter_mut().zip(g.b).for_each(|(s, g)| *s += g);
        }
        self.pending += 1;
        if self.pending >= self.accumulate {
            self.flush();
        }
        value
    }

    /// Steps with what has been accumulated.
    pub fn flush(&mut self) {
        if self.pending == 0 {
            return;
        }
        let mean = T::ONE / T::of(self.pending as f64);
        let mut gradients = std::mem::replace(&mut self.gradients, empty(&self.pairs));
        let all = |g: &mut [PairGradient<T>], f: T| {
            g.iter_mut().flat_map(|g| g.a.iter_mut().chain(&mut g.b)).for_each(|g| *g = *g * f);
        };
        all(&mut gradients, mean);
        if let Some(clip) = self.clip {
            let sum: T = gradients.iter().flat_map(|g| g.a.iter().chain(&g.b)).map(|&g| g * g).sum();
            let limit = T::of(clip) / (sum.root() + T::of(1e-6));
            all(&mut gradients, if limit < T::ONE { limit } else { T::ONE });
        }
        self.steps += 1;
        let factor = self.schedule.factor(self.steps);
        for ((p, g), [ma, mb]) in self.pairs.iter_mut().zip(&gradients).zip(&mut self.moments) {
            self.optimizer.update(&mut p.a, &g.a, ma, self.steps, factor);
            self.optimizer.update(&mut p.b, &g.b, mb, self.steps, factor);
        }
        self.pending = 0;
    }
}

fn empty<T: Scalar>(pairs: &[Pair<T>]) -> Vec<PairGradient<T>> {
    let zeros = |n| vec![T::ZERO; n];
    pairs.iter().map(|p| PairGradient { a: zeros(p.a.len()), b: zeros(p.b.len()) }).collect()
}
