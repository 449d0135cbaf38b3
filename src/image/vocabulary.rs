//! [`Vocabulary`]: the bytes that each token of a language model writes, read in place, so that a device can show what
//! it generates without a tokenizer.
//!
//! ```text
//! section 0x8022, opaque bytes, little-endian
//!
//!   0        4        8        12         16            16 + 4·ends    16 + 4·(ends + tokens + 1)
//!   +--------+--------+--------+----------+-------------+--------------+-----------------+
//!   | tokens | ends   | length | reserved | end-of-text | offsets      | bytes           |
//!   | u32    | u32    | u32    | u32 = 0  | ids u32     | u32          | of all tokens   |
//!   +--------+--------+--------+----------+-------------+--------------+-----------------+
//! ```
//!
//! Token `i` writes `bytes[offsets[i] .. offsets[i + 1]]`: the text itself, with what its tokenizer made of it undone
//! (byte-level letters, `▁`, `<0x0A>`). A token need not end where a character does, so a reader that shows characters
//! keeps the last few bytes until the next token. Special tokens, and ids that the tokenizer does not have, write nothing.

use super::layout::{slice_at, u32_at};

/// The fixed part of the section.
pub const HEADER: usize = 16;

pub(crate) const AT_TOKENS: usize = 0;
pub(crate) const AT_ENDS: usize = 4;
pub(crate) const AT_LENGTH: usize = 8;
pub(crate) const AT_RESERVED: usize = 12;

/// What is wrong with a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum VocabularyProblem {
    /// The section has another length than its counts say.
    Length {
        /// Bytes the counts make; `usize::MAX` where that is beyond an address.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// It is not that of this model.
    Tokens {
        /// Of the section.
        found: u32,
        /// Of the model.
        expected: u32,
    },
    /// The first offset is not 0, one is smaller than the one before it, or the last is not the length.
    Offset {
        /// Its index.
        index: u32,
    },
    /// An end-of-text id that the vocabulary does not have.
    End {
        /// Its index.
        index: u32,
    },
    /// Bytes that are reserved are not 0: written by a later version.
    Reserved,
}

impl core::fmt::Display for VocabularyProblem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            VocabularyProblem::Length { needed, available } => {
                write!(f, "its counts make {needed} bytes, there are {available}")
            }
            VocabularyProblem::Tokens { found, expected } => {
                write!(f, "it has {found} tokens, the model has {expected}")
            }
            VocabularyProblem::Offset { index } => write!(f, "offset {index} is out of order or out of range"),
            VocabularyProblem::End { index } => write!(f, "end-of-text id {index} is beyond the vocabulary"),
            VocabularyProblem::Reserved => write!(f, "reserved bytes are not 0: written by a later version"),
        }
    }
}

/// The vocabulary of a base image, checked: no accessor can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary<'a> {
    tokens: u32,
    ends: u32,
    section: &'a [u8],
}

impl<'a> Vocabulary<'a> {
    /// Reads a section and checks every offset of it once: O(tokens).
    ///
    /// # Errors
    /// The first [`VocabularyProblem`].
    pub fn parse(section: &'a [u8]) -> Result<Vocabulary<'a>, VocabularyProblem> {
        let vocabulary = Vocabulary::of(section)?;
        if u32_at(section, AT_RESERVED) != Some(0) {
            return Err(VocabularyProblem::Reserved);
        }
        let foreign = |&index: &u32| vocabulary.end(index).is_none_or(|id| id >= vocabulary.tokens);
        if let Some(index) = (0..vocabulary.ends).find(foreign) {
            return Err(VocabularyProblem::End { index });
        }
        let length = u32_at(section, AT_LENGTH).unwrap_or(0);
        let mut before = 0;
        for index in 0..=vocabulary.tokens {
            let at = vocabulary.offset(index);
            let edge = (index == 0 && at != 0) || (index == vocabulary.tokens && at != length);
            if at < before || at > length || edge {
                return Err(VocabularyProblem::Offset { index });
            }
            before = at;
        }
        Ok(vocabulary)
    }

    /// The counts alone: what a section says that [`parse`](Vocabulary::parse) has accepted.
    pub(crate) fn of(section: &'a [u8]) -> Result<Vocabulary<'a>, VocabularyProblem> {
        let available = section.len();
        let (Some(tokens), Some(ends), Some(length)) =
            (u32_at(section, AT_TOKENS), u32_at(section, AT_ENDS), u32_at(section, AT_LENGTH))
        else {
            return Err(VocabularyProblem::Length { needed: HEADER, available });
        };
        let needed = HEADER as u64 + 4 * (u64::from(ends) + u64::from(tokens) + 1) + u64::from(length);
        if needed != available as u64 {
            let needed = usize::try_from(needed).unwrap_or(usize::MAX);
            return Err(VocabularyProblem::Length { needed, available });
        }
        Ok(Vocabulary { tokens, ends, section })
    }

    /// Tokens: as many as the model's embedding has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.tokens as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// What token `id` writes: nothing where it is a special one, or none of this vocabulary.
    #[must_use]
    pub fn bytes_of(&self, id: u32) -> &'a [u8] {
        if id >= self.tokens {
            return &[];
        }
        let (from, to) = (self.offset(id) as usize, self.offset(id + 1) as usize);
        let base = HEADER + 4 * (self.ends as usize + self.tokens as usize + 1);
        slice_at(self.section, base + from, to.saturating_sub(from)).unwrap_or(&[])
    }

    /// The tokens that end a text. There may be none.
    pub fn ends(&self) -> impl Iterator<Item = u32> + use<'a> {
        let vocabulary = *self;
        (0..self.ends).filter_map(move |index| vocabulary.end(index))
    }

    /// Whether a text ends with this token.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends().any(|end| end == id)
    }

    fn end(&self, index: u32) -> Option<u32> {
        u32_at(self.section, HEADER + 4 * index as usize)
    }

    fn offset(&self, index: u32) -> u32 {
        u32_at(self.section, HEADER + 4 * (self.ends as usize + index as usize)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn section(tokens: &[&[u8]], ends: &[u32]) -> Vec<u8> {
        let lengths = tokens.iter().map(|t| t.len() as u32);
        let offsets: Vec<u32> = core::iter::once(0)
            .chain(lengths.scan(0, |at, n| {
                *at += n;
                Some(*at)
            }))
            .collect();
        let counts = [tokens.len() as u32, ends.len() as u32, *offsets.last().unwrap(), 0];
        let numbers = counts.iter().chain(ends).chain(&offsets);
        numbers.flat_map(|n| n.to_le_bytes()).chain(tokens.concat()).collect()
    }

    fn put(section: &mut [u8], at: usize, value: u32) {
        section[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn reads_what_was_written() {
        let bytes = section(&[b"", b" a", "\u{d55c}".as_bytes(), b"\xed", b""], &[0, 4]);
        let v = Vocabulary::parse(&bytes).unwrap();
        assert_eq!((v.len(), v.is_empty()), (5, false));
        let all: Vec<&[u8]> = (0..5).map(|id| v.bytes_of(id)).collect();
        assert_eq!(all, [&b""[..], b" a", "\u{d55c}".as_bytes(), b"\xed", b""]);
        assert_eq!(v.ends().collect::<Vec<_>>(), [0, 4]);
        assert!(v.is_end(4) && !v.is_end(3));
        for beyond in [5, 6, u32::MAX] {
            assert_eq!(v.bytes_of(beyond), b"");
            assert!(!v.is_end(beyond));
        }
    }

    #[test]
    fn an_empty_one_is_one() {
        let bytes = section(&[], &[]);
        let v = Vocabulary::parse(&bytes).unwrap();
        assert!(v.is_empty() && v.ends().next().is_none());
        assert_eq!(v.bytes_of(0), b"");
    }

    #[test]
    fn says_what_is_wrong() {
        let good = section(&[b"ab", b"c"], &[1]);
        let found = |at: usize, value: u32| {
            let mut bytes = good.clone();
            put(&mut bytes, at, value);
            Vocabulary::parse(&bytes).unwrap_err()
        };
        use VocabularyProblem::*;
        assert_eq!(found(0, 3), Length { needed: good.len() + 4, available: good.len() });
        assert_eq!(found(4, 0), Length { needed: good.len() - 4, available: good.len() });
        assert!(matches!(found(0, u32::MAX), Length { .. }));
        assert!(matches!(found(8, u32::MAX), Length { .. }));
        assert_eq!(found(12, 1), Reserved);
        assert_eq!(found(16, 2), End { index: 0 });
        assert_eq!(found(20, 1), Offset { index: 0 });
        assert_eq!(found(24, 4), Offset { index: 1 });
        assert_eq!(found(28, 1), Offset { index: 2 });
        assert_eq!(found(28, 2), Offset { index: 2 });
        for cut in 0..good.len() {
            assert!(matches!(Vocabulary::parse(&good[..cut]), Err(Length { .. })), "cut at {cut}");
        }
    }

    proptest! {
        /// Whatever the bytes: an error, or a view whose tokens are the bytes, one behind the other.
        #[test]
        fn any_bytes(tokens in 0u32..5, ends in 0u32..3, length in 0u32..8, tail in prop::collection::vec(0u8..6, 0..60)) {
            let mut bytes: Vec<u8> = [tokens, ends, length, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
            // Numbers that are small, so that some of them pass.
            bytes.extend(tail.iter().take((tokens + ends + 1) as usize).flat_map(|&b| u32::from(b).to_le_bytes()));
            bytes.extend(tail.iter().take(length as usize));
            if let Ok(v) = Vocabulary::parse(&bytes) {
                let all: Vec<u8> = (0..tokens).flat_map(|id| v.bytes_of(id)).copied().collect();
                prop_assert_eq!(&all[..], &bytes[bytes.len() - length as usize..]);
                prop_assert!(v.ends().all(|id| id < tokens));
            }
        }
    }
}
