//! The host side of ranklet: PyTorch and PEFT checkpoints become flash images, and what a device has learned becomes
//! a PEFT adapter again.
//!
//! | module | holds |
//! |---|---|
//! | [`checkpoint`], [`tensor`], [`save`] | safetensors in and out |
//! | [`spec`], [`base`], [`fingerprint`] | a base model in `f32`: spec file, weights, identity |
//! | [`quantize`] | from `f32` to the integers of an image |
//! | [`adapter`], [`peft`], [`loralayer`] | adapters in `f32`, and the formats they come in |
//! | [`atomic`], [`progress`], [`report`] | nothing half-written; bars; the two ways of saying something |
//! | [`boards`] | what the boards have, for `plan` |
#![forbid(unsafe_code)]

pub mod adapter;
pub mod atomic;
pub mod base;
pub mod boards;
pub mod checkpoint;
pub mod fingerprint;
pub mod loralayer;
pub mod peft;
pub mod progress;
pub mod quantize;
pub mod report;
pub mod save;
pub mod spec;
pub mod tensor;
