//! The bytes that each token of a `tokenizer.json` writes, whatever stands around it: its decoder, applied to one token.
//!
//! | decoder | what a token's spelling becomes |
//! |---|---|
//! | `ByteLevel` (GPT-2, Llama 3) | the bytes its letters stand for |
//! | `Replace`, `Metaspace` (sentencepiece) | `▁` is a space |
//! | `ByteFallback` | `<0x0A>` is that byte |
//! | `WordPiece` (BERT) | `##s` is `s`; any other begins with a space |
//! | `BPEDecoder` | the end-of-word suffix is a space |
//!
//! What a decoder does only to the beginning of a text (`Strip`, the first word's space) is no part of them, for a device
//! writes what follows a prompt: [`strips_first_space`] tells of it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// One list of bytes a token id; empty for special tokens and for ids that the tokenizer does not have.
///
/// # Errors
/// A decoder or a model that is not known, by name; an id beyond `tokens`.
pub fn pieces(tokenizer: &Value, tokens: usize) -> Result<Vec<Vec<u8>>> {
    let decoder = steps(&tokenizer["decoder"])?;
    let mut all = vec![vec![]; tokens];
    for (id, spelling) in spellings(tokenizer)? {
        let id = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(piece) = all.get_mut(id) else {
            bail!(
                "token {spelling:?} has id {id}, but the model's embedding has {tokens} tokens (0 to {})",
                tokens - 1
            );
        };
        *piece = decoder.iter().fold(spelling.into_bytes(), |piece, step| step.apply(piece));
    }
    for special in added(tokenizer).filter(|token| token["special"] == true) {
        let id = special["id"].as_u64().and_then(|id| usize::try_from(id).ok());
        if let Some(piece) = id.and_then(|id| all.get_mut(id)) {
            piece.clear();
        }
    }
    Ok(all)
}

/// Whether a text's first token loses the space in front of it.
#[must_use]
pub fn strips_first_space(decoder: &Value) -> bool {
    match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().into_iter().flatten().any(strips_first_space),
        Some("Strip") => decoder["content"] == " " && decoder["start"].as_u64().is_some_and(|n| n > 0),
        Some("Metaspace") => decoder["prepend_scheme"] != "never",
        Some("WordPiece") => true,
        _ => false,
    }
}

/// Ids and how their tokens are spelled.
fn spellings(tokenizer: &Value) -> Result<BTreeMap<u64, String>> {
    let model = &tokenizer["model"];
    let mut all = BTreeMap::new();
    match &model["vocab"] {
        Value::Object(vocab) => {
            for (token, id) in vocab {
                all.insert(id.as_u64().with_context(|| format!("token {token:?} has id {id}"))?, token.clone());
            }
        }
        Value::Array(vocab) => {
            for (id, token) in vocab.iter().enumerate() {
                let token = token[0].as_str().with_context(|| format!("token {id} has no text"))?;
                all.insert(id as u64, token.to_owned());
            }
        }
        _ => bail!("`model` (type {}) has no vocabulary", model["type"]),
    }
    for token in added(tokenizer) {
        if let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) {
            all.insert(id, text.to_owned());
        }
    }
    ensure!(!all.is_empty(), "its vocabulary is empty");
    Ok(all)
}

fn added(tokenizer: &Value) -> impl Iterator<Item = &Value> {
    tokenizer["added_tokens"].as_array().into_iter().flatten()
}

/// One step of a decoder.
enum Step {
    ByteLevel,
    ByteFallback,
    Replace(String, String),
    WordPiece { prefix: String, cleanup: bool },
}

fn steps(decoder: &Value) -> Result<Vec<Step>> {
    let text = |field: &str, otherwise: &str| decoder[field].as_str().unwrap_or(otherwise).to_owned();
    Ok(match decoder["type"].as_str() {
        Some("Sequence") => {
            let parts = decoder["decoders"].as_array().into_iter().flatten();
            parts.map(steps).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
        Some("ByteLevel") => vec![Step::ByteLevel],
        Some("ByteFallback") => vec![Step::ByteFallback],
        // Of the beginning of a text, or of all of it.
        Some("Fuse" | "Strip") => vec![],
        Some("Metaspace") => vec![Step::Replace(text("replacement", "▁"), " ".to_owned())],
        Some("BPEDecoder") => vec![Step::Replace(text("suffix", "</w>"), " ".to_owned())],
        Some("Replace") => {
            let Some(pattern) = decoder["pattern"]["String"].as_str() else {
                bail!("the decoder `Replace` by a pattern ({}) is not supported", decoder["pattern"]);
            };
            vec![Step::Replace(pattern.to_owned(), text("content", ""))]
        }
        Some("WordPiece") => {
            vec![Step::WordPiece { prefix: text("prefix", "##"), cleanup: decoder["cleanup"] != false }]
        }
        found => {
            let found = found.map_or("no decoder".to_owned(), |name| format!("the decoder `{name}`"));
            bail!(
                "{found} is not supported; supported are ByteLevel, ByteFallback, Replace, Metaspace, WordPiece, \
                 BPEDecoder, Fuse, Strip and sequences of them"
            )
        }
    })
}

impl Step {
    fn apply(&self, piece: Vec<u8>) -> Vec<u8> {
        // A byte that a step has made is no text any more.
        let Ok(text) = std::str::from_utf8(&piece) else { return piece };
        match self {
            Step::ByteLevel => text.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or(piece),
            Step::ByteFallback => {
                let hex = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|hex| hex.len() == 2);
                hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).map_or(piece, |byte| vec![byte])
            }
            Step::Replace(from, to) => text.replace(from, to).into_bytes(),
            Step::WordPiece { prefix, cleanup } => {
                let word = match text.strip_prefix(prefix) {
                    Some(rest) => rest.to_owned(),
                    None => format!(" {text}"),
                };
                (if *cleanup { clean(&word) } else { word }).into_bytes()
            }
        }
    }
}

/// What WordPiece's decoder tidies up.
fn clean(word: &str) -> String {
    const TIDY: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    TIDY.iter().fold(word.to_owned(), |word, (from, to)| word.replace(from, to))
}

/// The byte that a letter of GPT-2's byte-level alphabet stands for: printable Latin-1 is itself, the other bytes are
/// the letters from U+0100 on, in their order.
fn byte_of(letter: char) -> Option<u8> {
    let itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(letter) {
        code @ 0..0x100 => u8::try_from(code).ok().filter(|&byte| itself(byte)),
        code => (0..=u8::MAX).filter(|&byte| !itself(byte)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(decoder: Value, vocab: Value) -> Vec<Vec<u8>> {
        let json = json!({
            "added_tokens": [{"id": 0, "content": "<s>", "special": true}, {"id": 1, "content": "한", "special": false}],
            "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocab},
        });
        pieces(&json, 6).unwrap()
    }

    #[test]
    fn byte_level_letters_are_bytes() {
        let p = of(json!({"type": "ByteLevel"}), json!({"<s>": 0, "Ġthe": 2, "Ċ": 3, "Ã": 4}));
        assert_eq!(p, [&b""[..], "한".as_bytes(), b" the", b"\n", b"\xC3", b""]);
    }

    #[test]
    fn every_byte_has_its_letter() {
        let mut seen: Vec<u8> = ('\0'..'\u{200}').filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of(' '), None);
    }

    #[test]
    fn sentencepiece_is_text_and_bytes() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]});
        let p = of(decoder, json!({"<s>": 0, "▁a▁b": 2, "<0xEA>": 3, "<0xG0>": 4}));
        assert_eq!(p, [&b""[..], "한".as_bytes(), b" a b", b"\xEA", b"<0xG0>", b""]);
        let unigram = json!([["<s>", 0.0], ["한", -1.0], ["▁x", -2.5]]);
        assert_eq!(of(json!({"type": "Metaspace", "replacement": "▁"}), unigram)[2], b" x");
    }

    #[test]
    fn word_pieces_begin_with_a_space() {
        let p = of(json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), json!({"a": 2, "##b": 3, ".": 4}));
        assert_eq!(p[2..5], [&b" a"[..], b"b", b"."]);
    }

    #[test]
    fn a_text_may_lose_its_first_space() {
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        assert!(strips_first_space(&json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, strip]})));
        assert!(strips_first_space(&json!({"type": "Metaspace", "prepend_scheme": "always"})));
        assert!(!strips_first_space(&json!({"type": "Metaspace", "prepend_scheme": "never"})));
        assert!(!strips_first_space(&json!({"type": "ByteLevel"})));
        assert!(!strips_first_space(&Value::Null));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refused = |decoder: Value, id: u64| {
            let json = json!({"decoder": decoder, "model": {"type": "BPE", "vocab": {"a": id}}});
            pieces(&json, 4).unwrap_err().to_string()
        };
        assert!(refused(json!({"type": "CTC"}), 0).contains("the decoder `CTC` is not supported"));
        assert!(refused(Value::Null, 0).contains("no decoder"));
        assert!(refused(json!({"type": "Fuse"}), 4).contains("id 4, but the model's embedding has 4 tokens"));
    }
}
