//! What the trainer borrows of a learner for one unit of work.

use super::Learner;
use crate::fixed::Exp;
use crate::image::LoraRecord;
use crate::layer::gradient::Gradient;
use crate::layer::linear::LoraGradient;
use crate::model::Active;
use crate::train::master::Master;
use crate::train::moments::TensorState;
use crate::train::update::Tensor;

impl Learner<'_> {
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

    /// The parts that a unit of a sequence needs.
    pub(crate) fn lesson_parts(&mut self) -> LessonParts<'_> {
        LessonParts {
            view: Active::new(self.records, self.high, self.source),
            gradients: Gradients { records: self.records, states: self.states, values: self.gradient },
            work: self.work,
        }
    }

    /// The parts that backward of one layer needs: the record on `site` with its high plane's view, its gradients, the
    /// trace and the gradient vectors.
    pub(crate) fn backward_parts(&mut self, site: u16) -> BackwardParts<'_> {
        let all = Gradients { records: self.records, states: self.states, values: self.gradient };
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
}

impl<'p> Gradients<'p> {
    /// Whether a layer learns.
    pub(crate) fn learns(&self, site: u16) -> bool {
        self.records.binary_search_by_key(&site, |r| r.site).is_ok()
    }

    /// Those of one layer, if it learns.
    pub(crate) fn of(&mut self, site: u16) -> Option<LoraGradient<'_>> {
        Gradients { records: self.records, states: self.states, values: self.values }.into_one(site)
    }

    fn into_one(self, site: u16) -> Option<LoraGradient<'p>> {
        let index = self.records.binary_search_by_key(&site, |r| r.site).ok()?;
        let r = self.records.get(index)?;
        let (a, b) = two_ranges(self.values, (r.a_offset, r.a_len()), (r.b_offset, r.b_len()))?;
        let [sa, sb] = self.states.get_mut(2 * index..2 * index + 2)? else { return None };
        Some(LoraGradient {
            a: Gradient { values: a, scale: &mut sa.gradient },
            b: Gradient { values: b, scale: &mut sb.gradient },
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

/// Two disjoint ranges of a buffer, in either order.
fn two_ranges<T>(buffer: &mut [T], a: (u32, usize), b: (u32, usize)) -> Option<(&mut [T], &mut [T])> {
    let range = |(at, len): (u32, usize)| Some(at as usize..(at as usize).checked_add(len)?);
    let [a, b] = buffer.get_disjoint_mut([range(a)?, range(b)?]).ok()?;
    Some((a, b))
}
