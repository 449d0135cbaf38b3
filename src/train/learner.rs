//! A and B while they learn: masters, gradients, moments, and the activations that backward needs.

use super::loss::Staged;
use super::master::Master;
use super::moments::TensorState;
use super::optimizer::Tensor;
use super::trainer::Phase;
use crate::fixed::hash::{Purpose, Seed, Stream};
use crate::fixed::{Exp, Real};
use crate::image::{EmitError, Fingerprint, LoraRecord, MAX_RANK};
use crate::layer::gradient::Gradient;
use crate::layer::linear::LoraGradient;
use crate::model::adapter::{AdapterParts, check_records};
use crate::model::arena::Workspace;
use crate::model::plan::ScratchLengths;
use crate::model::{Active, Adapter, AdapterError, Model, Plan, Train};

/// Why a learner cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LearnError {
    /// The plan was made for another network than the model.
    Plan {
        /// What the model needs: layers with an adapter, parameters.
        needed: (usize, usize),
        /// What the plan made room for.
        found: (usize, usize),
    },
    /// The adapter to be resumed has no low plane: it can be used, but not trained on.
    NoLowPlane,
    /// The adapter to be resumed is larger than the plan: layers, parameters.
    TooLarge {
        /// What the adapter has.
        needed: (usize, usize),
        /// What the plan made room for.
        available: (usize, usize),
    },
    /// The adapter to be resumed contradicts the model.
    Adapter(AdapterError),
    /// A rank of 0, above 64, or (of an adapter to be resumed) above the plan's.
    Rank {
        /// The rank.
        found: u16,
        /// The largest there may be.
        limit: u16,
    },
    /// The adapter holds more than A and B (DoRA's gain, a bias), which are used but not trained.
    Extras {
        /// The layer that has them.
        site: u16,
    },
    /// No layer has the planned roles, or the scaling is 0: nothing would ever change.
    NothingToTrain,
}

impl core::fmt::Display for LearnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            LearnError::Plan { needed, found } => write!(
                f,
                "the plan is another network's: it made room for {} layers and {} parameters, the model needs {} and {}",
                found.0, found.1, needed.0, needed.1
            ),
            LearnError::NoLowPlane => {
                write!(f, "the adapter image has no low plane: it was stored for inference alone")
            }
            LearnError::TooLarge { needed, available } => write!(
                f,
                "the adapter has {} layers and {} parameters, the plan made room for {} and {}: plan a larger rank",
                needed.0, needed.1, available.0, available.1
            ),
            LearnError::Adapter(e) => e.fmt(f),
            LearnError::Rank { found, limit } => write!(f, "rank {found}; there is room for 1 to {limit}"),
            LearnError::Extras { site } => {
                write!(f, "the adapter of layer {site} is a DoRA or has a bias: such adapters are for inference")
            }
            LearnError::NothingToTrain => {
                write!(f, "nothing to train: no layer has the planned roles, or the scaling is 0")
            }
        }
    }
}

impl core::error::Error for LearnError {}

/// The memory of a learner, before it holds an adapter.
#[derive(Debug)]
pub struct Learn<'a> {
    train: Train,
    scratch: ScratchLengths,
    records: &'a mut [LoraRecord],
    states: &'a mut [TensorState],
    high: &'a mut [i16],
    low: &'a mut [i16],
    gradient: &'a mut [i32],
    first: &'a mut [i16],
    second: &'a mut [u16],
    trace: &'a mut [i16],
    trace_exponents: &'a mut [Exp],
    gradients: [&'a mut [i16]; 2],
}

impl<'a> Learn<'a> {
    pub(crate) fn carve(train: &Train, plan: &Plan<'_>, from: &mut Workspace<'a>) -> Learn<'a> {
        let l = plan.learn_lengths().unwrap_or_default();
        Learn {
            train: *train,
            scratch: plan.scratch_lengths(),
            records: from.carve(l.records),
            states: from.carve(2 * l.records),
            high: from.carve(l.parameters),
            low: from.carve(l.parameters),
            gradient: from.carve(l.parameters),
            first: from.carve(l.first_moment),
            second: from.carve(l.second_moment),
            trace: from.carve(l.trace),
            trace_exponents: from.carve(l.trace_exponents),
            gradients: [from.carve(l.gradient), from.carve(l.gradient)],
        }
    }

    /// A new adapter: A uniform within ±1/√in (PEFT's Kaiming initialisation), B zero, so that it changes nothing yet.
    ///
    /// # Errors
    /// [`LearnError::Plan`], [`LearnError::Rank`], [`LearnError::NothingToTrain`].
    pub fn fresh(self, model: &Model<'_>, seed: Seed) -> Result<Learner<'a>, LearnError> {
        let rank = self.train.rank;
        if !(1..=MAX_RANK).contains(&usize::from(rank)) {
            return Err(LearnError::Rank { found: rank, limit: MAX_RANK as u16 });
        }
        let scaling = self.train.fresh_scaling();
        if self.records.is_empty() || scaling.is_zero() {
            return Err(LearnError::NothingToTrain);
        }
        let mut used = (0, 0_usize);
        let mut records = self.records.iter_mut();
        for site in 0..model.spec().linears {
            let Some(l) = model.linear_spec(site).filter(|l| l.role.meets(self.train.roles)) else {
                continue;
            };
            let (a, b) = (usize::from(rank) * l.inputs, usize::from(rank) * l.outputs);
            if let Some(r) = records.next() {
                *r = LoraRecord {
                    site,
                    rank,
                    inputs: l.inputs as u32,
                    outputs: l.outputs as u32,
                    a_offset: used.1 as u32,
                    b_offset: (used.1 + a) as u32,
                    a_exponent: Exp::ZERO.0,
                    b_exponent: Exp::ZERO.0,
                    scaling_mantissa: scaling.mantissa(),
                    scaling_exponent: scaling.exponent() as i16,
                    flags: 0,
                    gain_offset: 0,
                    bias_offset: 0,
                    gain_exponent: 0,
                    bias_exponent: 0,
                    reserved: 0,
                };
            }
            used = (used.0 + 1, used.1 + a + b);
        }
        let found = (self.records.len(), self.high.len());
        if used != found {
            return Err(LearnError::Plan { needed: used, found });
        }
        let mut learner = self.start(model)?;
        learner.low.fill(0);
        learner.high.fill(0);
        for index in 0..learner.records.len() {
            learner.initialize(index, seed);
        }
        Ok(learner)
    }

    /// An adapter that has learned before and goes on: from any image with a low plane. The optimizer starts anew.
    ///
    /// # Errors
    /// [`LearnError::NoLowPlane`], [`LearnError::TooLarge`], [`LearnError::Rank`], [`LearnError::Plan`],
    /// [`LearnError::Adapter`] where it was opened for another base.
    pub fn resume(self, model: &Model<'_>, adapter: &Adapter<'_>) -> Result<Learner<'a>, LearnError> {
        let parameters = adapter.records().iter().map(|r| r.a_len() + r.b_len()).sum();
        let needed = (adapter.records().len(), parameters);
        let available = (self.records.len(), self.high.len());
        if adapter.low().len() != adapter.high().len() {
            return Err(LearnError::NoLowPlane);
        }
        let (expected, found) = (model.source(), adapter.head().source);
        if expected != found {
            return Err(LearnError::Adapter(AdapterError::Base { expected, found }));
        }
        let limit = self.train.rank;
        if let Some(r) = adapter.records().iter().find(|r| r.rank > limit) {
            return Err(LearnError::Rank { found: r.rank, limit });
        }
        if let Some(r) = adapter.records().iter().find(|r| r.has_extras()) {
            return Err(LearnError::Extras { site: r.site });
        }
        if needed.0 > available.0 || needed.1 > available.1 {
            return Err(LearnError::TooLarge { needed, available });
        }
        check_records(model, adapter.records(), adapter.high().len()).map_err(LearnError::Adapter)?;
        let Learn {
            train,
            scratch,
            records,
            states,
            high,
            low,
            gradient,
            first,
            second,
            trace,
            trace_exponents,
            gradients,
        } = self;
        let this = Learn {
            train,
            scratch,
            records: records.get_mut(..needed.0).unwrap_or_default(),
            states: states.get_mut(..2 * needed.0).unwrap_or_default(),
            high: high.get_mut(..needed.1).unwrap_or_default(),
            low: low.get_mut(..needed.1).unwrap_or_default(),
            gradient: gradient.get_mut(..needed.1).unwrap_or_default(),
            first: shortened(first, needed.1),
            second: shortened(second, needed.1),
            trace,
            trace_exponents,
            gradients,
        };
        // Laid out anew, densely: whatever offsets the image has, no two tensors share an element here.
        let mut at = 0;
        for (mine, theirs) in this.records.iter_mut().zip(adapter.records()) {
            let (a_offset, b_offset) = (at as u32, (at + theirs.a_len()) as u32);
            *mine = LoraRecord { a_offset, b_offset, ..*theirs };
            at += theirs.a_len() + theirs.b_len();
        }
        let mut learner = this.start(model)?;
        for (index, theirs) in adapter.records().iter().enumerate() {
            let (a, b) = (2 * index, 2 * index + 1);
            learner.copy(a, theirs.a_of(adapter.high()), theirs.a_of(adapter.low()), theirs.a_exponent);
            learner.copy(b, theirs.b_of(adapter.high()), theirs.b_of(adapter.low()), theirs.b_exponent);
        }
        Ok(learner)
    }

    fn start(self, model: &Model<'_>) -> Result<Learner<'a>, LearnError> {
        let spec = model.spec();
        let trace: usize =
            spec.outputs + (0..spec.linears).filter_map(|s| model.linear_spec(s)).map(|l| l.inputs).sum::<usize>();
        if trace > self.trace.len() || usize::from(spec.linears) >= self.trace_exponents.len() {
            return Err(LearnError::Plan { needed: (0, trace), found: (0, self.trace.len()) });
        }
        self.gradient.fill(0);
        self.first.fill(0);
        self.second.fill(0);
        self.states.fill(TensorState::NEW);
        Ok(Learner {
            train: self.train,
            scratch: self.scratch,
            source: model.source(),
            image: model.head().image,
            records: self.records,
            states: self.states,
            high: self.high,
            low: self.low,
            gradient: self.gradient,
            first: self.first,
            second: self.second,
            trace: self.trace,
            trace_exponents: self.trace_exponents,
            gradients: self.gradients,
            samples: 0,
            steps: 0,
            pending: 0,
            optimizer: 0,
            phase: Phase::Idle,
            staged: Staged::Labels,
        })
    }
}

/// The first `len` of a buffer, or all of one that is absent.
fn shortened<T>(buffer: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(buffer.len());
    buffer.get_mut(..len).unwrap_or_default()
}

/// An adapter that learns. [`view`](Learner::view) is usable in inference at any time.
#[derive(Debug)]
pub struct Learner<'a> {
    pub(crate) train: Train,
    pub(crate) scratch: ScratchLengths,
    source: Fingerprint,
    image: Fingerprint,
    records: &'a mut [LoraRecord],
    states: &'a mut [TensorState],
    high: &'a mut [i16],
    low: &'a mut [i16],
    gradient: &'a mut [i32],
    first: &'a mut [i16],
    second: &'a mut [u16],
    pub(crate) trace: &'a mut [i16],
    pub(crate) trace_exponents: &'a mut [Exp],
    pub(crate) gradients: [&'a mut [i16]; 2],
    pub(crate) samples: u32,
    pub(crate) steps: u32,
    /// Samples whose gradients are in the accumulators.
    pub(crate) pending: u32,
    /// Whose moments these are; 0 before the first trainer.
    optimizer: u8,
    /// The next unit: here, and not in the trainer, so that a trainer may be dropped between any two of them.
    pub(crate) phase: Phase,
    pub(crate) staged: Staged,
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

    /// Optimizer steps since the learner started.
    #[must_use]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// The gradient accumulators of record `index`, A's and B's: values and their exponent. They are emptied by each
    /// optimizer step; `None` where there is no such record.
    #[must_use]
    pub fn gradient(&self, index: usize) -> Option<[(&[i32], i32); 2]> {
        let r = self.records.get(index)?;
        let a = self.states.get(2 * index)?.gradient.exponent();
        let b = self.states.get(2 * index + 1)?.gradient.exponent();
        Some([(r.a_of(self.gradient), a), (r.b_of(self.gradient), b)])
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

    /// Forgets the optimizer's state: moments and the number of steps. A and B stay.
    pub fn reset_optimizer(&mut self) {
        self.first.fill(0);
        self.second.fill(0);
        self.steps = 0;
        for state in self.states.iter_mut() {
            state.forget_moments();
        }
    }

    /// Makes the moments those of optimizer `tag`: another one's are forgotten.
    pub(crate) fn adopt(&mut self, tag: u8) {
        if self.optimizer != tag {
            self.reset_optimizer();
            self.optimizer = tag;
        }
    }

    /// Sets a tensor from the planes of an image, whose bytes may be any: normalized, so that later sums fit.
    fn copy(&mut self, tensor: usize, high: &[i16], low: &[i16], exponent: i16) {
        let Some(mut t) = self.tensor(tensor) else { return };
        for ((g, &h), &l) in t.gradient.iter_mut().zip(high).zip(low) {
            let wide = i64::from(h) * 65536 + i64::from(l);
            *g = wide.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32;
        }
        t.master.set(t.gradient, i32::from(exponent));
        t.gradient.fill(0);
    }

    /// The first layer that has an adapter: below it nothing needs a gradient.
    pub(crate) fn lowest_site(&self) -> u16 {
        self.records.first().map_or(u16::MAX, |r| r.site)
    }

    /// Number of tensors: A and B of every record.
    pub(crate) fn tensors(&self) -> usize {
        self.states.len()
    }

    /// Tensor `index`: A of record index/2, or B where it is odd.
    pub(crate) fn tensor(&mut self, index: usize) -> Option<Tensor<'_>> {
        let r = self.records.get_mut(index / 2)?;
        let (at, len) =
            if index.is_multiple_of(2) { (r.a_offset as usize, r.a_len()) } else { (r.b_offset as usize, r.b_len()) };
        let exponent = if index.is_multiple_of(2) { &mut r.a_exponent } else { &mut r.b_exponent };
        let range = at..at.checked_add(len)?;
        Some(Tensor {
            master: Master { high: self.high.get_mut(range.clone())?, low: self.low.get_mut(range.clone())?, exponent },
            gradient: self.gradient.get_mut(range.clone())?,
            first: self.first.get_mut(range.clone()).unwrap_or_default(),
            second: self.second.get_mut(range).unwrap_or_default(),
            state: self.states.get_mut(index)?,
        })
    }

    /// The parts that forward needs: the adapter, and the trace to read from and write to.
    pub(crate) fn forward_parts(&mut self) -> ForwardParts<'_> {
        ForwardParts {
            view: Active::new(self.records, self.high, self.source),
            trace: self.trace,
            exponents: self.trace_exponents,
        }
    }

    /// The parts that backward of one layer needs: the record on `site` with its high plane's view, its gradients, the
    /// trace and the gradient vectors.
    pub(crate) fn backward_parts(&mut self, site: u16) -> BackwardParts<'_> {
        let index = self.records.binary_search_by_key(&site, |r| r.site).ok();
        let gradient = index.and_then(|i| {
            let r = self.records.get(i)?;
            let (a, b) = two_ranges(self.gradient, (r.a_offset, r.a_len()), (r.b_offset, r.b_len()))?;
            let [sa, sb] = self.states.get_mut(2 * i..2 * i + 2)? else { return None };
            Some(LoraGradient {
                a: Gradient { values: a, scale: &mut sa.gradient },
                b: Gradient { values: b, scale: &mut sb.gradient },
            })
        });
        let [g0, g1] = &mut self.gradients;
        BackwardParts {
            view: Active::new(self.records, self.high, self.source),
            gradient,
            trace: self.trace,
            trace_exponents: self.trace_exponents,
            gradients: [g0, g1],
        }
    }

    fn initialize(&mut self, index: usize, seed: Seed) {
        let Some((site, inputs)) = self.records.get(index).map(|r| (r.site, r.inputs)) else { return };
        // 30 uniform bits and a sign, times 1/√in: |h| < 2^30, so the bound's mantissa ends 30 bits lower.
        let bound = Real::int(i64::from(inputs)).rsqrt();
        let stream = Stream::new(seed, Purpose::Init, 0, u32::from(site));
        if let Some(mut t) = self.tensor(2 * index) {
            for (i, g) in t.gradient.iter_mut().enumerate() {
                let h = i64::from((stream.at(i as u32) as i32) >> 1);
                *g = crate::fixed::rounding::shift_right_half_even(h * i64::from(bound.mantissa()), 31) as i32;
            }
            t.master.set(t.gradient, bound.exponent() + 1);
            t.gradient.fill(0);
        }
        if let Some(mut t) = self.tensor(2 * index + 1) {
            t.master.set(t.gradient, 0); // all zero
        }
    }
}

/// See [`Learner::forward_parts`].
pub(crate) struct ForwardParts<'p> {
    pub(crate) view: Active<'p>,
    pub(crate) trace: &'p mut [i16],
    pub(crate) exponents: &'p mut [Exp],
}

/// See [`Learner::backward_parts`].
pub(crate) struct BackwardParts<'p> {
    pub(crate) view: Active<'p>,
    pub(crate) gradient: Option<LoraGradient<'p>>,
    pub(crate) trace: &'p [i16],
    pub(crate) trace_exponents: &'p [Exp],
    pub(crate) gradients: [&'p mut [i16]; 2],
}

/// Two disjoint ranges of a buffer, in either order.
fn two_ranges<T>(buffer: &mut [T], a: (u32, usize), b: (u32, usize)) -> Option<(&mut [T], &mut [T])> {
    let range = |(at, len): (u32, usize)| Some(at as usize..(at as usize).checked_add(len)?);
    let [a, b] = buffer.get_disjoint_mut([range(a)?, range(b)?]).ok()?;
    Some((a, b))
}
