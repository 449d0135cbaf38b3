//! Text: from a checkpoint's own `tokenizer.json` to tokens and back, on the host; and what a device needs of it.
//!
//! | file | what it does |
//! |---|---|
//! | [`tokenizer`] | text becomes tokens, as transformers makes them |
//! | [`pieces`] | the bytes that each token writes |
//! | [`vocabulary`] | those, and the tokens that end a text, for an image |
//! | [`sampler`] | which token comes next |
//! | [`generation`] | a text goes on, token by token |
//! | [`writer`] | bytes become characters, as they come |
//! | [`classification`] | logits become labels and probabilities |

pub mod classification;
pub mod generation;
pub mod pieces;
pub mod sampler;
pub mod tokenizer;
pub mod vocabulary;
pub mod writer;

pub use tokenizer::Tokenizer;
pub use vocabulary::{Choice, Text};

/// The tokenizer's file.
pub const FILE: &str = "tokenizer.json";
