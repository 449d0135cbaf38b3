//! Fixed-point training beside float training on the dequantised base: the same data, order, initial A and B, and
//! hyper-parameters.
//!
//! How far apart may two honest trainings end? `f32` and `f64` do not agree with each other either, and initial values
//! that differ in the fourth digit end elsewhere. So the final figures are compared with the *spread* of float runs
//! that are themselves perturbed, and the spread is published beside them.
//!
//! | file | holds |
//! |---|---|
//! | [`run`] | one training, in fixed point or in floats |
//! | [`digits`], [`mod@sequences`] | what is learned, by a perceptron and by transformers |
//! | [`study`] | all of them, and what may be claimed |
//! | [`report`], [`svg`] | `docs/convergence.md` and its picture |

pub mod digits;
pub mod report;
pub mod run;
pub mod sequences;
pub mod study;
pub mod svg;
