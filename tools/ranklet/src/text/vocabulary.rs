//! What an image holds of a language model's text: the tokens that end it, and, where the vocabulary is small, what
//! every token writes.

use super::{FILE, pieces::pieces};
use crate::files;
use crate::hf::Network;
use crate::hf::config::Config;
use anyhow::{Context, Result, bail};
use ranklet::model::HeadKind;
use ranklet::model::spec::Transformer;
use serde_json::Value;
use std::path::Path;

/// The largest vocabulary that is taken along unasked: some 40 KiB.
pub const SMALL: usize = 4096;

/// Whether a base's image holds its vocabulary, so that a device can show what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Where the checkpoint is a language model of up to 4096 tokens with a tokenizer.json.
    Auto,
    /// Yes, however large it is.
    Full,
    /// No.
    None,
}

/// What an image holds of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The tokens that end a text, where somebody has looked.
    pub ends: Option<Vec<u32>>,
    /// Section [`VOCABULARY`](ranklet::image::layout::section::VOCABULARY); empty where there is none.
    pub vocabulary: Vec<u8>,
}

impl Text {
    /// Of the checkpoint in `dir`.
    ///
    /// # Errors
    /// A tokenizer that cannot be read, is not known, or is that of another model; none where `full` asks for it.
    pub fn of(dir: &Path, network: &Network, choice: Choice) -> Result<Text> {
        let tokens = network.transformer.vocab;
        let language = network.head == HeadKind::Language;
        let ends = if language { Some(ends(dir, &network.transformer)?) } else { None };
        let file = dir.join(FILE);
        let wanted = match choice {
            Choice::None => false,
            Choice::Auto => language && tokens <= SMALL && file.exists(),
            Choice::Full if tokens == 0 => bail!("--vocabulary full: this model takes no tokens"),
            Choice::Full => true,
        };
        if !wanted {
            return Ok(Text { ends, vocabulary: vec![] });
        }
        let path = file.display();
        let text = files::read_text(&file).with_context(|| format!("cannot read {path}"))?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{path}: no JSON"))?;
        let pieces = pieces(&json, tokens).with_context(|| format!("{path} (--vocabulary none leaves it out)"))?;
        let vocabulary = section(&pieces, ends.as_deref().unwrap_or(&[])).with_context(|| path.to_string())?;
        Ok(Text { ends, vocabulary })
    }
}

/// `eos_token_id`, one or several, of generation_config.json, or else of config.json, or else as the family's class has
/// it. Ids that the model does not have (tiny models keep the field of the large one) end nothing.
///
/// # Errors
/// A file that cannot be read.
pub fn ends(dir: &Path, t: &Transformer) -> Result<Vec<u32>> {
    for name in ["generation_config.json", crate::spec::FILE] {
        let path = dir.join(name);
        let found = if path.exists() { Config::read(&path)?.tokens("eos_token_id") } else { vec![] };
        if !found.is_empty() {
            return Ok(found.into_iter().filter(|&id| (id as usize) < t.vocab).collect());
        }
    }
    Ok(if (t.end as usize) < t.vocab { vec![t.end] } else { vec![] })
}

/// The bytes of the section: see [`ranklet::image::vocabulary`].
///
/// # Errors
/// 4 GiB and more.
pub fn section(pieces: &[Vec<u8>], ends: &[u32]) -> Result<Vec<u8>> {
    let mut offsets = vec![0];
    let mut at = 0;
    for piece in pieces {
        at += piece.len();
        offsets.push(u32::try_from(at).context("a vocabulary beyond 4 GiB")?);
    }
    let counts = [pieces.len() as u32, ends.len() as u32, at as u32, 0];
    let numbers = counts.iter().chain(ends).chain(&offsets);
    Ok(numbers.flat_map(|n| n.to_le_bytes()).chain(pieces.concat()).collect())
}
