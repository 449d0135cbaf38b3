//! Shapes, as the records name them.

use core::fmt;

/// `inputs x outputs`, with the number of tokens first where there is more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Shape {
    /// One token.
    pub(super) const fn gemv((inputs, outputs): (usize, usize)) -> Self {
        Self { tokens: 1, inputs, outputs }
    }

    /// Multiply-accumulates of `W x`.
    pub(super) const fn macs(self) -> u64 {
        (self.tokens * self.inputs * self.outputs) as u64
    }

    /// Multiply-accumulates of one pass through an adapter's pair.
    pub(super) const fn lora_macs(self, rank: usize) -> u64 {
        (self.tokens * rank * (self.inputs + self.outputs)) as u64
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tokens > 1 {
            write!(f, "{}x", self.tokens)?;
        }
        write!(f, "{}x{}", self.inputs, self.outputs)
    }
}
