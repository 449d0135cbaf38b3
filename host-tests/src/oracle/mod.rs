//! The float reference: what the fixed-point core should compute, written the plain way, generic over [`Scalar`]
//! (`f32` or `f64`) so that the two precisions can be compared with each other too.
//!
//! | file | holds |
//! |---|---|
//! | [`scalar`] | the few operations that `f32` and `f64` share |
//! | [`mlp`] | layers, low-rank pairs, forward and backward |
//! | [`mod@loss`] | the three losses with their gradients |
//! | [`optimizer`] | SGD with momentum and AdamW, as PyTorch has them |
//! | [`schedule`] | the learning rate over time, as `transformers` has it |
//! | [`trainer`] | accumulation, clipping, dropout, steps |
//! | [`sequences`] | the same for transformers, on the host tool's float reference |
//!
//! Gradients are checked against finite differences, optimizers against values printed by PyTorch's formulas.

pub mod loss;
pub mod mlp;
pub mod optimizer;
pub mod scalar;
pub mod schedule;
pub mod sequences;
pub mod trainer;

#[cfg(test)]
mod tests;

pub use loss::{Target, loss};
pub use mlp::{Linear, Masks, Mlp, Pair, PairGradient};
pub use optimizer::{Moments, Optimizer};
pub use scalar::Scalar;
pub use schedule::Schedule;
pub use sequences::{Goal, Item, SequenceTrainer};
pub use trainer::Trainer;
