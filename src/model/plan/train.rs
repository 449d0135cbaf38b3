//! [`Train`]: what a plan says of training.

use crate::fixed::Real;
#[cfg(feature = "train")]
use crate::image::LoraRecord;
use crate::model::spec::Roles;

/// What is to be trained: the part of a plan that training adds.
///
/// ```
/// use ranklet::model::{Roles, Train};
/// const TRAIN: Train = Train::adamw().rank(8).alpha(16).on(Roles::ALL);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    pub(crate) moments: usize,
    pub(crate) rank: u16,
    pub(crate) scaling: Option<Real>,
    pub(crate) alpha: Real,
    pub(crate) roles: Roles,
    pub(crate) dropout: bool,
    pub(crate) cotangents: bool,
    pub(crate) only_b: bool,
    pub(crate) immediate: bool,
    pub(crate) lean: bool,
    pub(crate) update_elements: usize,
}

/// Elements of an update in one unit, unless the plan says otherwise: some 150,000 instructions of AdamW on a Cortex-M4.
const UPDATE_ELEMENTS: usize = 256;

impl Train {
    const fn with_moments(moments: usize) -> Train {
        Train {
            moments,
            rank: 8,
            scaling: None,
            alpha: Real::int(8),
            roles: Roles::ALL,
            dropout: false,
            cotangents: false,
            only_b: false,
            immediate: false,
            lean: false,
            update_elements: UPDATE_ELEMENTS,
        }
    }

    /// Room for AdamW: two moments, 4 bytes a parameter.
    #[must_use]
    pub const fn adamw() -> Train {
        Train::with_moments(2)
    }

    /// Room for SGD with momentum: one moment, 2 bytes a parameter.
    #[must_use]
    pub const fn momentum() -> Train {
        Train::with_moments(1)
    }

    /// Room for plain SGD.
    #[must_use]
    pub const fn sgd() -> Train {
        Train::with_moments(0)
    }

    /// The rank of a fresh adapter, or the largest of one to be resumed: 1 to 64 (any other is refused when the learner
    /// starts). Default 8.
    #[must_use]
    pub const fn rank(self, rank: u16) -> Train {
        Train { rank, ..self }
    }

    /// alpha: the scaling is alpha / rank. Default 8, as PEFT's.
    #[must_use]
    pub const fn alpha(self, alpha: u16) -> Train {
        Train { alpha: Real::int(alpha as i64), ..self }
    }

    /// The scaling itself, where it is not alpha / rank (rslora: alpha / √rank).
    #[must_use]
    pub const fn scaling(self, scaling: Real) -> Train {
        Train { scaling: Some(scaling), ..self }
    }

    /// Which layers get an adapter: in a constant `Roles::Q.or(Roles::V)`, elsewhere also `Roles::Q | Roles::V`. Default: all.
    #[must_use]
    pub const fn on(self, roles: Roles) -> Train {
        Train { roles, ..self }
    }

    /// Room for dropout on the adapters' inputs.
    #[must_use]
    pub const fn dropout(self) -> Train {
        Train { dropout: true, ..self }
    }

    /// Room for the gradient of every token's output, where it is given in place of a loss.
    #[must_use]
    pub const fn cotangents(self) -> Train {
        Train { cotangents: true, ..self }
    }

    /// B alone learns, and A stays as it was drawn (LoRA-FA, arXiv:2308.03303): no gradient and no moments of A.
    #[must_use]
    pub const fn only_b(self) -> Train {
        Train { only_b: true, ..self }
    }

    /// In a transformer every sample makes a step, and the pairs of a block are updated as soon as their gradient is complete: there are
    /// accumulators for one block and not for all, and the result is the same to the bit. Batches and clipping need the gradient
    /// of all pairs together, and are refused. Changes nothing for a perceptron.
    #[must_use]
    pub const fn immediate(self) -> Train {
        Train { immediate: true, ..self }
    }

    /// In a transformer the input of every second block is kept, and that of the others is computed again from the block below; and forward
    /// takes one token at a time: about half of the activations, for a block's forward more in every second block's backward, and more
    /// instructions a product. The result is the same to the bit. (Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174.) Outputs of frozen blocks are not kept then
    /// (`Trainer::prefix`). Changes nothing for a perceptron.
    #[must_use]
    pub const fn lean(self) -> Train {
        Train { lean: true, ..self }
    }

    /// Elements of A or B that the optimizer works on in one unit, at least 1: what bounds the unit that is usually the
    /// longest. Every element takes two turns, one for its moments and one for itself. Default 256. Changes no result.
    #[must_use]
    pub const fn update_elements(self, elements: usize) -> Train {
        Train { update_elements: if elements == 0 { 1 } else { elements }, ..self }
    }

    /// Elements of a pair that learn.
    #[cfg(feature = "train")]
    #[must_use]
    pub(crate) fn learns_of(&self, r: &LoraRecord) -> usize {
        r.b_len() + if self.only_b { 0 } else { r.a_len() }
    }

    #[cfg(feature = "train")]
    /// s, as a fresh adapter gets it.
    #[must_use]
    pub(crate) const fn fresh_scaling(&self) -> Real {
        match self.scaling {
            Some(s) => s,
            None => self.alpha.mul(Real::ratio(1, self.rank as u32)),
        }
    }
}
