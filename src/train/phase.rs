//! Where a sample stands between two units, and what a unit is of and brings.

use super::update::Turn;
use crate::fixed::{Exp, Real};
use crate::model::transformer::learn::Unit;

/// What a unit brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    pub(super) more: bool,
    /// The sample's loss, from the unit that computed it.
    pub loss: Option<Real>,
    /// Whether this unit finished an optimizer step.
    pub stepped: bool,
}

impl Progress {
    /// Whether the sample has more units.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.more
    }
}

/// Where the next unit stands. `at` is the place of the layer's input in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Forward {
        site: u16,
        at: usize,
    },
    Loss {
        at: usize,
    },
    Backward {
        site: u16,
        at: usize,
        flip: usize,
        exponent: Exp,
    },
    /// Of a sequence.
    Lesson(Unit),
    /// The sample's gradient is complete: within a unit only.
    Gathered,
    Norm {
        tensor: usize,
        sum: Real,
    },
    Update {
        tensor: usize,
        factor: Real,
        turn: Turn,
    },
}

/// What a sample is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Learn,
    Measure,
}

/// What a unit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// From the sample to the last layer.
    Forward = 0,
    /// Head and loss; in a transformer, back to the last block, too.
    Loss = 1,
    /// In a transformer: what backward needs of a block, computed again.
    Again = 2,
    /// Backward of a layer; in a transformer, of a feed-forward.
    Backward = 3,
    /// Backward of attention: scores, weights and sums.
    Attention = 4,
    /// Backward of the layers before attention: queries, keys, values, and the output's.
    Projections = 5,
    /// The optimizer's step, with the norm of the gradients.
    Step = 6,
}

impl Part {
    /// All of them, in the order of their numbers.
    pub const ALL: [Part; 7] =
        [Part::Forward, Part::Loss, Part::Again, Part::Backward, Part::Attention, Part::Projections, Part::Step];

    /// In one word, for a table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Part::Forward => "forward",
            Part::Loss => "loss",
            Part::Again => "again",
            Part::Backward => "backward",
            Part::Attention => "attention",
            Part::Projections => "projections",
            Part::Step => "step",
        }
    }
}
