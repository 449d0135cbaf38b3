//! [`Pack`]: texts joined to sequences of one length, so that none is padded.

use super::loss::{IGNORE, SequenceTarget};
use crate::model::Sequence;
use heapless::Vec;

/// A sequence of T tokens that is being filled with one text after the other. Of every token the label is the one that follows in its
/// text, also where that is in the next sequence; the last token of a text has none.
///
/// To show a packed sequence again, keep its labels beside its tokens: what they end at does not show in the tokens.
///
/// As usual in packing, tokens see those of the text before, in the same sequence: put a token between texts that says so, if the
/// network knows one. (T5, arXiv:1910.10683, section 3.1.)
///
/// ```
/// use ranklet::train::{IGNORE, Pack};
/// let mut pack: Pack<4> = Pack::new();
/// assert_eq!(pack.fill(&[10, 11, 12]), []);
/// assert_eq!(pack.fill(&[20, 21, 22]), [21, 22]); // one token was taken
/// assert!(pack.is_full());
/// assert_eq!(pack.tokens(), [10, 11, 12, 20]);
/// assert_eq!(pack.labels(), [11, 12, IGNORE, 21]);
/// pack.clear(); // once it has been learned from
/// assert_eq!(pack.fill(&[21, 22]), []);
/// assert_eq!(pack.labels(), [22, IGNORE]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pack<const T: usize> {
    tokens: Vec<u32, T>,
    labels: Vec<u32, T>,
}

impl<const T: usize> Pack<T> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Pack<T> {
        Pack { tokens: Vec::new(), labels: Vec::new() }
    }

    /// Takes as many tokens of a text as there is room for; returns the others, which are for the next sequence.
    pub fn fill<'t>(&mut self, text: &'t [u32]) -> &'t [u32] {
        let count = (T - self.tokens.len()).min(text.len());
        let (own, rest) = text.split_at_checked(count).unwrap_or((text, &[]));
        // Both have the same length: what fits into the one fits into the other.
        let _ = self.tokens.extend_from_slice(own);
        let labels = text.iter().copied().skip(1).chain([IGNORE]).take(count);
        self.labels.extend(labels);
        rest
    }

    /// Whether there is no more room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.tokens.len() == T
    }

    /// Tokens so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Their labels.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// What a trainer takes.
    #[must_use]
    pub fn sequence(&self) -> (Sequence<'_>, SequenceTarget<'_>) {
        (Sequence::tokens(&self.tokens), SequenceTarget::Tokens(&self.labels))
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.labels.clear();
    }
}
