//! stand-in
use crate::fixed::{Block, Exp};
use crate::layer::ShapeError;
pub use crate::layer::linear::Activation;
impl Activation {
 /// f
 pub fn forward(self, x: Block<'_>, y: &mut [i16], _acc: &mut [i64]) -> Result<Exp, ShapeError> { y.copy_from_slice(x.mantissas); Ok(x.exponent) }
 /// g
 pub fn gate(self, x: Block<'_>, _u: Block<'_>, y: &mut [i16], _acc: &mut [i64]) -> Result<Exp, ShapeError> { y.copy_from_slice(x.mantissas); Ok(x.exponent) }
}
