//! Training of transformers: the host tool's float reference, walked back, with the optimizers of this oracle.

use super::{Moments, Optimizer, Pair, Scalar, Schedule, Target, loss, scalar::convert};
use ranklet_cli::reference::Reference;
use ranklet_cli::reference::gradients::Gradients;
use ranklet_cli::reference::layers::Added;
use ranklet_cli::sequences::Batch;

/// What a sequence is to come out as.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Its class.
    Class(usize),
    /// A yes or no for each output.
    Labels(Vec<bool>),
    /// Every token tells the next.
    Next,
}

/// A sequence, and what it is to come out as.
#[derive(Clone, Debug)]
pub struct Item {
    /// One sequence.
    pub batch: Batch,
    /// Its target.
    pub goal: Goal,
}

impl Item {
    /// The loss of an output, a mean over the tokens that are told; and `dL/dy`.
    pub fn loss<T: Scalar>(&self, y: &[T]) -> (T, Vec<T>) {
        match &self.goal {
            Goal::Class(class) => loss(y, &Target::Class(*class)),
            Goal::Labels(labels) => loss(y, &Target::Labels(labels.clone())),
            Goal::Next => {
                let ids = self.batch.row(0).ids;
                let told = T::of((ids.len() - 1) as f64);
                let (mut total, mut dy) = (T::ZERO, vec![]);
                for (y, &next) in y.chunks_exact(y.len() / ids.len()).zip(&ids[1..]) {
                    let (l, d) = loss(y, &Target::Class(next as usize));
                    total += l / told;
                    dy.extend(d.into_iter().map(|d| d / told));
                }
                dy.resize(y.len(), T::ZERO);
                (total, dy)
            }
        }
    }

    /// How many answers are given, and how many of them are right.
    pub fn answers<T: Scalar>(&self, y: &[T]) -> (usize, usize) {
        let best = |y: &[T]| (0..y.len()).fold(0, |b, i| if y[i] > y[b] { i } else { b });
        match &self.goal {
            Goal::Class(class) => (1, usize::from(best(y) == *class)),
            Goal::Labels(labels) => {
                (labels.len(), y.iter().zip(labels).filter(|(y, l)| (**y > T::ZERO) == **l).count())
            }
            Goal::Next => {
                let ids = self.batch.row(0).ids;
                let tokens = y.chunks_exact(y.len() / ids.len()).zip(&ids[1..]);
                (ids.len() - 1, tokens.filter(|(y, next)| best(y) == **next as usize).count())
            }
        }
    }
}

/// Trains adapters on a frozen transformer, or all of it.
#[derive(Clone, Debug)]
pub struct SequenceTrainer<T> {
    /// With what learns.
    pub net: Reference<T>,
    /// Its rule.
    pub optimizer: Optimizer,
    /// Of the learning rate.
    pub schedule: Schedule,
    /// Sequences a step.
    pub accumulate: usize,
    /// Whether everything learns.
    whole: bool,
    moments: Vec<Moments<T>>,
    gradients: Gradients<T>,
    pending: usize,
    steps: u32,
}

impl<T: Scalar> SequenceTrainer<T> {
    /// Trains adapters.
    #[must_use]
    pub fn adapters(mut net: Reference<T>, pairs: &[Pair<f64>], optimizer: Optimizer) -> SequenceTrainer<T> {
        for p in pairs {
            net.layers[p.site].added.push(Added {
                a: convert(&p.a),
                b: convert(&p.b),
                rank: p.rank,
                scaling: T::of(p.scaling),
                gain: None,
                bias: None,
            });
        }
        SequenceTrainer::new(net, optimizer, false)
    }

    /// Trains every layer and norm.
    #[must_use]
    pub fn whole(net: Reference<T>, optimizer: Optimizer) -> SequenceTrainer<T> {
        SequenceTrainer::new(net, optimizer, true)
    }

    fn new(net: Reference<T>, optimizer: Optimizer, whole: bool) -> SequenceTrainer<T> {
        let mut gradients = Gradients::new(&net.layers, &net.norms, whole);
        let moments = gradients.tensors().iter().map(|t| Moments::new(t.len())).collect();
        let (schedule, accumulate) = (Schedule::Constant, 1);
        SequenceTrainer { net, optimizer, schedule, accumulate, whole, moments, gradients, pending: 0, steps: 0 }
    }

    /// How many numbers learn.
    pub fn parameters(&mut self) -> usize {
        self.gradients.tensors().iter().map(|t| t.len()).sum()
    }

    /// Takes a sequence, and steps where enough have come; its loss, before the step.
    pub fn item(&mut self, item: &Item) -> T {
        let (tape, y) = self.net.tape(&item.batch.row(0), true, &mut |_| ());
        let (value, dy) = item.loss(tape.value(y));
        tape.backward(y, &dy, &mut self.gradients);
        self.pending += 1;
        if self.pending >= self.accumulate {
            self.step();
        }
        value
    }

    /// Steps with what has been accumulated.
    pub fn flush(&mut self) {
        if self.pending > 0 {
            self.step();
        }
    }

    fn step(&mut self) {
        let mean = T::ONE / T::of(self.pending as f64);
        (self.pending, self.steps) = (0, self.steps + 1);
        let factor = self.schedule.factor(self.steps);
        let learned = self.net.layers.iter_mut();
        let mut tensors: Vec<&mut Vec<T>> = vec![];
        let mut whole: Vec<&mut Vec<T>> = vec![];
        for layer in learned {
            tensors.extend(layer.added.iter_mut().flat_map(|a| [&mut a.a, &mut a.b]));
            whole.push(&mut layer.weight);
            whole.extend(&mut layer.bias);
        }
        for norm in &mut self.net.norms {
            whole.push(&mut norm.weight);
            whole.extend(&mut norm.bias);
        }
        if self.whole {
            tensors.extend(whole);
        }
        // A bias that a layer does not have is an empty gradient.
        let gradients = self.gradients.tensors().into_iter().zip(&mut self.moments).filter(|(g, _)| !g.is_empty());
        for (p, (g, moments)) in tensors.into_iter().zip(gradients) {
            g.iter_mut().for_each(|g| *g = *g * mean);
            self.optimizer.update(p, g, moments, self.steps, factor);
            g.fill(T::ZERO);
        }
    }

    /// The output of a sequence.
    pub fn run(&self, batch: &Batch) -> Vec<T> {
        self.net.run(&batch.row(0), true, &mut |_| ())
    }
}
