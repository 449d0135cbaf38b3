//! What every board of ranklet runs, written once and knowing no chip.
//!
//! - [`board`]: what a board crate must provide, as one trait.
//! - Instruments: [`counter`] counts instructions and checks itself first; [`record`] prints what `cargo xtask` reads.
//! - Applications, each a `run(&mut board)`: [`checks`] (the suite proper: the digest), [`sequences`] and [`learning`]
//!   (transformers that run and that learn, with digests of their own), [`memory`] (what learning takes), [`mod@bench`], [`demo`], [`mod@write`] (a language
//!   model writes), and [`broken`], which only proves that a panic is seen.
//! - [`workload`]: what the suite's digest is taken over.
//! - Parts: [`digest`] (one number for many results), [`busy`] (a light between units of work).
//!
//! The same code runs on a microcontroller and, through `boards/host`, on the developer's machine.
#![no_std]
#![deny(unsafe_code)]

pub mod bench;
pub mod board;
pub mod broken;
pub mod busy;
pub mod checks;
pub mod counter;
#[cfg(feature = "demo")]
pub mod demo;
pub mod digest;
pub mod failure;
pub mod learning;
pub mod memory;
pub mod record;
mod rehearsing;
pub mod sequences;
#[cfg(feature = "demo")]
pub mod style;
pub mod workload;
pub mod write;

/// The kernel leaf that this build runs.
pub const LEAF: &str = ranklet::kernel::active::NAME;

pub use board::Board;
pub use failure::Failure;
