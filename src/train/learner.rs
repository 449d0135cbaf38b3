//! A and B while they learn: masters, gradients, moments, and the activations that backward needs.
//!
//! | file | holds |
//! |---|---|
//! | [`memory`] | the buffers, before they hold an adapter |
//! | [`start`] | a fresh adapter in them, or one that has learned before |
//! | here | [`Learner`]: what there is to see, to set and to save |
//! | `parts` | what the trainer borrows for one unit |

pub mod memory;
mod parts;
pub mod start;

pub use memory::Learn;
pub(super) use parts::{BackwardParts, ForwardParts};
pub(crate) use parts::{Gradients, LessonParts};
pub use start::LearnError;

use super::loss::Staged;
use super::moments::TensorState;
use super::phase::Phase;
use super::score::Answers;
use super::sequence::Run;
use super::update::Turn;
use crate::fixed::hash::Seed;
use crate::fixed::{Exp, Real};
use crate::image::{EmitError, Fingerprint, LoraRecord};
use crate::layer::Dropout;
use crate::model::plan::ScratchLengths;
use crate::model::transformer::learn::{LearnPlan, Objective, Unit};
use crate::model::{Active, AdapterParts, Train};
use core::ops::Range;

/// An adapter that learns. [`view`](Learner::view) is usable in inference at any time.
#[derive(Debug)]
pub struct Learner<'a> {
    pub(crate) train: Train,
    pub(crate) scratch: ScratchLengths,
    source: Fingerprint,
    image: Fingerprint,
    pub(super) records: &'a mut [LoraRecord],
    pub(super) states: &'a mut [TensorState],
    pub(super) high: &'a mut [i16],
    pub(super) low: &'a mut [i16],
    pub(super) gradient: &'a mut [i32],
    pub(super) first: &'a mut [i16],
    pub(super) second: &'a mut [u16],
    pub(crate) trace: &'a mut [i16],
    pub(crate) trace_exponents: &'a mut [Exp],
    pub(crate) gradients: [&'a mut [i16]; 2],
    /// Of a transformer, with its buffers, and the sample under way.
    pub(crate) plan: Option<LearnPlan>,
    pub(crate) work: &'a mut [u8],
    pub(crate) sequence: Under,
    pub(crate) samples: u32,
    pub(crate) steps: u32,
    /// Steps that the moments have seen: what Adam's bias corrections go by.
    pub(crate) moment_steps: u32,
    /// Samples whose gradients are in the accumulators.
    pub(crate) pending: u32,
    /// Whose moments these are; 0 before the first trainer.
    pub(super) optimizer: u8,
    /// The tensors whose gradients the accumulators hold.
    pub(crate) window: Window,
    /// The next unit: here, and not in the trainer, so that a trainer may be dropped between any two of them.
    pub(crate) phase: Phase,
    pub(crate) staged: Staged,
    /// Whether the sample under way is only measured.
    pub(crate) measured: bool,
    /// What its outputs were worth.
    pub(crate) answers: Answers,
    /// How the sample under way is masked: here for the same reason.
    pub(crate) mask: Mask,
}

impl Window {
    /// Whether it holds a tensor.
    pub(crate) const fn learns(&self) -> bool {
        self.first < self.end
    }

    /// Where the accumulators of a tensor are, by its place among all that learn; none of one that has none now.
    pub(crate) fn accumulators(&self, learned: Range<usize>) -> Range<usize> {
        match learned.start.checked_sub(self.base) {
            Some(start) => start..start + learned.len(),
            None => 0..0,
        }
    }
}

/// One of the two matrices of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Half {
    /// `(rank, inputs)`.
    A,
    /// `(outputs, rank)`.
    B,
}

/// Why what learns cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ChooseError {
    /// A sample is half done: finish it first.
    Busy,
    /// A batch is half gathered: its mean would be that of other samples for what is newly chosen. Make its step first
    /// ([`Trainer::flush`](super::Trainer::flush)).
    Batch {
        /// Samples so far.
        pending: u32,
    },
    /// Nothing would learn.
    Nothing,
}

impl core::fmt::Display for ChooseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ChooseError::Busy => write!(f, "a sample is half done; advance until there is no more, then choose"),
            ChooseError::Batch { pending } => {
                write!(f, "a batch of {pending} samples so far is half gathered; make its step (flush), then choose")
            }
            ChooseError::Nothing => write!(f, "of what was chosen nothing has a pair: nothing would learn"),
        }
    }
}

impl core::error::Error for ChooseError {}

/// A sequence under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Under {
    /// Tokens of the stack that the head looks at, and of the encoder below it.
    pub(crate) own: usize,
    pub(crate) source: usize,
    pub(crate) objective: Objective,
    /// Of the tokens so far.
    pub(crate) loss: Real,
    /// What runs its units.
    pub(crate) run: Option<Run>,
    /// Whether it went on with another trainer, or with other pairs, than it began with.
    pub(crate) changed: bool,
}

/// Tensors that are updated together: all, or those of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The first, and the one behind the last.
    pub(crate) first: usize,
    pub(crate) end: usize,
    /// Elements that learn before the first.
    pub(crate) base: usize,
    /// Where the sample goes on behind their update, if it does.
    pub(crate) then: Option<Unit>,
}

/// Dropout of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) p: Real,
    pub(crate) seed: Seed,
}

impl Learner<'_> {
    /// The adapter as it stands, for inference.
    #[must_use]
    pub fn view(&self) -> Active<'_> {
        Active::new(self.records, self.high, self.source)
    }

    /// Of the base it belongs to.
    #[must_use]
    pub const fn source(&self) -> Fingerprint {
        self.source
    }

    /// One record a layer, in ascending order of their sites.
    #[must_use]
    pub fn records(&self) -> &[LoraRecord] {
        self.records
    }

    /// The rounded upper halves of A and B.
    #[must_use]
    pub fn high(&self) -> &[i16] {
        self.high
    }

    /// The signed lower halves.
    #[must_use]
    pub fn low(&self) -> &[i16] {
        self.low
    }

    /// Samples seen since the learner started.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    /// Optimizer steps since the learner started, with whichever optimizer: what schedules go by.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// Samples of a batch that is half gathered.
    #[must_use]
    pub const fn pending(&self) -> u32 {
        self.pending
    }

    /// The gradient accumulators of record `index`, A's and B's: values and their exponent. They are emptied by each
    /// optimizer step; none of a tensor without room for one. `None` where there is no such record.
    #[must_use]
    pub fn gradient(&self, index: usize) -> Option<[(&[i32], i32); 2]> {
        let _ = self.records.get(index)?;
        let of = |tensor: usize| {
            let range = parts::learned(self.records, tensor, self.train.only_b).unwrap_or(0..0);
            let range = self.window.accumulators(range);
            Some((self.gradient.get(range)?, self.states.get(tensor)?.gradient.exponent()))
        };
        Some([of(2 * index)?, of(2 * index + 1)?])
    }

    /// Sets A and B of record `index` from 32-bit values: `value = v · 2^exponent`. For tests and converters that want
    /// a given start. The shapes are the record's.
    ///
    /// # Errors
    /// The record's index, or the number of elements it has, where those given are others.
    pub fn set(&mut self, index: usize, a: (&[i32], i32), b: (&[i32], i32)) -> Result<(), crate::layer::ShapeError> {
        let r = self.records.get(index).copied();
        let (na, nb) = r.map_or((0, 0), |r| (r.a_len(), r.b_len()));
        crate::layer::exactly("A", na, a.0.len())?;
        crate::layer::exactly("B", nb, b.0.len())?;
        self.sequence.changed = true;
        for (half, (values, exponent)) in [a, b].into_iter().enumerate() {
            if let Some(mut t) = self.tensor(2 * index + half) {
                t.master.set(values, exponent);
            }
        }
        Ok(())
    }

    /// Writes the adapter as an image: records, both planes, and `metadata` (a JSON object, or nothing).
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn write_to<W: embedded_io::Write>(&self, out: &mut W, metadata: &[u8]) -> Result<(), EmitError<W::Error>> {
        let (source, image) = (self.source, self.image);
        AdapterParts { source, image, records: self.records, high: self.high, low: self.low, metadata }.write_to(out)
    }

    /// Forgets the optimizer's moments, as if no step had been made yet. A and B stay, and so does the number of
    /// [`steps`](Learner::steps), by which a schedule goes on.
    pub fn reset_optimizer(&mut self) {
        self.first.fill(0);
        self.second.fill(0);
        self.moment_steps = 0;
        for state in self.states.iter_mut() {
            state.forget_moments();
        }
    }

    /// Makes the moments those of optimizer `tag`: another one's are forgotten.
    pub(crate) fn adopt(&mut self, tag: u8) {
        if self.optimizer != tag {
            self.reset_optimizer();
            // What the other one has half done to a tensor means nothing now: that tensor stays as it was in this step.
            if let Phase::Update { turn, .. } = &mut self.phase
                && *turn != Turn::START
            {
                *turn = Turn::Done;
            }
            self.optimizer = tag;
        }
    }

    /// Chooses what learns from now on, in place of what was chosen before: of every layer, by its number (its *site*, as `ranklet inspect`
    /// lists them), A, B, both or neither. All others stay as they are, and are used as before; backward ends at the lowest that
    /// learns. The moments of those that stay are kept, and a checkpoint keeps the choice. Where the plan is for B alone, A stays
    /// whatever is chosen.
    ///
    /// ```
    /// # use ranklet::train::{ChooseError, Half, Learner};
    /// # fn f(learner: &mut Learner<'_>) -> Result<(), ChooseError> {
    /// learner.choose(|site, _| site >= 21)?; // the upper two of five blocks of seven layers each
    /// learner.choose(|_, half| half == Half::B)?; // no: B everywhere
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChooseError::Busy`] in the middle of a sample, [`ChooseError::Batch`] in that of a batch; [`ChooseError::Nothing`] where nothing
    /// would learn. Nothing changes then.
    pub fn choose(&mut self, learns: impl Fn(u16, Half) -> bool) -> Result<(), ChooseError> {
        if self.phase != Phase::Idle {
            return Err(ChooseError::Busy);
        }
        if self.pending > 0 {
            return Err(ChooseError::Batch { pending: self.pending });
        }
        let only_b = self.train.only_b;
        let chosen = |r: &LoraRecord, half| learns(r.site, half) && !(only_b && half == Half::A);
        if !self.records.iter().any(|r| chosen(r, Half::A) || chosen(r, Half::B)) {
            return Err(ChooseError::Nothing);
        }
        // What the last sequence has left is that of another lowest layer.
        self.sequence.run = None;
        for index in 0..self.tensors() {
            let half = if index.is_multiple_of(2) { Half::A } else { Half::B };
            let learns = self.records.get(index / 2).is_some_and(|r| chosen(r, half));
            if let Some(mut t) = self.tensor(index) {
                t.state.set_learns(learns);
                if !learns {
                    t.clear_gradient();
                }
            }
        }
        Ok(())
    }

    /// The first layer that learns: below it nothing needs a gradient. None does from a sample that is only measured.
    pub(crate) fn lowest_site(&self) -> u16 {
        if self.measured {
            return u16::MAX;
        }
        let learns = |states: &[TensorState]| states.iter().any(TensorState::learns);
        let lowest = self.records.iter().zip(self.states.chunks(2)).find(|(_, states)| learns(states));
        lowest.map_or(u16::MAX, |(r, _)| r.site)
    }

    /// The mask of the sample under way at one site.
    pub(crate) fn dropout(&self, site: u16) -> Option<Dropout> {
        Dropout::new(self.mask.p, self.mask.seed, self.samples, u32::from(site))
    }
}
