//! [`Runner`]: inference in bounded units, one layer each.

use super::Model;
use super::adapter::Active;
use super::plan::Scratch;
use crate::fixed::{Block, Exp, Tile, TileMut};
use crate::image::Fingerprint;
use crate::layer::normalize::{Input, Normalize};
use crate::layer::{Lora, ShapeError};

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
        let (expected, found) = (model.spec().features, input.len());
        if expected != found {
            return Err(RunError::Input { expected, found });
        }
        for (index, adapter) in adapters.iter().enumerate() {
            let (expected, found) = (model.source(), adapter.source());
            if expected != found {
                return Err(RunError::Adapter { index, expected, found });
            }
        }
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
        let loras = self.adapters.iter().filter_map(|a| -> Option<Lora<'_>> { a.lora(site) });
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
