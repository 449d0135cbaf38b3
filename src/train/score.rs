//! How good outputs are: [`Answers`] of one sample, [`Score`] over many.

use super::loss::Staged;
use crate::fixed::{Block, Real};
use crate::layer::head::argmax;

/// What the outputs of a sample were worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Answers {
    /// Answers there were: a class, a label a token, a yes or no an output, a value an output.
    pub given: u32,
    /// Those that were right: the largest of the outputs, or their sign. Of values none is right or wrong.
    pub right: u32,
}

impl Answers {
    /// None.
    pub const NONE: Answers = Answers { given: 0, right: 0 };
}

/// The answers of one output and what it cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored {
    pub(crate) loss: Real,
    pub(crate) answers: Answers,
}

impl Scored {
    pub(crate) const NOTHING: Scored = Scored { loss: Real::ZERO, answers: Answers::NONE };
}

/// Of one output; `target`: where labels wait.
pub(crate) fn answers(y: Block<'_>, staged: Staged, target: &[i16]) -> Answers {
    match staged {
        Staged::Class(class) => Answers { given: 1, right: u32::from(argmax(y.mantissas) == class) },
        Staged::Labels => {
            let right = y.mantissas.iter().zip(target).filter(|&(&z, &yes)| (z > 0) == (yes != 0));
            Answers { given: y.mantissas.len() as u32, right: right.count() as u32 }
        }
        Staged::Values(_) => Answers { given: y.mantissas.len() as u32, right: 0 },
        Staged::Cotangent(_) => Answers::NONE,
    }
}

/// How good outputs are, over many samples: the mean loss of all answers, and how many were right.
///
/// ```
/// use ranklet::{Real, train::{Answers, Score}};
/// let mut score = Score::default();
/// score.add(Real::int(2), Answers { given: 3, right: 1 }); // three tokens, 2 nats each
/// score.add(Real::int(6), Answers { given: 1, right: 1 });
/// assert_eq!((score.loss(), score.answers().right, score.right_permille()), (Some(Real::int(3)), 2, 500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    sum: Real,
    answers: Answers,
}

impl Default for Score {
    fn default() -> Self {
        Score { sum: Real::ZERO, answers: Answers::NONE }
    }
}

impl Score {
    /// Adds a sample: its loss, which is the mean over its answers, and those.
    pub fn add(&mut self, loss: Real, answers: Answers) {
        self.sum = self.sum.add(loss.mul(Real::int(i64::from(answers.given))));
        self.answers.given = self.answers.given.saturating_add(answers.given);
        self.answers.right = self.answers.right.saturating_add(answers.right);
    }

    /// The mean loss of an answer; `None` where there is none.
    #[must_use]
    pub const fn loss(&self) -> Option<Real> {
        match self.answers.given {
            0 => None,
            given => Some(self.sum.div(Real::int(given as i64))),
        }
    }

    /// All answers, and those that were right.
    #[must_use]
    pub const fn answers(&self) -> Answers {
        self.answers
    }

    /// Right answers in thousandths, rounded to nearest; 0 where there is none.
    #[must_use]
    pub const fn right_permille(&self) -> u32 {
        let Answers { given, right } = self.answers;
        match given as u64 {
            0 => 0,
            given => ((right as u64 * 1000 + given / 2) / given) as u32,
        }
    }
}
