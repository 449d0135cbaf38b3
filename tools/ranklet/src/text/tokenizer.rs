//! Text becomes tokens, with the `tokenizers` crate and the checkpoint's own file: its normalizer, its template of
//! special tokens, its types.

use super::FILE;
use super::pieces::{pieces, strips_first_space};
use crate::files;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ranklet::model::spec::Transformer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::{PostProcessor, TruncationParams};

/// A tokenizer that fits a model.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    json: Value,
    inner: tokenizers::Tokenizer,
    vocab: usize,
    positions: usize,
}

/// A text's tokens, and where each stands in it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Their numbers.
    pub ids: Vec<u32>,
    /// Their types, or none where all are 0.
    pub types: Vec<u8>,
    /// By token: its bytes in the text, and the number of its word; `None` for what the template has added.
    pub places: Vec<Option<(std::ops::Range<usize>, Option<u32>)>>,
    /// Tokens the text would have had, if it was cut to what the model takes.
    pub cut_from: Option<usize>,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`, or that of a directory.
    ///
    /// # Errors
    /// A file that cannot be read, or is none; a tokenizer with more tokens than the model has.
    pub fn open(path: &Path, t: &Transformer) -> Result<Tokenizer> {
        ensure!(t.vocab > 0, "this base takes vectors of features, not text; `run` gives them to it");
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let shown = file.display();
        if path.is_dir() && !file.exists() {
            bail!("{}: no {FILE}; `AutoTokenizer.from_pretrained(…).save_pretrained(…)` writes one", path.display());
        }
        let text = files::read_text(&file).with_context(|| format!("cannot read {shown}"))?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{shown}: no JSON"))?;
        let mut inner: tokenizers::Tokenizer = text.parse().map_err(|e| anyhow!("{shown}: no tokenizer: {e}"))?;
        check_templates(&json["post_processor"]).with_context(|| shown.to_string())?;
        let largest = inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).max();
        let Some((id, token)) = largest else { bail!("{shown}: its vocabulary is empty") };
        ensure!(
            (id as usize) < t.vocab,
            "{shown}: token {token:?} has id {id}, but the base has {} tokens (0 to {}); is it the tokenizer of this \
             checkpoint?",
            t.vocab,
            t.vocab - 1
        );
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| anyhow!("{shown}: {e}"))?;
        Ok(Tokenizer { path: file, json, inner, vocab: t.vocab, positions: t.positions })
    }

    /// What each token writes.
    ///
    /// # Errors
    /// A decoder that is not known.
    pub fn pieces(&self) -> Result<Vec<Vec<u8>>> {
        pieces(&self.json, self.vocab).with_context(|| self.path.display().to_string())
    }

    /// Whether a text's first token loses the space in front of it.
    #[must_use]
    pub fn strips_first_space(&self) -> bool {
        strips_first_space(&self.json["decoder"])
    }

    /// The tokens of a text, with the special ones of the tokenizer's template.
    ///
    /// # Errors
    /// A text that it has no tokens for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode(text, true));
        Ok(encoding.map_err(|e| anyhow!("{}: {e}", self.path.display()))?.get_ids().to_vec())
    }

    /// The tokens of a text, with their types and places; cut to what the model takes, the template's tokens included,
    /// as transformers does with `truncation=True`.
    ///
    /// # Errors
    /// A text that it has no tokens for; a template that leaves no room for any.
    pub fn encode_with_places(&self, text: &str) -> Result<Encoded> {
        let wrong = |e| anyhow!("{}: {e}", self.path.display());
        let mut encoding = guarded(|| self.inner.encode(text, true)).map_err(wrong)?;
        let whole = encoding.len();
        if whole > self.positions {
            let cut = self.cut()?;
            encoding = guarded(|| cut.encode(text, true)).map_err(wrong)?;
        }
        let types = encoding.get_type_ids();
        let special = encoding.get_special_tokens_mask();
        let places = encoding.get_offsets().iter().zip(encoding.get_word_ids()).zip(special);
        let places = places.map(|((&(from, to), &word), &special)| (special == 0).then_some((from..to, word)));
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            types: if types.iter().all(|&t| t == 0) { vec![] } else { types.iter().map(|&t| t as u8).collect() },
            places: places.collect(),
            cut_from: (whole > encoding.len()).then_some(whole),
        })
    }

    /// The same, with truncation.
    fn cut(&self) -> Result<tokenizers::Tokenizer> {
        let mut cut = self.inner.clone();
        let added = cut.get_post_processor().map_or(0, |p| p.added_tokens(false));
        ensure!(
            self.positions > added,
            "{}: adds {added} tokens to each text, and the base takes {} in all",
            self.path.display(),
            self.positions
        );
        let params = TruncationParams { max_length: self.positions, ..TruncationParams::default() };
        cut.with_truncation(Some(params)).map_err(|e| anyhow!("{}: {e}", self.path.display()))?;
        Ok(cut)
    }
}

/// Fails where a template asks for a special token that it does not define: `tokenizers` would panic at the first text.
fn check_templates(processor: &Value) -> Result<()> {
    for inner in processor["processors"].as_array().into_iter().flatten() {
        check_templates(inner)?;
    }
    let parts = ["single", "pair"].into_iter().filter_map(|name| processor[name].as_array()).flatten();
    for part in parts {
        if let Some(id) = part["SpecialToken"]["id"].as_str() {
            ensure!(
                processor["special_tokens"].get(id).is_some(),
                "the template asks for {id:?}, which its `special_tokens` do not define"
            );
        }
    }
    Ok(())
}

/// Calls `tokenizers`, some of whose parts panic on a file that contradicts itself; that becomes an error.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the tokenizer contradicts itself".into()))
}
