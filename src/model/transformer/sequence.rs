//! What a transformer is given: tokens, or vectors of features.

use crate::layer::normalize::Input;

/// A sequence of tokens or of feature vectors.
///
/// ```
/// use ranklet::model::Sequence;
/// let text = Sequence::tokens(&[101, 7592, 102, 0]).valid(&[true, true, true, false]);
/// assert_eq!(text.len(), 4);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) types: Option<&'a [u8]>,
    pub(crate) valid: Option<&'a [bool]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Tokens(&'a [u32]),
    /// Samples of all vectors, and how many vectors these are.
    Features(Input<'a>, usize),
}

impl<'a> Sequence<'a> {
    /// Tokens, by their numbers in the vocabulary.
    #[must_use]
    pub const fn tokens(ids: &'a [u32]) -> Sequence<'a> {
        Sequence { source: Source::Tokens(ids), types: None, valid: None }
    }

    /// `steps` feature vectors, `(steps, features)`, raw samples under one exponent, as a window of a sensor has them.
    #[must_use]
    pub const fn features(samples: Input<'a>, steps: usize) -> Sequence<'a> {
        Sequence { source: Source::Features(samples, steps), types: None, valid: None }
    }

    /// The type of each token (BERT's segments): `(tokens)`. Left out, all are 0.
    #[must_use]
    pub const fn types(self, types: &'a [u8]) -> Sequence<'a> {
        Sequence { types: Some(types), ..self }
    }

    /// Which tokens count; the others are padding, and nobody sees them: `(tokens)`. Left out, all do.
    #[must_use]
    pub const fn valid(self, valid: &'a [bool]) -> Sequence<'a> {
        Sequence { valid: Some(valid), ..self }
    }

    /// Tokens, or vectors.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.source {
            Source::Tokens(ids) => ids.len(),
            Source::Features(_, steps) => steps,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether token `index` counts.
    #[must_use]
    pub(crate) fn is_valid(&self, index: usize) -> bool {
        self.valid.is_none_or(|v| v.get(index).copied().unwrap_or(false))
    }
}
