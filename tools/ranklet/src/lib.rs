//! The host side of ranklet: PyTorch and PEFT checkpoints become flash images, and what a device has learned becomes
//! a PEFT adapter again.
//!
//! | module | holds |
//! |---|---|
//! | [`commands`] | the command line, one file a command |
//! | [`training`], [`infer`], [`metrics`] | the core, driven on the host: the device's own arithmetic |
//! | [`export`] | back to PEFT, with a model card |
//! | [`image`] | images in and out, through the core's own emitter and checks |
//! | [`adapter`], [`peft`], [`gguf`], [`loralayer`] | adapters in `f32`, and the formats they come in |
//! | [`dora`], [`whole`], [`sum`] | magnitudes, and layers trained whole, as pairs and back; sums of adapters |
//! | [`spec`], [`base`], [`fingerprint`] | a perceptron in `f32`: spec file, weights, identity |
//! | [`hf`], [`sequences`], [`lessons`] | transformers' checkpoints; what transformers are given, and learn from |
//! | [`mod@reference`], [`verify`] | networks in floats, and the integers held against them |
//! | [`quantize`] | from `f32` to the integers of an image |
//! | [`text`] | tokenizers: text in and out, and the vocabulary of an image |
//! | [`checkpoint`], [`dataset`], [`tensor`], [`save`] | safetensors in and out |
//! | [`files`], [`atomic`] | regular files in; nothing half-written out |
//! | [`describe`] | what a base is, in words and in JSON |
//! | [`progress`], [`report`], [`chart`], [`journal`] | bars; the two ways of saying something; lines in a picture; what a training came by |
//! | [`boards`] | what the boards have, for `plan` |
#![forbid(unsafe_code)]

pub mod adapter;
pub mod atomic;
pub mod base;
pub mod boards;
pub mod chart;
pub mod checkpoint;
pub mod commands;
pub mod dataset;
pub mod describe;
pub mod dora;
pub mod export;
pub mod files;
pub mod fingerprint;
pub mod gguf;
pub mod hf;
pub mod image;
pub mod infer;
pub mod journal;
pub mod lessons;
pub mod loralayer;
pub mod metrics;
pub mod peft;
pub mod progress;
pub mod quantize;
pub mod reference;
pub mod report;
pub mod save;
pub mod sequences;
pub mod spec;
pub mod sum;
pub mod tensor;
pub mod text;
pub mod training;
pub mod verify;
pub mod whole;
