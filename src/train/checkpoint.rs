//! Checkpoints: everything that a learner holds between two samples, so that training goes on bit for bit.
//!
//! An image ([`Learner::write_to`]) has what was learned; a checkpoint also has what was on the way: accumulated gradients,
//! moments, and the counts that seeds and schedules go by. It is of one firmware for itself, where an image is an exchange format.
//!
//! ```text
//! offset  0: "RKLTRAIN"        8: version u16, optimizer u8, gathered u8      12: records u32, parameters u32
//!        20: first moments u32, second moments u32        28: samples u32, steps u32, moment steps u32, pending samples u32
//!        44: source fingerprint, 16 bytes                 60: elements that learn u32
//!        64: records; states, 16 bytes a tensor; high i16, low i16, gradient i32 (where a batch is half gathered), first i16,
//!            second u16, an element each
//!        then CRC-32 of everything before it
//! ```
//!
//! Little-endian. The hyper-parameters, the seed and the place in the data are the caller's: `samples` and `steps` tell the latter.

use super::learner::{Learn, LearnError, Learner};
use super::moments::TensorState;
use super::phase::Phase;
use crate::image::layout::{CRC, Tables};
use crate::image::{Fingerprint, LoraRecord};
use crate::model::Model;
use crate::model::adapter::check_records;
use core::cmp::max;
use embedded_io::Write;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MAGIC: [u8; 8] = *b"RKLTRAIN";
const VERSION: u16 = 2;
/// Bytes before the records.
const HEADER: usize = 64;
const CRC_BYTES: usize = 4;

/// Why a checkpoint was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CheckpointError<E> {
    /// A sample or a step is half done: finish it first.
    Busy,
    /// The writer failed.
    Write(E),
}

impl<E: core::fmt::Debug> core::fmt::Display for CheckpointError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            CheckpointError::Busy => write!(f, "a sample is half done; advance until there is no more, then write"),
            CheckpointError::Write(e) => write!(f, "writing failed: {e:?}"),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for CheckpointError<E> {}

/// Why a checkpoint cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RestoreError {
    /// A batch is half gathered, and the plan makes a step after every sample (`Train::immediate`).
    Batch {
        /// Samples of it.
        pending: u32,
    },
    /// It was written where B alone learns (`Train::only_b`), and the plan is for A and B, or the other way round.
    Matrices {
        /// Elements that learn, by the plan.
        expected: usize,
        /// Those of the checkpoint.
        found: usize,
    },
    /// It was written with another number of moments, or with both matrices learning where B alone is to, or the other way round.
    Moments {
        /// Elements of the first and second moment, by the plan.
        expected: (usize, usize),
        /// Those of the checkpoint.
        found: (usize, usize),
    },
    /// The bytes do not begin as a checkpoint does.
    Magic,
    /// A version that this one does not know.
    Version {
        /// The checkpoint's.
        found: u16,
    },
    /// Fewer bytes, or more, than the header says.
    Length {
        /// By the header.
        expected: usize,
        /// There are.
        found: usize,
    },
    /// The checksum is another: damaged, or not written to its end.
    Crc {
        /// In the checkpoint.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// It was made with another base.
    Base {
        /// The model's source.
        expected: Fingerprint,
        /// The checkpoint's.
        found: Fingerprint,
    },
    /// A number that no learner has.
    Contents,
    /// The plan has other moments, or too little room.
    Learn(LearnError),
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RestoreError::Moments { expected, found } => write!(
                f,
                "the checkpoint has {} and {} elements of moments, the plan made room for {} and {}: plan with the optimizer and \
                 the matrices it was written with",
                found.0, found.1, expected.0, expected.1
            ),
            RestoreError::Batch { pending } => write!(
                f,
                "the checkpoint is in the middle of a batch, behind {pending} samples, and the plan makes a step after every one \
                 (Train::immediate): plan without it, or make the batch's step first (Trainer::flush)"
            ),
            RestoreError::Matrices { expected, found } => write!(
                f,
                "in the checkpoint {found} elements learn, by the plan {expected}: where B alone learned go on with B alone \
                 (Train::only_b, --only-b), and only there"
            ),
            RestoreError::Magic => write!(f, "not a checkpoint"),
            RestoreError::Version { found } => write!(f, "a checkpoint of version {found}; known is {VERSION}"),
            RestoreError::Length { expected, found } => {
                write!(
                    f,
                    "a checkpoint of {expected} bytes, of which there are {found}: truncated, or with something behind it"
                )
            }
            RestoreError::Crc { stored, computed } => {
                write!(f, "damaged checkpoint: CRC-32 {computed:08x}, stored {stored:08x}")
            }
            RestoreError::Base { expected, found } => {
                write!(f, "the checkpoint was made with base {found}, this is {expected}")
            }
            RestoreError::Contents => write!(f, "the checkpoint holds a number that no learner has"),
            RestoreError::Learn(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for RestoreError {}

impl Learner<'_> {
    /// What has been accumulated between two samples: nothing behind a step.
    const fn accumulated(&self) -> &[i32] {
        if self.pending > 0 { self.gradient } else { &[] }
    }

    /// Bytes of a checkpoint.
    #[must_use]
    pub const fn checkpoint_len(&self) -> usize {
        HEADER
            + size_of_val::<[LoraRecord]>(self.records)
            + size_of_val::<[TensorState]>(self.states)
            + 4 * (self.high.len() + self.accumulated().len())
            + 2 * (self.first.len() + self.second.len())
            + CRC_BYTES
    }

    /// Writes a checkpoint, between two samples. What is written is all or nothing to whoever reads it: the checksum stands last.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn checkpoint<W: Write>(&self, out: &mut W) -> Result<(), CheckpointError<W::Error>> {
        if self.phase != Phase::Idle {
            return Err(CheckpointError::Busy);
        }
        let mut out = Summed { out, digest: CRC.digest() };
        out.put(&MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&[self.optimizer, u8::from(self.pending > 0)])?;
        let lengths = [self.records.len(), self.high.len(), self.first.len(), self.second.len()];
        for length in lengths {
            out.put(&(length as u32).to_le_bytes())?;
        }
        for count in [self.samples, self.steps, self.moment_steps, self.pending] {
            out.put(&count.to_le_bytes())?;
        }
        out.put(&self.source().0)?;
        let learning: usize = self.records.iter().map(|r| self.train.learns_of(r)).sum();
        out.put(&(learning as u32).to_le_bytes())?;
        out.put(self.records.as_bytes())?;
        out.put(self.states.as_bytes())?;
        out.put(self.high.as_bytes())?;
        out.put(self.low.as_bytes())?;
        out.put(self.accumulated().as_bytes())?;
        out.put(self.first.as_bytes())?;
        out.put(self.second.as_bytes())?;
        let crc = out.digest.finalize().to_le_bytes();
        out.out.write_all(&crc).map_err(CheckpointError::Write)
    }
}

struct Summed<'w, W> {
    out: &'w mut W,
    digest: crc::Digest<'static, u32, Tables>,
}

impl<W: Write> Summed<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError<W::Error>> {
        self.digest.update(bytes);
        self.out.write_all(bytes).map_err(CheckpointError::Write)
    }
}

/// Bytes that are read one part after the other.
struct Parts<'b>(&'b [u8]);

impl<'b> Parts<'b> {
    fn take(&mut self, len: usize) -> &'b [u8] {
        let (part, rest) = self.0.split_at_checked(len).unwrap_or((self.0, &[]));
        self.0 = rest;
        part
    }

    fn u32(&mut self) -> u32 {
        self.take(4).first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
    }

    /// Fills a buffer, from bytes at any address.
    fn fill<T: FromBytes + IntoBytes + Immutable>(&mut self, to: &mut [T]) {
        let to = to.as_mut_bytes();
        let from = self.take(to.len());
        if from.len() == to.len() {
            to.copy_from_slice(from);
        }
    }
}

impl<'a> Learn<'a> {
    /// A learner that goes on where a checkpoint was written. `bytes` may stand anywhere. The trainer is to be set up as it was: with
    /// the same optimizer and seed the same bits come out as if nothing had happened.
    ///
    /// # Errors
    /// See [`RestoreError`]. The buffers are used up then: split the memory anew to start afresh.
    pub fn restore(self, model: &Model<'_>, bytes: &[u8]) -> Result<Learner<'a>, RestoreError> {
        let mut parts = Parts(bytes);
        if parts.take(MAGIC.len()) != MAGIC {
            return Err(RestoreError::Magic);
        }
        let found = parts.take(2).first_chunk().map_or(0, |b| u16::from_le_bytes(*b));
        if found != VERSION {
            return Err(RestoreError::Version { found });
        }
        let &[optimizer, gathered] = parts.take(2).first_chunk().unwrap_or(&[0, 0]);
        let [records, parameters, first, second] = [(); 4].map(|()| parts.u32() as usize);
        let [samples, steps, moment_steps, pending] = [(); 4].map(|()| parts.u32());
        let mut source = Fingerprint::default();
        source.0.iter_mut().zip(parts.take(16)).for_each(|(to, &b)| *to = b);
        let learning = parts.u32() as usize;
        let states = records as u64 * (size_of::<LoraRecord>() + 2 * size_of::<TensorState>()) as u64;
        let gradient = if gathered == 0 { 0 } else { learning };
        let elements = 4 * (parameters as u64 + gradient as u64) + 2 * (first as u64 + second as u64);
        let expected = usize::try_from((HEADER + CRC_BYTES) as u64 + states + elements).unwrap_or(usize::MAX);
        if bytes.len() != expected {
            return Err(RestoreError::Length { expected, found: bytes.len() });
        }
        let (summed, stored) = bytes.split_at(expected - CRC_BYTES);
        let stored = stored.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let computed = CRC.checksum(summed);
        if stored != computed {
            return Err(RestoreError::Crc { stored, computed });
        }
        if source != model.source() {
            return Err(RestoreError::Base { expected: model.source(), found: source });
        }
        let (needed, available) = ((records, parameters), (self.records.len(), self.high.len()));
        if needed.0 > available.0 || needed.1 > available.1 {
            return Err(RestoreError::Learn(LearnError::TooLarge { needed, available }));
        }
        let this = self.shortened(records, parameters, max(first, learning));
        let (expected, found) = ((this.first.len(), this.second.len()), (first, second));
        if expected != found {
            return Err(RestoreError::Moments { expected, found });
        }
        // The records, before anything that they say is believed.
        parts.fill(this.records);
        let checked = check_records(model, this.records, parameters).map_err(LearnError::Adapter);
        checked.map_err(RestoreError::Learn)?;
        let limit = this.train.rank;
        if let Some(r) = this.records.iter().find(|r| r.rank > limit) {
            return Err(RestoreError::Learn(LearnError::Rank { found: r.rank, limit }));
        }
        // As a learner lays them out: no two tensors share an element.
        let mut at = 0;
        for r in this.records.iter() {
            if r.has_extras() || r.a_offset as usize != at || r.b_offset as usize != at + r.a_len() {
                return Err(RestoreError::Contents);
            }
            at += r.a_len() + r.b_len();
        }
        let train = this.train;
        let learns: usize = this.records.iter().map(|r| train.learns_of(r)).sum();
        if at != parameters {
            return Err(RestoreError::Contents);
        }
        if learning != learns {
            return Err(RestoreError::Matrices { expected: learns, found: learning });
        }
        let moments = |len: usize| len == 0 || len == learning;
        if gathered > 1 || (gathered == 1) != (pending > 0) || !moments(first) || !moments(second) {
            return Err(RestoreError::Contents);
        }
        if gathered == 1 && train.immediate {
            return Err(RestoreError::Batch { pending });
        }
        let mut learner = this.start(model).map_err(RestoreError::Learn)?;
        parts.fill(learner.states);
        parts.fill(learner.high);
        parts.fill(learner.low);
        if gathered == 1 {
            parts.fill(learner.gradient);
        }
        parts.fill(learner.first);
        parts.fill(learner.second);
        let learns = |states: &[TensorState]| states.iter().any(TensorState::learns);
        let a = learner.train.only_b && learner.states.iter().step_by(2).any(TensorState::learns);
        if !learner.is_sound() || a || !learns(learner.states) || pending > samples {
            return Err(RestoreError::Contents);
        }
        (learner.samples, learner.steps, learner.moment_steps) = (samples, steps, moment_steps);
        (learner.pending, learner.optimizer) = (pending, optimizer);
        Ok(learner)
    }
}

impl Learner<'_> {
    /// Whether every tensor's numbers are within what training keeps them in.
    fn is_sound(&mut self) -> bool {
        (0..self.tensors()).all(|index| {
            self.tensor(index).is_some_and(|t| {
                let scale = t.state.gradient;
                let within = |v: &i32| v.unsigned_abs() <= scale.bound();
                let gradient = scale.is_sound() && t.gradient.iter().all(within);
                gradient && t.state.is_sound() && t.master.values().all(|m| m.unsigned_abs() <= 1 << 30)
            })
        })
    }
}
