//! [`Patience`]: when to stop.

use crate::fixed::Real;

/// Early stopping: so many looks at other data in a row may find nothing better.
///
/// ```
/// use ranklet::{Real, train::{Patience, patience::Verdict}};
/// let mut patience = Patience::new(2);
/// let looks = [3, 2, 2, 1, 4, 1].map(|loss| patience.look(Real::int(loss)));
/// use Verdict::{Better, Over, Wait};
/// assert_eq!(looks, [Better, Better, Wait, Better, Wait, Over]);
/// assert_eq!(patience.best(), Some(Real::int(1)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    looks: u32,
    since: u32,
    best: Option<Real>,
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// The best so far: keep the adapter as it is ([`Learner::write_to`](super::Learner::write_to)).
    Better,
    /// Not better, but there is patience left.
    Wait,
    /// Not better, so many times in a row: stop, and use what was kept.
    Over,
}

impl Patience {
    /// Patience for so many looks; 0 is taken as 1.
    #[must_use]
    pub const fn new(looks: u32) -> Patience {
        Patience { looks: if looks == 0 { 1 } else { looks }, since: 0, best: None }
    }

    /// Goes on after a restart: the lowest loss before it was `best`.
    #[must_use]
    pub const fn best_so_far(self, best: Real) -> Patience {
        Patience { best: Some(best), ..self }
    }

    /// A look: the loss on other data, as [`Score::loss`](super::Score::loss) has it.
    pub fn look(&mut self, loss: Real) -> Verdict {
        if self.best.is_none_or(|best| loss.less_than(best)) {
            (self.best, self.since) = (Some(loss), 0);
            return Verdict::Better;
        }
        self.since = self.since.saturating_add(1);
        if self.since >= self.looks { Verdict::Over } else { Verdict::Wait }
    }

    /// The lowest loss so far.
    #[must_use]
    pub const fn best(&self) -> Option<Real> {
        self.best
    }
}
