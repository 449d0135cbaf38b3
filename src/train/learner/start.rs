//! How a learner starts: with a fresh adapter, or with one that has learned before.

use super::{Learn, Learner, Mask, Under, Window};
use crate::fixed::hash::{Purpose, Seed, Stream};
use crate::fixed::rounding::shift_right_half_even;
use crate::fixed::{Exp, Real};
use crate::image::{LoraRecord, MAX_RANK};
use crate::model::adapter::check_records;
use crate::model::plan::max;
use crate::model::spec::Transformer;
use crate::model::transformer::learn::{LearnPlan, LearnShape, Objective, place_of};
use crate::model::{Adapter, AdapterError, Model};
use crate::train::loss::Staged;
use crate::train::moments::TensorState;
use crate::train::phase::Phase;
use crate::train::score::Answers;

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
    /// The plan made too little room for what the adapter needs in training, in one buffer: it was made for another network.
    Room {
        /// Elements or bytes that are needed.
        needed: usize,
        /// Those that there are.
        found: usize,
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
    /// No layer has the planned roles, the adapter has no pair, or every scaling is 0: nothing would ever change.
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
            LearnError::Room { needed, found } => {
                write!(f, "the plan is another network's: it made room for {found} in a buffer that needs {needed}")
            }
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
                write!(f, "nothing to train: no layer has a pair, or every scaling is 0")
            }
        }
    }
}

impl core::error::Error for LearnError {}

impl<'a> Learn<'a> {
    /// A new adapter: A uniform within ±1/√in (PEFT's Kaiming initialisation), B zero, so that it changes nothing yet.
    ///
    /// # Errors
    /// [`LearnError::Plan`], [`LearnError::Room`], [`LearnError::Rank`], [`LearnError::NothingToTrain`]; [`LearnError::Adapter`] where the planned
    /// scaling is beyond 2^±1000 or so, more than an image can hold.
    #[inline(never)]
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
        // A scaling that no image could hold.
        check_records(model, self.records, self.high.len()).map_err(LearnError::Adapter)?;
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
    /// [`LearnError::NoLowPlane`], [`LearnError::TooLarge`], [`LearnError::Rank`], [`LearnError::Room`],
    /// [`LearnError::NothingToTrain`], [`LearnError::Adapter`] where it was opened for another base.
    #[inline(never)]
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
        if adapter.records().iter().all(|r| r.scaling().is_zero()) {
            return Err(LearnError::NothingToTrain);
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
        let learning = adapter.records().iter().map(|r| self.train.learns_of(r)).sum();
        let this = self.shortened(needed.0, needed.1, learning);
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

    #[inline(never)] // As `split`.
    pub(in crate::train) fn start(mut self, model: &Model<'_>) -> Result<Learner<'a>, LearnError> {
        let spec = model.spec();
        if let (Some(t), Some(plan)) = (spec.transformer(), self.plan) {
            let lowest = self.records.first().map_or(u16::MAX, |r| r.site);
            let planned = LearnPlan { lowest: plan.lowest.min(lowest), ..plan };
            self.plan = Some(planned);
            let needed = LearnShape::of(spec, t, planned).work_bytes();
            if needed > self.work.len() {
                return Err(LearnError::Room { needed, found: self.work.len() });
            }
            let (needed, found) = (self.accumulators(t), self.gradient.len());
            if needed > found {
                return Err(LearnError::Room { needed, found });
            }
            return Ok(self.begin(model));
        }
        let trace: usize =
            spec.outputs + (0..spec.linears).filter_map(|s| model.linear_spec(s)).map(|l| l.inputs).sum::<usize>();
        if trace > self.trace.len() || usize::from(spec.linears) >= self.trace_exponents.len() {
            return Err(LearnError::Room { needed: trace, found: self.trace.len() });
        }
        Ok(self.begin(model))
    }

    /// Accumulators that are needed at the same time.
    fn accumulators(&self, t: &Transformer) -> usize {
        let (mut place, mut here, mut most) = (usize::MAX, 0, 0);
        for r in self.records.iter() {
            let now = if self.train.immediate { place_of(t, r.site) } else { 0 };
            here = self.train.learns_of(r) + if now == place { here } else { 0 };
            place = now;
            most = max(most, here);
        }
        most
    }

    fn begin(self, model: &Model<'_>) -> Learner<'a> {
        let end = self.states.len();
        self.gradient.fill(0);
        self.first.fill(0);
        self.second.fill(0);
        self.states.fill(TensorState::NEW);
        if self.train.only_b {
            self.states.iter_mut().step_by(2).for_each(|a| a.set_learns(false));
        }
        Learner {
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
            plan: self.plan,
            work: self.work,
            sequence: Under {
                own: 0,
                source: 0,
                objective: Objective::Cotangents,
                loss: Real::ZERO,
                run: None,
                changed: false,
            },
            samples: 0,
            steps: 0,
            moment_steps: 0,
            pending: 0,
            window: Window { first: 0, end, base: 0, then: None },
            optimizer: 0,
            phase: Phase::Idle,
            staged: Staged::Labels,
            measured: false,
            answers: Answers::default(),
            mask: Mask { p: Real::ZERO, seed: Seed(0) },
        }
    }
}

impl Learner<'_> {
    /// Sets a tensor from the planes of an image, whose bytes may be any: normalized, so that later sums fit.
    fn copy(&mut self, tensor: usize, high: &[i16], low: &[i16], exponent: i16) {
        let Some(mut t) = self.tensor(tensor) else { return };
        t.master.set_by(i32::from(exponent), |i| {
            let half = |plane: &[i16]| i64::from(plane.get(i).copied().unwrap_or(0));
            (half(high) * 65536 + half(low)).clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32
        });
    }

    fn initialize(&mut self, index: usize, seed: Seed) {
        let Some((site, inputs)) = self.records.get(index).map(|r| (r.site, r.inputs)) else { return };
        // 30 uniform bits and a sign, times 1/√in: |h| < 2^30, so the bound's mantissa ends 30 bits lower.
        let bound = Real::int(i64::from(inputs)).rsqrt();
        let stream = Stream::new(seed, Purpose::Init, 0, u32::from(site));
        if let Some(mut t) = self.tensor(2 * index) {
            t.master.set_by(bound.exponent() + 1, |i| {
                let h = i64::from((stream.at(i as u32) as i32) >> 1);
                shift_right_half_even(h * i64::from(bound.mantissa()), 31) as i32
            });
        }
        if let Some(mut t) = self.tensor(2 * index + 1) {
            t.master.set(&[], 0); // all zero
        }
    }
}
