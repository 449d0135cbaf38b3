//! Text: from a checkpoint's own `tokenizer.json` to tokens and back, on the host; and what a device needs of it.
//!
//! | file | what it does |
//! |---|---|
//! | [`pieces`] | the bytes that each token writes |
//! | [`vocabulary`] | those, and the tokens that end a text, for an image |

pub mod pieces;
pub mod vocabulary;

pub use vocabulary::{Choice, Text};

/// The tokenizer's file.
pub const FILE: &str = "tokenizer.json";
