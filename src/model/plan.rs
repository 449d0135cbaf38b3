//! [`Plan`]: every byte of RAM that a network needs, told at compile time from the head of its image.

mod longest;
mod train;

pub use train::Train;

use super::spec::{LinearSpec, Spec};
use super::transformer::learn::{LearnPlan, LearnShape, place_of};
use super::transformer::scratch::{SequenceLengths, SequencePlan};
use super::transformer::store::CacheType;
use crate::image::{Head, Image, ImageError, LoraRecord};
use crate::layer::Linear;
use crate::memory::carved_bytes;

/// The buffers of inference (and, where planned, of training). Contents mean nothing between calls.
#[derive(Debug)]
pub struct Scratch<'a> {
    pub(crate) acc: &'a mut [i64],
    pub(crate) vectors: [&'a mut [i16]; 2],
    #[cfg(feature = "train")]
    pub(crate) scaled: &'a mut [i16],
    #[cfg(feature = "train")]
    pub(crate) rank: &'a mut [i16],
    #[cfg(feature = "train")]
    pub(crate) masked: &'a mut [i16],
    /// Of a transformer that learns: everything that a unit computes in.
    #[cfg(feature = "train")]
    pub(crate) desk: &'a mut [u8],
}

#[cfg(feature = "train")]
impl Scratch<'_> {
    /// Whether the buffers are as large as a plan made them.
    pub(crate) fn check(&self, needed: ScratchLengths) -> Result<(), crate::layer::ShapeError> {
        let [even, odd] = &self.vectors;
        let buffers = [
            ("scratch.acc", needed.acc, self.acc.len()),
            ("scratch.vectors", needed.vector, even.len().min(odd.len())),
            ("scratch.scaled", needed.scaled, self.scaled.len()),
            ("scratch.rank", needed.rank, self.rank.len()),
            ("scratch.masked", needed.masked, self.masked.len()),
            ("scratch.desk", needed.desk, self.desk.len()),
        ];
        match buffers.iter().find(|(_, needed, found)| found < needed) {
            Some(&(operand, needed, found)) => Err(crate::layer::ShapeError { operand, needed, found }),
            None => Ok(()),
        }
    }

    /// The part that layers compute in.
    pub(crate) fn layer(&mut self) -> crate::layer::linear::Scratch<'_> {
        crate::layer::linear::Scratch { acc: self.acc, vector: self.scaled, rank: self.rank, masked: self.masked }
    }
}

/// How many values each buffer of [`Scratch`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScratchLengths {
    pub(crate) acc: usize,
    pub(crate) vector: usize,
    pub(crate) scaled: usize,
    pub(crate) rank: usize,
    pub(crate) masked: usize,
    pub(crate) desk: usize,
}

/// How many values each buffer of the learner holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LearnLengths {
    /// Layers with an adapter.
    pub records: usize,
    /// Elements of all A and B.
    pub parameters: usize,
    /// Of these, those that learn.
    pub learning: usize,
    /// Of these, those that have a gradient at the same time.
    pub accumulators: usize,
    /// Elements of the first moment.
    pub first_moment: usize,
    /// Elements of the second moment.
    pub second_moment: usize,
    /// Kept activations: the input of every layer, and the output.
    pub trace: usize,
    /// One exponent for each of them.
    pub trace_exponents: usize,
    /// Elements of each of the two gradient vectors.
    pub gradient: usize,
    /// Bytes of what a transformer keeps between units in place of the trace.
    pub work: usize,
}

/// Every byte of RAM that a network needs.
///
/// ```no_run
/// # // `BASE` stands for `ranklet::include_image!("base.rkl")`.
/// # static BASE: ranklet::image::Image = ranklet::image::Image::new(&[]);
/// use ranklet::model::{Arena, Plan, Train};
/// # fn f() {
/// let plan = Plan::of(&BASE).train(Train::adamw().rank(8));
/// # }
/// ```
///
/// In firmware it is a constant: `const PLAN: Plan = Plan::of(&BASE).train(…)`, and the arena is
/// `static ARENA: Arena<{ PLAN.bytes() }>`. A network that does not fit fails the build with
/// [`must_fit!`](crate::must_fit), which says by how much.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    bytes: &'a [u8],
    head: Head,
    spec: Spec,
    train: Option<Train>,
    sequence: SequencePlan,
}

impl Plan<'static> {
    /// The plan of an image that is built into the firmware.
    ///
    /// # Panics
    /// At compile time (where it is used for a constant), with the reason, if the image is not a sound base.
    #[must_use]
    #[allow(clippy::panic)] // For constants: the panic is the compiler's error message. At run time there is `new`.
    pub const fn of(image: &Image) -> Plan<'static> {
        match Plan::new(image.bytes()) {
            Ok(plan) => plan,
            Err(ImageError::Magic { .. }) => panic!("include_image!: this file is not a ranklet image"),
            Err(ImageError::Version { .. }) => panic!("include_image!: image of another format version; convert again"),
            Err(ImageError::Kind { .. }) => panic!("include_image!: an adapter image where a base is needed"),
            Err(ImageError::Length { .. }) => panic!("include_image!: the image is truncated"),
            Err(ImageError::HeadCrc { .. }) => panic!("include_image!: the image's head is damaged"),
            Err(_) => panic!("include_image!: the image contradicts itself; `ranklet inspect` tells where"),
        }
    }
}

impl<'a> Plan<'a> {
    /// The plan of an image found at run time. Reads the head only; the payload is checked by
    /// [`Model::open`](super::Model::open).
    ///
    /// # Errors
    /// What is wrong with the head, directory or spec.
    pub const fn new(bytes: &'a [u8]) -> Result<Plan<'a>, ImageError> {
        let head = match Head::parse(bytes) {
            Ok(head) => head,
            Err(e) => return Err(e),
        };
        match Spec::parse(&head, bytes) {
            Ok(spec) => {
                let longest = if let Some(t) = spec.transformer() { t.positions } else { 1 };
                let tokens = if longest < 32 { longest } else { 32 };
                let sequence = SequencePlan { tokens, source: tokens, context: tokens, cache: CacheType::I16 };
                Ok(Plan { bytes, head, spec, train: None, sequence })
            }
            Err(e) => Err(e),
        }
    }

    /// Tokens a call may have, at most: for an encoder, and for a decoder's piece of text. Default: 32, or what the
    /// network can, if that is less. (Only a transformer has tokens.)
    #[must_use]
    pub const fn tokens(self, tokens: usize) -> Plan<'a> {
        Plan { sequence: SequencePlan { tokens, ..self.sequence }, ..self }
    }

    /// Tokens of the encoder's input, where a decoder looks at it. Default as [`tokens`](Plan::tokens).
    #[must_use]
    pub const fn source(self, source: usize) -> Plan<'a> {
        Plan { sequence: SequencePlan { source, ..self.sequence }, ..self }
    }

    /// Tokens that a decoder remembers, those of the call included. Default as [`tokens`](Plan::tokens).
    #[must_use]
    pub const fn context(self, context: usize) -> Plan<'a> {
        Plan { sequence: SequencePlan { context, ..self.sequence }, ..self }
    }

    /// How a decoder remembers. Default: [`CacheType::I16`].
    #[must_use]
    pub const fn cache(self, cache: CacheType) -> Plan<'a> {
        Plan { sequence: SequencePlan { cache, ..self.sequence }, ..self }
    }

    /// The lengths of a transformer's buffers; `None` for another network.
    #[must_use]
    pub(crate) const fn sequence_lengths(&self) -> Option<SequenceLengths> {
        match self.spec.transformer() {
            Some(t) => Some(SequenceLengths::of(&self.spec, t, self.sequence)),
            None => None,
        }
    }

    /// Bytes of what a decoder remembers; 0 for a network without one, and for a plan with training, which is for training
    /// alone.
    #[must_use]
    pub const fn cache_bytes(&self) -> usize {
        if self.train.is_some() {
            return 0;
        }
        match self.sequence_lengths() {
            Some(l) => l.cache_bytes(),
            None => 0,
        }
    }

    /// The same plan with room for training.
    #[must_use]
    pub const fn train(self, train: Train) -> Plan<'a> {
        Plan { train: Some(train), ..self }
    }

    /// What is to be trained, if anything.
    #[must_use]
    pub const fn training(&self) -> Option<&Train> {
        self.train.as_ref()
    }

    /// The network.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Layer `site`.
    #[must_use]
    pub const fn linear(&self, site: u16) -> Option<LinearSpec> {
        self.spec.linear(&self.head, self.bytes, site)
    }

    /// Bytes of RAM in all: what the [`Arena`](super::Arena) must hold.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.scratch_bytes() + self.cache_bytes() + self.learn_bytes()
    }

    /// Bytes of the buffers that inference and training compute in.
    #[must_use]
    pub const fn scratch_bytes(&self) -> usize {
        if let Some(shape) = self.learn_shape() {
            return shape.desk_bytes();
        }
        if let Some(l) = self.sequence_lengths() {
            return l.scratch_bytes();
        }
        let l = self.scratch_lengths();
        carved_bytes::<i64>(l.acc)
            + 2 * carved_bytes::<i16>(l.vector)
            + carved_bytes::<i16>(l.scaled)
            + carved_bytes::<i16>(l.rank)
            + carved_bytes::<i16>(l.masked)
    }

    /// Bytes of what a learner keeps: A, B, their gradients and moments, activations. 0 without training.
    #[must_use]
    pub const fn learn_bytes(&self) -> usize {
        let Some(l) = self.learn_lengths() else {
            return 0;
        };
        carved_bytes::<LoraRecord>(l.records)
            + carved_bytes::<[u32; 4]>(2 * l.records) // TensorState
            + 2 * carved_bytes::<i16>(l.parameters)
            + carved_bytes::<i32>(l.accumulators)
            + carved_bytes::<i16>(l.first_moment)
            + carved_bytes::<u16>(l.second_moment)
            + carved_bytes::<i16>(l.trace)
            + carved_bytes::<i16>(l.trace_exponents)
            + 2 * carved_bytes::<i16>(l.gradient)
            + carved_bytes::<u8>(l.work)
    }

    /// Elements of the learner's buffers; `None` without training.
    #[must_use]
    pub const fn learn_lengths(&self) -> Option<LearnLengths> {
        let Some(train) = self.train else {
            return None;
        };
        let (mut records, mut parameters, mut learning, mut trace) = (0, 0, 0, self.spec.outputs);
        // Of the block at hand, and the most of any.
        let (mut place, mut here, mut most) = (usize::MAX, 0, 0);
        let mut site = 0;
        while let Some(l) = self.linear(site) {
            if l.role.meets(train.roles) {
                records += 1;
                parameters += train.rank as usize * (l.inputs + l.outputs);
                let elements = train.rank as usize * if train.only_b { l.outputs } else { l.inputs + l.outputs };
                learning += elements;
                let now = match self.spec.transformer() {
                    Some(t) if train.immediate => place_of(t, site),
                    _ => 0,
                };
                here = if now == place { here + elements } else { elements };
                place = now;
                most = max(most, here);
            }
            trace += l.inputs;
            site += 1;
        }
        let lengths = LearnLengths {
            records,
            parameters,
            learning,
            accumulators: most,
            first_moment: if train.moments >= 1 { learning } else { 0 },
            second_moment: if train.moments >= 2 { learning } else { 0 },
            trace,
            trace_exponents: self.spec.linears as usize + 1,
            gradient: self.widest(),
            work: 0,
        };
        if let Some(shape) = self.learn_shape() {
            return Some(LearnLengths {
                trace: 0,
                trace_exponents: 0,
                gradient: 0,
                work: shape.work_bytes(),
                ..lengths
            });
        }
        Some(lengths)
    }

    /// The buffers of a transformer that learns; `None` without training, or for another network.
    pub(crate) const fn learn_shape(&self) -> Option<LearnShape> {
        match (self.spec.transformer(), self.learn_plan()) {
            (Some(t), Some(plan)) => Some(LearnShape::of(&self.spec, t, plan)),
            _ => None,
        }
    }

    /// What they follow from.
    pub(crate) const fn learn_plan(&self) -> Option<LearnPlan> {
        let (Some(train), Some(_)) = (self.train, self.spec.transformer()) else {
            return None;
        };
        let mut lowest = 0;
        while let Some(l) = self.linear(lowest) {
            if l.role.meets(train.roles) {
                break;
            }
            lowest += 1;
        }
        Some(LearnPlan {
            sequence: self.sequence,
            rank: train.rank as usize,
            dropout: train.dropout,
            cotangents: train.cotangents,
            lean: train.lean,
            lowest,
        })
    }

    pub(crate) const fn scratch_lengths(&self) -> ScratchLengths {
        if let Some(shape) = self.learn_shape() {
            let desk = shape.desk_bytes();
            return ScratchLengths { acc: 0, vector: 0, scaled: 0, rank: 0, masked: 0, desk };
        }
        let (mut acc, mut inputs, mut outputs) = (self.spec.features, 0, 0);
        let mut site = 0;
        while let Some(l) = self.linear(site) {
            acc = max(acc, Linear::acc_len(l.inputs, l.outputs, 1));
            inputs = max(inputs, l.inputs);
            outputs = max(outputs, l.outputs);
            site += 1;
        }
        let (scaled, rank, masked) = match self.train {
            Some(t) => {
                (Linear::vector_len(outputs), Linear::rank_len(t.rank as usize, 1), if t.dropout { inputs } else { 0 })
            }
            None => (0, 0, 0),
        };
        ScratchLengths { acc, vector: self.widest(), scaled, rank, masked, desk: 0 }
    }

    /// The widest vector of the network.
    const fn widest(&self) -> usize {
        let mut widest = self.spec.features;
        let mut site = 0;
        while let Some(l) = self.linear(site) {
            widest = max(widest, l.outputs);
            site += 1;
        }
        widest
    }
}

pub(crate) const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
