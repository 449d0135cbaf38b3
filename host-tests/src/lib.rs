//! What the host knows about ranklet that a device cannot: a float reference, models made in memory, and the study
//! that compares the two.
//!
//! | module | holds |
//! |---|---|
//! | [`oracle`] | perceptrons and transformers with LoRA in `f32` or `f64`: losses, PyTorch's optimizers |
//! | [`fixture`] | base and adapter images made in memory, opened, and read back for the oracle |
//! | [`tolerance`] | every tolerance of the tests, each with its reason |
//! | [`convergence`] | fixed-point training beside float training: `docs/convergence.md` |
//! | [`experiments`] | what adapters reach: `docs/experiments.md` |
//! | [`draw`] | reproducible random numbers |
#![forbid(unsafe_code)]

pub mod convergence;
pub mod draw;
pub mod experiments;
pub mod fixture;
pub mod oracle;
pub mod tolerance;
