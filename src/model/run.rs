//! [`Runner`]: inference in bounded units, one layer each.

use super::Model;
use super::adapter::{Active, Loras};
use super::plan::Scratch;
use crate::fixed::{Block, Exp, Tile, TileMut};
use crate::image::Fingerprint;
use crate::layer::ShapeError;
use crate::layer::normalize::{Input, Normalize};

/// Why a network does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The input has another number of features than the network.
    Input {
        /// The spec's.
        expected: usize,
        /// The input's.
        found: usize,
    },
    /// An adapter in the list belongs to another base.
    Adapter {
        /// Its place in the list.
        index: usize,
        /// Of the model.
        expected: Fingerprint,
        /// Of the adapter's base.
        found: Fingerprint,
    },
    /// A buffer is too small: the scratch was split by the plan of another network.
    Shape(ShapeError),
    /// The call is for another kind of network: `infer` for perceptrons, `encode` and `decode` for transformers that
    /// have such a stack.
    Architecture,
    /// There is no such token in the vocabulary.
    Token {
        /// Its place in the sequence.
        index: usize,
        /// The token.
        found: u32,
        /// Tokens there are.
        vocab: usize,
    },
    /// The sequence is empty, or longer than the network or the plan allows.
    Length {
        /// Tokens.
        found: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The text is longer than the cache: plan a longer context, or start anew.
    Context {
        /// Tokens, those of the call included.
        needed: usize,
        /// What the cache can hold.
        capacity: usize,
    },
    /// Tokens of one kind where the network takes the other: numbers of a vocabulary, or feature vectors.
    InputKind,
    /// The decoder looks at an encoder's output, and there is none: call `encode` first.
    NoSource,
    /// The last call left no such token.
    Index {
        /// Its place.
        found: usize,
        /// Tokens there are.
        len: usize,
    },
}

impl core::fmt::Display for RunError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RunError::Input { expected, found } => {
                write!(f, "the input has {found} features, the network takes {expected}")
            }
            RunError::Adapter { index, expected, found } => {
                write!(f, "adapter {index} belongs to the base {found}, this one is {expected}")
            }
            RunError::Shape(e) => write!(f, "scratch of another network's plan: {e}"),
            RunError::Architecture => {
                write!(
                    f,
                    "the network is of another kind than the call is for: perceptrons infer, transformers encode or decode"
                )
            }
            RunError::Token { index, found, vocab } => {
                write!(f, "token {found} at place {index}, but the vocabulary has {vocab} tokens, from 0")
            }
            RunError::Length { found, limit } => {
                write!(
                    f,
                    "the sequence has {found} tokens; there is room for 1 to {limit} (plan more tokens, if the network can)"
                )
            }
            RunError::Context { needed, capacity } => write!(
                f,
                "the text has {needed} tokens, the cache holds {capacity}: plan a longer context, or clear the cache"
            ),
            RunError::InputKind => {
                write!(f, "the network takes the other kind of sequence: tokens of a vocabulary, or feature vectors")
            }
            RunError::NoSource => write!(f, "the decoder looks at an encoder's output: call encode first"),
            RunError::Index { found, len } => write!(f, "token {found} is asked for; the last call left {len}, from 0"),
        }
    }
}

impl core::error::Error for RunError {}

impl From<ShapeError> for RunError {
    fn from(e: ShapeError) -> Self {
        RunError::Shape(e)
    }
}

/// One inference under way. Between units its state lies in the scratch, which must be left alone meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'m, 'l> {
    model: &'m Model<'m>,
    adapters: &'l [Active<'l>],
    next: u16,
    exponent: Exp,
    width: usize,
}

impl<'m, 'l> Runner<'m, 'l> {
    /// Checks the operands and normalises the input.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn start(
        model: &'m Model<'m>,
        scratch: &mut Scratch<'_>,
        input: Input<'_>,
        adapters: &'l [Active<'l>],
    ) -> Result<Runner<'m, 'l>, RunError> {
        if model.spec().transformer().is_some() {
            return Err(RunError::Architecture);
        }
        let (expected, found) = (model.spec().features, input.len());
        if expected != found {
            return Err(RunError::Input { expected, found });
        }
        check_adapters(model, adapters)?;
        let [x, _] = &mut scratch.vectors;
        let x = crate::layer::first("scratch.vectors", x, expected)?;
        let exponent = Normalize::forward(model.normalize().as_ref(), input, x, scratch.acc)?;
        Ok(Runner { model, adapters, next: 0, exponent, width: expected })
    }

    /// Runs the next layer; returns whether there are more.
    ///
    /// # Errors
    /// [`RunError::Shape`] where the scratch is too small.
    pub fn advance(&mut self, scratch: &mut Scratch<'_>) -> Result<bool, RunError> {
        if self.next >= self.model.spec().linears {
            return Ok(false);
        }
        let site = self.next;
        let linear = self.model.linear(site);
        let [even, odd] = &mut scratch.vectors;
        let (x, y) = if site.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        let x = crate::layer::first("scratch.vectors", x, self.width)?;
        let y = crate::layer::first("scratch.vectors", y, linear.outputs)?;
        let mut exponent = [Exp::ZERO];
        let loras = Loras::new(self.adapters, site);
        linear.forward(
            Tile { mantissas: x, exponents: &[self.exponent] },
            loras,
            TileMut { mantissas: y, exponents: &mut exponent },
            &mut crate::layer::linear::Scratch { acc: scratch.acc, vector: &mut [], rank: &mut [], masked: &mut [] },
        )?;
        let [exponent] = exponent;
        self.exponent = exponent;
        self.width = linear.outputs;
        self.next += 1;
        Ok(self.next < self.model.spec().linears)
    }

    /// The vector behind the last layer that ran.
    #[must_use]
    pub fn output<'s>(&self, scratch: &'s Scratch<'_>) -> Block<'s> {
        let [even, odd] = &scratch.vectors;
        let y = if self.next.is_multiple_of(2) { even } else { odd };
        Block { mantissas: y.get(..self.width).unwrap_or(&[]), exponent: self.exponent }
    }
}

/// Whether all adapters belong to the model.
pub(crate) fn check_adapters(model: &Model<'_>, adapters: &[Active<'_>]) -> Result<(), RunError> {
    for (index, adapter) in adapters.iter().enumerate() {
        let (expected, found) = (model.source(), adapter.source());
        if expected != found {
            return Err(RunError::Adapter { index, expected, found });
        }
    }
    Ok(())
}
