//! The vocabulary of a language model's image: converted, read as a device reads it, and refused where it is wrong.

mod common;

use common::{Place, ranklet, refusal};
use ranklet::image::layout::section;
use ranklet::image::{Head, ImageError, Kind, NewImage, NewSection, VocabularyProblem};
use ranklet::model::Model;
use ranklet_cli::image::ImageFile;
use serde_json::{Value, json};
use std::path::Path;

/// The case's checkpoint beside a tokenizer.
fn place(case: &str, tokenizer: &Value) -> Place {
    let place = Place::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases").join(case).join("base");
    for name in ["config.json", "model.safetensors"] {
        place.write(&format!("base/{name}"), std::fs::read(base.join(name)).unwrap());
    }
    place.write("base/tokenizer.json", tokenizer.to_string());
    place
}

fn tokenizer() -> Value {
    let letters = ('a'..='z').enumerate().map(|(i, c)| (c.to_string(), json!(i + 10)));
    let words =
        [("<s>", 1), ("</s>", 2), ("<|stop|>", 5), ("Ġ", 6), ("Ġthe", 7), ("Ċ", 8), ("í", 9), ("ķ", 60), ("ľ", 61)];
    let words = words.into_iter().map(|(w, i)| (w.to_owned(), json!(i)));
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "special": true});
    json!({
        "version": "1.0",
        "added_tokens": [special(1, "<s>"), special(2, "</s>"), special(5, "<|stop|>")],
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": letters.chain(words).collect::<serde_json::Map<_, _>>(), "merges": []},
    })
}

fn convert(place: &Place, output: &str, more: &[&str]) -> ImageFile {
    let (base, output) = (place.str("base"), place.str(output));
    ranklet(&[&["convert", "base", &base, "-o", &output], more].concat()).unwrap();
    ImageFile::open(Path::new(&output)).unwrap()
}

#[test]
fn a_device_shows_what_it_writes() {
    let place = place("llama", &tokenizer());
    place.write("base/generation_config.json", r#"{"eos_token_id": [2, 5, 99]}"#);
    let file = convert(&place, "base.rkl", &[]);
    let model = file.model().unwrap();
    let vocabulary = model.vocabulary().unwrap();
    assert_eq!(vocabulary.len(), model.spec().transformer().unwrap().vocab);
    // Ids beyond the model's 64 tokens end nothing.
    assert_eq!(vocabulary.ends().collect::<Vec<_>>(), [2, 5]);
    // "a the", line break, and a Hangul syllable in three tokens; nothing for a special token and for an unused id.
    let mut shown = [0; 16];
    let mut at = 0;
    for id in [1, 10, 7, 8, 9, 60, 61, 62, 5, 11] {
        if vocabulary.is_end(id) {
            break;
        }
        let bytes = vocabulary.bytes_of(id);
        shown[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    }
    assert_eq!(std::str::from_utf8(&shown[..at]).unwrap(), "a the\n한");
    let inspected = ranklet(&["inspect", &place.str("base.rkl")]).unwrap();
    assert!(inspected.human.contains("vocabulary"), "{}", inspected.human);
}

#[test]
fn it_is_no_part_of_what_an_adapter_matches() {
    let place = place("llama", &tokenizer());
    let with = convert(&place, "with.rkl", &["--vocabulary", "full"]);
    let without = convert(&place, "without.rkl", &["--vocabulary", "none"]);
    let (with, without) = (with.model().unwrap(), without.model().unwrap());
    assert!(without.vocabulary().is_none());
    assert_eq!(with.vocabulary().unwrap().ends().collect::<Vec<_>>(), [2]);
    assert_eq!(with.source(), without.source());
    assert_ne!(with.head().image, without.head().image);
}

#[test]
fn a_classifier_has_none_unasked() {
    let place = place("llama-classifier", &tokenizer());
    assert!(convert(&place, "base.rkl", &[]).model().unwrap().vocabulary().is_none());
    let full = convert(&place, "full.rkl", &["--vocabulary", "full"]);
    assert_eq!(full.model().unwrap().vocabulary().unwrap().bytes_of(7), b" the");
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = tokenizer();
        change(&mut json);
        let place = place("llama", &json);
        let message = refusal(&["convert", "base", &place.str("base"), "-o", &place.str("base.rkl")]);
        assert_eq!(place.listing(), ["base"]);
        assert!(message.contains("tokenizer.json") && message.contains("--vocabulary none"), "{message}");
        convert(&place, "base.rkl", &["--vocabulary", "none"]);
        message
    };
    let message = refused(&|t| t["decoder"]["type"] = json!("CTC"));
    assert!(message.contains("`CTC` is not supported"), "{message}");
    let message = refused(&|t| t["model"]["vocab"]["zz"] = json!(64));
    assert!(message.contains("\"zz\" has id 64, but the model's embedding has 64 tokens (0 to 63)"), "{message}");
    let message = refused(&|t| t["model"] = json!({"type": "BPE"}));
    assert!(message.contains("has no vocabulary"), "{message}");
    let place = place("llama", &tokenizer());
    std::fs::remove_file(place.path("base/tokenizer.json")).unwrap();
    let to = place.str("base.rkl");
    let message = refusal(&["convert", "base", &place.str("base"), "--vocabulary", "full", "-o", &to]);
    assert!(message.contains("cannot read") && message.contains("tokenizer.json"), "{message}");
}

/// The image with another vocabulary, checksums and all.
fn with_vocabulary(image: &[u8], vocabulary: &[u8]) -> ImageFile {
    let head = Head::parse(image).unwrap();
    let sections: Vec<NewSection<'_>> = (0..head.sections)
        .filter_map(|i| head.section(image, i))
        .map(|s| match s.kind {
            section::VOCABULARY => NewSection::bytes(s.kind, vocabulary),
            _ => NewSection {
                kind: s.kind,
                site: s.site,
                dtype: s.dtype,
                order: s.order,
                exponent: s.exponent,
                rows: s.rows,
                cols: s.cols,
                data: head.bytes_of(image, &s),
            },
        })
        .collect();
    let new = NewImage {
        kind: Kind::Base,
        source: head.source,
        image: head.image,
        spec: head.spec(image),
        sections: &sections,
    };
    let mut bytes = vec![0; new.total_len()];
    new.write_to(&mut bytes.as_mut_slice()).unwrap();
    ImageFile::of(Path::new("changed"), &bytes)
}

#[test]
fn a_wrong_one_is_refused_once_when_the_model_is_opened() {
    let place = place("llama", &tokenizer());
    let file = convert(&place, "base.rkl", &[]);
    let head = file.head().unwrap();
    let good = head.bytes_of(file.bytes(), &head.find(file.bytes(), section::VOCABULARY).unwrap()).to_vec();
    let open = |vocabulary: &[u8]| {
        let file = with_vocabulary(file.bytes(), vocabulary);
        Model::open(file.bytes()).map(|model| model.vocabulary().unwrap().len())
    };
    assert_eq!(open(&good), Ok(64));
    let mut changed = good.clone();
    changed[16 + 4 + 4 * 10] = 0xFF; // the tenth offset
    assert_eq!(open(&changed), Err(ImageError::Vocabulary(VocabularyProblem::Offset { index: 10 })));
    assert!(matches!(open(&good[..good.len() - 1]), Err(ImageError::Vocabulary(VocabularyProblem::Length { .. }))));
    assert!(matches!(open(&[]), Err(ImageError::Vocabulary(VocabularyProblem::Length { .. }))));
    // Sound by itself, but not this model's.
    let small = ranklet_cli::text::vocabulary::section(&[b"a".to_vec()], &[]).unwrap();
    let wrong = VocabularyProblem::Tokens { found: 1, expected: 64 };
    assert_eq!(open(&small), Err(ImageError::Vocabulary(wrong)));
    // Any byte of the counts, the ids and the offsets: refused, or still a view that answers.
    for at in 0..good.len() {
        for value in [0x00, 0x01, 0x80, 0xFF] {
            let mut changed = good.clone();
            changed[at] = value;
            let file = with_vocabulary(file.bytes(), &changed);
            if let Ok(model) = Model::open(file.bytes()) {
                let vocabulary = model.vocabulary().unwrap();
                let bytes: usize = (0..70).map(|id| vocabulary.bytes_of(id).len()).sum();
                assert!(bytes < changed.len());
            }
        }
    }
}
