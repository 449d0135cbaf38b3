//! What the trainer borrows of a learner for one unit of work.

use super::{Learner, Window};
use crate::fixed::Exp;
use crate::image::LoraRecord;
use crate::layer::gradient::Gradient;
use crate::layer::linear::LoraGradient;
use crate::model::Active;
use crate::train::master::Master;
use crate::train::moments::TensorState;
use crate::train::update::Tensor;
use core::ops::Range;

impl Learner<'_> {
    /// Number of tensors: A and B of every record.
    pub(crate) fn tensors(&self) -> usize {
        self.states.len()
    }

    /// Tensor `index`: A of record index/2, or B where it is odd.
    pub(crate) fn tensor(&mut self, index: usize) -> Option<Tensor<'_>> {
        let learned = learned(self.records, index, self.train.only_b);
        let r = self.records.get_mut(index / 2)?;
        let (at, len) =
            if index.is_multiple_of(2) { (r.a_offset as usize, r.a_len()) } else { (r.b_offset as usize, r.b_len()) };
        let exponent = if index.is_multiple_of(2) { &mut r.a_exponent } else { &mut r.b_exponent };
        let range = at..at.checked_add(len)?;
        let learned = learned.unwrap_or(0..0);
        let accumulators = self.window.accumulators(learned.clone());
        Some(Tensor {
            master: Master { high: self.high.get_mut(range.clone())?, low: self.low.get_mut(range)?, exponent },
            // None of a tensor whose block is not at hand.
            gradient: self.gradient.get_mut(accumulators).unwrap_or_default(),
            first: self.first.get_mut(learned.clone()).unwrap_or_default(),
            second: self.second.get_mut(learned).unwrap_or_default(),
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

    /// The parts that a unit of a sequence needs.
    pub(crate) fn lesson_parts(&mut self) -> LessonParts<'_> {
        LessonParts {
            view: Active::new(self.records, self.high, self.source),
            gradients: Gradients {
                // Nothing has a gradient from what is only measured.
                records: if self.measured { &[] } else { self.records },
                states: self.states,
                values: self.gradient,
                only_b: self.train.only_b,
                window: self.window,
            },
            work: self.work,
        }
    }

    /// The parts that backward of one layer needs: the record on `site` with its high plane's view, its gradients, the
    /// trace and the gradient vectors.
    pub(crate) fn backward_parts(&mut self, site: u16) -> BackwardParts<'_> {
        let only_b = self.train.only_b;
        let window = self.window;
        let all = Gradients { records: self.records, states: self.states, values: self.gradient, only_b, window };
        let gradient = all.into_one(site);
        let [g0, g1] = &mut self.gradients;
        BackwardParts {
            view: Active::new(self.records, self.high, self.source),
            gradient,
            trace: self.trace,
            trace_exponents: self.trace_exponents,
            gradients: [g0, g1],
        }
    }
}

/// See [`Learner::lesson_parts`].
pub(crate) struct LessonParts<'p> {
    pub(crate) view: Active<'p>,
    pub(crate) gradients: Gradients<'p>,
    pub(crate) work: &'p mut [u8],
}

/// The gradients of a whole adapter.
#[derive(Debug)]
pub(crate) struct Gradients<'p> {
    pub(crate) records: &'p [LoraRecord],
    pub(crate) states: &'p mut [TensorState],
    pub(crate) values: &'p mut [i32],
    pub(crate) only_b: bool,
    pub(crate) window: Window,
}

impl<'p> Gradients<'p> {
    /// Whether a layer learns.
    pub(crate) fn learns(&self, site: u16) -> bool {
        let index = self.records.binary_search_by_key(&site, |r| r.site).ok();
        let states = index.and_then(|i| self.states.get(2 * i..2 * i + 2));
        states.is_some_and(|states| states.iter().any(TensorState::learns))
    }

    /// Those of one layer, if it learns.
    pub(crate) fn of(&mut self, site: u16) -> Option<LoraGradient<'_>> {
        let (only_b, window) = (self.only_b, self.window);
        Gradients { records: self.records, states: self.states, values: self.values, only_b, window }.into_one(site)
    }

    fn into_one(self, site: u16) -> Option<LoraGradient<'p>> {
        let index = self.records.binary_search_by_key(&site, |r| r.site).ok()?;
        let [sa, sb] = self.states.get_mut(2 * index..2 * index + 2)? else { return None };
        let of = |half: usize, state: &TensorState| {
            let learned = learned(self.records, 2 * index + half, self.only_b).filter(|_| state.learns())?;
            Some(self.window.accumulators(learned))
        };
        let (a, b) = (of(0, sa), of(1, sb));
        let (a, b) = match (a, b) {
            (None, None) => return None,
            (Some(a), Some(b)) => {
                let [a, b] = self.values.get_disjoint_mut([a, b]).ok()?;
                (Some(a), Some(b))
            }
            (Some(a), None) => (self.values.get_mut(a), None),
            (None, Some(b)) => (None, self.values.get_mut(b)),
        };
        Some(LoraGradient {
            a: a.map(|values| Gradient { values, scale: &mut sa.gradient }),
            b: b.map(|values| Gradient { values, scale: &mut sb.gradient }),
        })
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

/// Where the gradient and the moments of a tensor are, among those of the ones that have any.
pub(super) fn learned(records: &[LoraRecord], tensor: usize, only_b: bool) -> Option<Range<usize>> {
    let index = tensor / 2;
    let r = records.get(index)?;
    if !only_b {
        let (at, len) =
            if tensor.is_multiple_of(2) { (r.a_offset as usize, r.a_len()) } else { (r.b_offset as usize, r.b_len()) };
        return Some(at..at.checked_add(len)?);
    }
    let at = records.get(..index)?.iter().map(LoraRecord::b_len).sum::<usize>();
    (!tensor.is_multiple_of(2)).then(|| at..at + r.b_len())
}
