//! Experiments: what adapters reach, in fixed point beside floats. Each gives a table and a picture; `cargo xtask experiment NAME`
//! puts them into `docs/experiments.md`.
//!
//! | file | what it asks |
//! |---|---|
//! | [`lora_vs_full`] | the classical comparison of LoRA with training everything |
//! | [`digits`] | how much rank a turned camera needs |
//! | [`style`] | whether a language model takes on a style from a few kilobytes |
//! | [`sentiment`] | whether a T5 classifier learns other words |
//! | [`train`] | training that tells of every step, in fixed point and in floats |

pub mod digits;
pub mod lora_vs_full;

pub mod sentiment;
pub mod style;
pub mod train;

/// What an experiment came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// A table, and a sentence or two.
    pub markdown: String,
    /// SVG.
    pub picture: String,
}

/// All of them.
pub const NAMES: [&str; 4] = ["lora_vs_full", "digits", "style", "sentiment"];

/// Runs one; `None` for a name that is none of [`NAMES`].
#[must_use]
pub fn run(name: &str) -> Option<Report> {
    Some(match name {
        "lora_vs_full" => lora_vs_full::run(),
        "digits" => digits::run(),
        "style" => style::run(),
        "sentiment" => sentiment::run(),

        _ => return None,
    })
}
