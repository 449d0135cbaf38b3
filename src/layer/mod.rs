//! Layers: forward and backward of each stand side by side in one file, because they are one piece of mathematics.
//!
//! Configuration is `&self`, state is `&mut`, scratch is the caller's; its size is a `const fn` beside the operation.
//!
//! * [`linear`]: [`Linear`] with any number of [`Lora`] pairs on it, and its activation
//! * [`activation`]: ReLU, GELU, SiLU, tanh, and gates; forward and backward
//! * [`attention`]: one token against the keys it sees
//! * [`dropout`]: the mask on an adapter's input, drawn by a hash
//! * [`embedding`]: rows of tables, summed
//! * [`gradient`]: where dA and dB accumulate
//! * [`head`]: what a network's last vector means
//! * [`norm`]: layer norm and RMS norm
//! * [`normalize`]: the input's per-feature normalisation
//! * [`residual`]: the stream that blocks add to
//! * [`rope`]: rotary positions
//! * [`sample`]: which token comes next, drawn from a language model's logits
//! * [`vector`]: biases, and the weights of norms

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod gradient;
pub mod head;
pub mod linear;
pub mod norm;
pub mod normalize;
pub mod residual;
pub mod rope;
pub mod sample;
pub mod vector;

pub use activation::Activation;
pub use attention::Attention;
pub use dropout::Dropout;
pub use linear::{Linear, Lora};
pub use norm::{Norm, NormKind};
pub use rope::Rope;
pub use vector::Vector;

/// An operand has another size than its layer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ShapeError {
    /// Which operand: "x", "y", "weights", "scratch.acc", …
    pub operand: &'static str,
    /// Elements the layer needs.
    pub needed: usize,
    /// Elements there are.
    pub found: usize,
}

impl core::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} has {} elements, the layer needs {}", self.operand, self.found, self.needed)
    }
}

impl core::error::Error for ShapeError {}

/// An operand that must have exactly `needed` elements.
pub(crate) fn exactly(operand: &'static str, needed: usize, found: usize) -> Result<(), ShapeError> {
    if found == needed { Ok(()) } else { Err(ShapeError { operand, needed, found }) }
}

/// The first `needed` elements of a buffer.
pub(crate) fn first<'a, T>(
    operand: &'static str,
    buffer: &'a mut [T],
    needed: usize,
) -> Result<&'a mut [T], ShapeError> {
    let found = buffer.len();
    buffer.get_mut(..needed).ok_or(ShapeError { operand, needed, found })
}
