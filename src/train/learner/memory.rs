//! [`Learn`]: the buffers of a learner, cut from the memory that the plan counted.

use crate::fixed::Exp;
use crate::image::LoraRecord;
use crate::memory::Workspace;
use crate::model::plan::ScratchLengths;
use crate::model::transformer::learn::LearnPlan;
use crate::model::{ArenaError, Plan, Scratch, Train};
use crate::train::moments::TensorState;

/// The memory of a learner, before it holds an adapter.
#[derive(Debug)]
pub struct Learn<'a> {
    pub(in crate::train) train: Train,
    pub(in crate::train) scratch: ScratchLengths,
    pub(in crate::train) records: &'a mut [LoraRecord],
    pub(in crate::train) states: &'a mut [TensorState],
    pub(in crate::train) high: &'a mut [i16],
    pub(in crate::train) low: &'a mut [i16],
    pub(in crate::train) gradient: &'a mut [i32],
    pub(in crate::train) first: &'a mut [i16],
    pub(in crate::train) second: &'a mut [u16],
    pub(super) trace: &'a mut [i16],
    pub(super) trace_exponents: &'a mut [Exp],
    pub(super) gradients: [&'a mut [i16]; 2],
    pub(super) plan: Option<LearnPlan>,
    pub(super) work: &'a mut [u8],
}

impl<'a> Workspace<'a> {
    /// The buffers of inference and training.
    ///
    /// # Errors
    /// [`ArenaError::TooSmall`]; [`ArenaError::NotPlanned`] where the plan has no training.
    #[inline(never)] // What it needs on the stack is given back before training begins.
    pub fn split(mut self, plan: &Plan<'_>) -> Result<(Scratch<'a>, Learn<'a>), ArenaError> {
        self.reserve(plan.bytes())?;
        let train = plan.training().ok_or(ArenaError::NotPlanned)?;
        let scratch = self.carve_scratch(plan);
        Ok((scratch, Learn::carve(train, plan, &mut self)))
    }
}

impl<'a> Learn<'a> {
    fn carve(train: &Train, plan: &Plan<'_>, from: &mut Workspace<'a>) -> Learn<'a> {
        let l = plan.learn_lengths().unwrap_or_default();
        Learn {
            // A perceptron's gradients are accumulated together all the same.
            train: Train { immediate: train.immediate && plan.learn_plan().is_some(), ..*train },
            scratch: plan.scratch_lengths(),
            records: from.carve(l.records),
            states: from.carve(2 * l.records),
            high: from.carve(l.parameters),
            low: from.carve(l.parameters),
            gradient: from.carve(l.accumulators),
            first: from.carve(l.first_moment),
            second: from.carve(l.second_moment),
            trace: from.carve(l.trace),
            trace_exponents: from.carve(l.trace_exponents),
            gradients: [from.carve(l.gradient), from.carve(l.gradient)],
            plan: plan.learn_plan(),
            work: from.carve(l.work),
        }
    }

    /// The same buffers, as long as an adapter of so many layers and parameters needs them, so many of which learn.
    pub(in crate::train) fn shortened(self, records: usize, parameters: usize, learning: usize) -> Learn<'a> {
        Learn {
            records: shortened(self.records, records),
            states: shortened(self.states, 2 * records),
            high: shortened(self.high, parameters),
            low: shortened(self.low, parameters),
            gradient: if self.train.immediate { self.gradient } else { shortened(self.gradient, learning) },
            first: shortened(self.first, learning),
            second: shortened(self.second, learning),
            ..self
        }
    }
}

/// The first `len` of a buffer, or all of one that is absent.
fn shortened<T>(buffer: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(buffer.len());
    buffer.get_mut(..len).unwrap_or_default()
}
