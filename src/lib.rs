//! Low-rank adapters (LoRA) that run **and learn** on microcontrollers: fixed point, no allocator.
//!
//! ```text
//! y = W x + b + s · B (A x)      W frozen, in flash      A (r, in), B (out, r): the only things that learn
//! ```
//!
//! A tour of the floors, top down; imports point down only:
//!
//! | floor | holds |
//! |---|---|
//! | `train` (feature `train`) | losses, optimizers, schedules, and the trainer: from a sample to an updated A and B |
//! | [`model`] | a whole network: its spec, its memory plan, the runner |
//! | [`layer`] | linear + LoRA and the head; forward and backward side by side |
//! | [`kernel`] | the seam for speed: inner products, generic and per architecture |
//! | [`image`] | the flash format: layout, checked zero-copy view, emitter |
//! | `store` (feature `store`) | what outlasts a power loss: records on NOR flash |
//! | [`fixed`] | numbers: block floating point, named roundings, nonlinear functions |
//! | [`memory`] | memory that is cut into slices |
//! | `float` | the only file that knows `f32`: at the edges |
//!
//! ```
//! use ranklet::{Exp, Input, Model, Plan, model::arena::Workspace};
//!
//! /// The largest of a network's outputs for one window of a sensor, 12 bits a sample.
//! fn classify(base: &[u8], memory: &mut [u8], window: &[i16]) -> Result<usize, Box<dyn core::error::Error>> {
//!     let model = Model::open(base)?; // checked once, then read in place
//!     let plan = Plan::new(base)?; // how much memory, and for what
//!     let mut scratch = Workspace::new(memory).scratch(&plan)?;
//!     let y = model.infer(&mut scratch, Input::i16(window, Exp(-11)), &[])?; // no adapters, one, or several
//!     Ok(ranklet::layer::head::argmax(y.mantissas))
//! }
//! ```
//!
//! `examples/learn.rs` trains an adapter, saves it, and uses it where it was saved. Features: `train`, `store` and `float` are on
//! unless switched off, `arm-dsp` chooses the kernels for cores with that extension (and does nothing elsewhere), `defmt` gives
//! errors a format.
#![no_std]
#![deny(unsafe_code, missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(target_endian = "big")]
compile_error!("ranklet reads its little-endian images in place; big-endian targets are not supported");

#[cfg(test)]
extern crate std;

pub mod fixed;
pub mod float;
pub mod image;
pub mod kernel;
pub mod layer;
pub mod memory;
pub mod model;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "train")]
pub mod train;

// What firmware names, at the root.
pub use fixed::hash::Seed;
pub use fixed::{Block, Exp, Real};
pub use image::Image;
pub use layer::normalize::Input;
pub use model::{Active, Adapter, Arena, Model, Plan, Roles, Scratch, Sequence, Train};
#[cfg(feature = "train")]
pub use train::{AdamW, Learner, Schedule, SequenceTarget, Sgd, Target, Trainer};
