//! Fixed-point training beside float training on the dequantised base: the same data, order, initial A and B, and
//! hyper-parameters.
//!
//! | file | holds |
//! |---|---|
//! | [`run`] | one training, in fixed point or in floats |
//! | [`digits`], [`mod@sequences`] | what is learned, by a perceptron and by transformers |
//! | [`study`] | trainings side by side, and what may be claimed |
//! | [`chapter`] | which there are |
//! | [`report`], [`svg`] | `docs/convergence.md` and its picture |

pub mod chapter;
pub mod digits;
pub mod report;
pub mod run;
pub mod sequences;
pub mod study;
pub mod svg;
