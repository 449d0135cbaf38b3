//! [`Prefixes`]: what frozen blocks made of samples, kept in flash or RAM, so that samples that come again need not go through them.
//!
//! Where only upper blocks learn, what comes to the lowest of them from a sample is the same every time. A trainer that is given a sample
//! by [`recall`](Trainer::recall) goes on there, if it has been kept; [`keep`](Trainer::keep) keeps it behind one that was not.
//! (Skip2-LoRA, arXiv:2410.21073.)

use super::error::TrainError;
use super::loss::SequenceTarget;
use super::optimizer::Optimizer;
use super::phase::{Aim, Phase};
use super::sequence::course;
use super::trainer::Trainer;
use crate::fixed::hash::Digest;
use crate::memory::Workspace;
use crate::model::transformer::learn::{LearnShape, Side, Work, place_of};
use crate::model::{Scratch, Sequence};
use crate::store::{Log, StoreError};
use core::ops::Range;
use embedded_storage::nor_flash::NorFlash;
use zerocopy::IntoBytes;

/// Of the records of a log: their bytes are exponents, then mantissas.
const KIND: u32 = u32::from_le_bytes(*b"PRE\x01");

/// Kept prefixes, in a stretch of flash (or of [`Ram`](crate::store::Ram)).
///
/// Each is found by a hash, 64 bits, of what it follows from: the base image, the sample, the block it is given to, and every adapter
/// below, and how this version computes. What has changed is not found. A sequence of T tokens takes [`Log::bytes_of`]
/// 2 T (dim + 1) bytes (4,184 for 32 tokens of width 64), and stays until [`clear`](Prefixes::clear): where samples come and go, as from
/// a reservoir, clear when it is [`Full`](Keep::Full). The flash is given to every call: several things may lie in one.
///
/// ```
/// # use ranklet::{Plan, Model, Learner, model::{Scratch, Sequence}, store::Ram, train::{AdamW, Prefixes, SequenceTarget, Trainer}};
/// # fn f(model: &Model<'_>, learner: &mut Learner<'_>, scratch: &mut Scratch<'_>, texts: &[[u32; 32]], memory: &mut [u8]) -> Result<(), Box<dyn core::error::Error>> {
/// learner.choose(|site, _| site >= 21)?; // the upper blocks
/// let mut flash = Ram::new(memory); // in firmware: the board's driver
/// let mut prefixes = Prefixes::open(&mut flash, 0..131_072)?;
/// let mut trainer = Trainer::new(model, learner, AdamW::DEFAULT)?;
/// for epoch in 0..3 {
///     for text in texts {
///         trainer.recall(&mut prefixes, &mut flash, Sequence::tokens(text), SequenceTarget::Next, scratch)?;
///         trainer.step(scratch)?; // or `advance`, a unit at a time
///         trainer.keep(&mut prefixes, &mut flash)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Prefixes {
    log: Log,
    /// The sample that was asked for last and not found: its hash and its number.
    asked: Option<(u64, u32)>,
}

/// What has become of what was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Keep {
    /// It is kept.
    Kept,
    /// There is no more room: those that are kept stay of use, or [`Prefixes::clear`] makes room for those that come now.
    Full,
    /// There was nothing to keep: the sample was found, or not asked for by [`recall`](Trainer::recall), or is under way; or it has no
    /// prefix ([`keeps_prefixes`](Trainer::keeps_prefixes)).
    Nothing,
}

/// Why a sample cannot be begun with what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RecallError<E> {
    /// The trainer refuses the sample.
    Train(TrainError),
    /// The flash failed; the sample was not begun.
    Store(StoreError<E>),
}

impl<E: core::fmt::Debug> core::fmt::Display for RecallError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RecallError::Train(e) => e.fmt(f),
            RecallError::Store(e) => write!(f, "kept prefixes: {e}"),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for RecallError<E> {}

impl Prefixes {
    /// Those that lie in a stretch of whole pages; whatever else lies there is erased when the first is kept.
    ///
    /// # Errors
    /// [`StoreError::Stretch`], [`StoreError::Unit`], [`StoreError::Flash`].
    pub fn open<F: NorFlash>(flash: &mut F, stretch: Range<u32>) -> Result<Prefixes, StoreError<F::Error>> {
        Ok(Prefixes { log: Log::open(flash, stretch, KIND)?, asked: None })
    }

    /// Forgets all: after a change of the adapters below, which leaves those that are kept without use.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn clear<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        self.asked = None;
        self.log.clear(flash)
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.log.room()
    }
}

impl<O: Optimizer> Trainer<'_, '_, '_, O> {
    /// As [`sequence`](Trainer::sequence), with the same bits, but without the blocks that do not learn where what they give has been
    /// kept; returns whether it has. For a network that has no [`prefix`](Trainer::prefix) it is `sequence`.
    ///
    /// # Errors
    /// See [`RecallError`]; the adapter and its gradients are unchanged.
    pub fn recall<F: NorFlash>(
        &mut self,
        kept: &mut Prefixes,
        flash: &mut F,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<bool, RecallError<F::Error>> {
        kept.asked = None;
        self.lesson_of(Aim::Learn, None, sequence, target, None, scratch).map_err(RecallError::Train)?;
        let Some(key) = self.prefix_key() else { return Ok(false) };
        match self.fetch(kept, flash, key) {
            Ok(found) => {
                kept.asked = (!found).then_some((key, self.learner.samples));
                Ok(found)
            }
            Err(e) => {
                // As if it had not been given.
                self.learner.phase = Phase::Idle;
                self.learner.sequence.run = None;
                self.learner.samples = self.learner.samples.wrapping_sub(1);
                Err(RecallError::Store(e))
            }
        }
    }

    /// Behind a sample that was begun by [`recall`](Trainer::recall) and not found: keeps what came to the lowest block that
    /// learns.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn keep<F: NorFlash>(&mut self, kept: &mut Prefixes, flash: &mut F) -> Result<Keep, StoreError<F::Error>> {
        if self.learner.phase != Phase::Idle {
            return Ok(Keep::Nothing);
        }
        let Some((key, number)) = kept.asked.take() else { return Ok(Keep::Nothing) };
        // Of another sample, of another learner, or of other adapters by now.
        if number != self.learner.samples || self.prefix_key() != Some(key) {
            return Ok(Keep::Nothing);
        }
        let Some(prefix) = self.prefix() else { return Ok(Keep::Nothing) };
        let (exponents, mantissas) = (prefix.exponents.as_bytes(), prefix.mantissas.as_bytes());
        let fill = |at: usize, piece: &mut [u8]| {
            let from = exponents.iter().chain(mantissas).skip(at);
            piece.iter_mut().zip(from).for_each(|(to, &b)| *to = b);
        };
        match kept.log.append(flash, key, exponents.len() + mantissas.len(), fill) {
            Ok(()) => Ok(Keep::Kept),
            Err(StoreError::Full { .. }) => Ok(Keep::Full),
            Err(e) => Err(e),
        }
    }

    /// Whether there is anything to keep with this plan and what was chosen: not in a lean plan, not with dropout, not where the first block
    /// learns, not for a network with encoder and decoder, and not for a 32-bit residual stream. [`recall`](Trainer::recall) is
    /// [`sequence`](Trainer::sequence) then.
    #[must_use]
    pub fn keeps_prefixes(&self) -> bool {
        let spec = self.model.spec();
        let (Some(t), Some(plan)) = (spec.transformer(), self.learner.plan) else { return false };
        self.has_prefix(t, &LearnShape::of(spec, t, plan))
    }

    /// What the output of the blocks below follows from; `None` where there are none, or where it is not the same every time.
    fn prefix_key(&mut self) -> Option<u64> {
        let spec = self.model.spec();
        let (t, plan) = (spec.transformer()?, self.learner.plan?);
        let shape = LearnShape::of(spec, t, plan);
        let low = place_of(t, self.learner.lowest_site());
        if !self.has_prefix(t, &shape) {
            return None;
        }
        let below = |site| place_of(t, site) < low;
        let mut digest = Digest::NEW;
        digest.word(crate::fixed::ARITHMETIC);
        digest.bytes(&self.model.head().image.0);
        digest.word(low as u32);
        self.learner.view().hash(below, &mut digest);
        self.beside.iter().for_each(|adapter| adapter.hash(below, &mut digest));

        let own = self.learner.sequence.own;
        let work = Work::carve(&shape, Side::Stream, &mut Workspace::again(self.learner.work));
        digest.word(own as u32);
        digest.bytes(work.ids.get(..own).unwrap_or(&[]).as_bytes());
        digest.bytes(work.kinds.get(..own).unwrap_or(&[]));
        digest.bytes(work.valid.get(..own).unwrap_or(&[]));
        digest.bytes(work.features.mantissas.get(..own * spec.features).unwrap_or(&[]).as_bytes());
        digest.bytes(work.features.exponents.get(..own).unwrap_or(&[]).as_bytes());
        Some(digest.finish())
    }

    /// Where it has been kept, brings back what comes to the lowest block that learns, and goes on there.
    fn fetch<F: NorFlash>(&mut self, kept: &Prefixes, flash: &mut F, key: u64) -> Result<bool, StoreError<F::Error>> {
        let spec = self.model.spec();
        let (Some(t), Some(plan)) = (spec.transformer(), self.learner.plan) else { return Ok(false) };
        let own = self.learner.sequence.own;
        let Some(record) = kept.log.find(flash, None, |k| k == key)? else { return Ok(false) };
        if record.len != 2 * own * (t.dim + 1) {
            return Ok(false);
        }
        let shape = LearnShape::of(spec, t, plan);
        let course = course(self.learner, t);
        let mut work = Work::carve(&shape, Side::Stream, &mut Workspace::again(self.learner.work));
        let sound = kept.log.read(flash, &record, |at, piece| work.stream.set_bytes(own, at, piece))?;
        if sound {
            self.learner.phase = Phase::Lesson(course.behind(course.low()));
        }
        Ok(sound)
    }
}
