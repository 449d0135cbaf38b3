//! `generate` and `classify` against transformers (`models/cases/text.py`), and what they refuse.

mod common;

use common::{Net, Place, ranklet, refusal};
use proptest::prelude::*;
use ranklet_cli::image::ImageFile;
use ranklet_cli::text::Tokenizer;
use ranklet_host_tests::tolerance::PROBABILITY_I16;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases")
}

fn golden(command: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(cases().join("text/golden.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[command].as_array().unwrap().clone()
}

fn tokenizer(name: &str) -> String {
    cases().join("text").join(format!("{name}.json")).display().to_string()
}

/// A place with the case's base and adapter as images, i16.
fn converted(case: &str) -> Place {
    let place = Place::new();
    let (base, adapter) = (cases().join(case).join("base"), cases().join(case).join("adapter"));
    let (base, adapter) = (base.display().to_string(), adapter.display().to_string());
    let (to, task) = (place.str("base.rkl"), place.str("task.rkl"));
    ranklet(&["convert", "base", &base, "--weights", "i16", "-o", &to]).unwrap();
    ranklet(&["convert", "adapter", &adapter, "--base", &to, "-o", &task]).unwrap();
    place
}

/// The arguments of a command on such a place, with its adapter or without.
fn arguments(place: &Place, command: &str, adapter: bool, tokenizer: &str) -> Vec<String> {
    let base = place.str("base.rkl");
    let mut args = vec![command.to_owned(), "--json".to_owned(), "--base".to_owned(), base];
    if adapter {
        args.extend(["--adapter".to_owned(), place.str("task.rkl")]);
    }
    args.extend(["--tokenizer".to_owned(), tokenizer.to_owned()]);
    args
}

fn with<'a>(args: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

/// Probabilities of one row of labels, in their order.
fn probabilities(answer: &Value) -> Vec<f64> {
    answer["all"].as_array().unwrap().iter().map(|l| l["probability"].as_f64().unwrap()).collect()
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn worst(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max)
}

#[test]
fn classifiers_give_the_probabilities_of_transformers() {
    for golden in golden("classify") {
        let case = golden["case"].as_str().unwrap();
        let texts = golden["texts"].as_array().unwrap();
        let place = converted(case);
        let lines: String = texts.iter().map(|t| t["text"].as_str().unwrap().to_owned() + "\n\n").collect();
        place.write("texts.txt", lines);
        for (key, adapter) in [("base", false), ("adapter", true)] {
            let file = place.str("texts.txt");
            let args = arguments(&place, "classify", adapter, &tokenizer(golden["tokenizer"].as_str().unwrap()));
            let report = ranklet(&with(&args, &["--file", &file])).unwrap();
            let answers = report.json["texts"].as_array().unwrap();
            assert_eq!(answers.len(), texts.len());
            for (answer, text) in answers.iter().zip(texts) {
                let what = format!("{case}, {key}, {}", text["text"]);
                assert_eq!(answer["text"], text["text"]);
                assert_eq!(numbers(&answer["input_ids"]), numbers(&text["input_ids"]), "{what}");
                if case == "bert-tokens" {
                    let rows = text[key].as_array().unwrap();
                    let tokens = answer["tokens"].as_array().unwrap();
                    // All but the two of the template.
                    assert_eq!(tokens.len(), rows.len() - 2, "{what}");
                    for token in tokens {
                        let row = &rows[token["position"].as_u64().unwrap() as usize];
                        PROBABILITY_I16.check(worst(&probabilities(token), &floats(row)), &what);
                    }
                } else {
                    let want = floats(&text[key]);
                    PROBABILITY_I16.check(worst(&probabilities(answer), &want), &what);
                    let best = (0..want.len()).max_by(|&a, &b| want[a].total_cmp(&want[b])).unwrap();
                    assert_eq!(answer["label"].as_str().unwrap(), ["negative", "neutral", "긍정"][best], "{what}");
                    assert_eq!(answer["index"], best);
                }
            }
        }
    }
}

#[test]
fn texts_are_cut_with_a_note() {
    let place = converted("bert-classifier");
    let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
    let long = "정말 good ".repeat(12);
    let report = ranklet(&with(&args, &["--text", "good", "--text", &long])).unwrap();
    assert_eq!(report.json["notes"], json!(["text 2 was cut from 26 tokens to 16, the base's most"]));
    assert!(report.human.contains("note: text 2 was cut"), "{}", report.human);
}

#[test]
fn people_read_a_line_a_text_and_a_line_a_token() {
    let place = converted("bert-classifier");
    let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
    let report = ranklet(&with(&args, &["--text", "not good at all", "--text", "이 제품은"])).unwrap();
    let lines: Vec<&str> = report.human.lines().collect();
    assert_eq!(lines.len(), 3, "{}", report.human);
    assert!(lines[1].starts_with("긍정") && lines[1].contains("0.70") && lines[1].ends_with("not good at all"));
    let place = converted("bert-tokens");
    let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
    let report = ranklet(&with(&args, &["--text", "이 정말 Good!"])).unwrap();
    let tokens: Vec<&str> = report.human.lines().skip(1).map(|l| l.split_whitespace().next().unwrap()).collect();
    assert_eq!(tokens, ["이", "정말", "Good", "!"]);
    let words: Vec<&Value> = report.json["texts"][0]["tokens"].as_array().unwrap().iter().map(|t| &t["word"]).collect();
    assert_eq!(words, [0, 1, 2, 3]);
}

#[test]
fn yes_no_heads_and_values_say_all_outputs() {
    for (problem, value) in [("multi_label_classification", "probability"), ("regression", "value")] {
        let place = Place::new();
        let from = cases().join("bert-classifier/base");
        let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
        config["problem_type"] = json!(problem);
        config.as_object_mut().unwrap().remove("id2label");
        place.write("base/config.json", config.to_string());
        place.write("base/model.safetensors", std::fs::read(from.join("model.safetensors")).unwrap());
        ranklet(&["convert", "base", &place.str("base"), "--weights", "i16", "-o", &place.str("base.rkl")]).unwrap();
        let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
        let report = ranklet(&with(&args, &["--text", "not good at all"])).unwrap();
        let answer = &report.json["texts"][0];
        assert!(answer.get("label").is_none(), "{answer}");
        assert_eq!(answer["all"][2]["label"], "LABEL_2");
        assert_eq!(report.human.lines().count(), 4, "{}", report.human);
        // The golden softmax of this text is 0.222, 0.077, 0.701: differences of logits are what it leaves.
        let all: Vec<f64> = answer["all"].as_array().unwrap().iter().map(|l| l[value].as_f64().unwrap()).collect();
        let logit = |p: f64| if problem == "regression" { p } else { (p / (1.0 - p)).ln() };
        let want = (0.701_f64 / 0.077).ln();
        assert!((logit(all[2]) - logit(all[1]) - want).abs() < 0.02, "{all:?}");
    }
}

#[test]
fn language_models_write_what_transformers_writes() {
    for golden in golden("generate") {
        let case = golden["case"].as_str().unwrap();
        let place = converted(case);
        let count = golden["tokens"].to_string();
        for (key, adapter) in [("base", false), ("adapter", true)] {
            let args = arguments(&place, "generate", adapter, &tokenizer(golden["tokenizer"].as_str().unwrap()));
            for text in golden["texts"].as_array().unwrap() {
                let prompt = text["prompt"].as_str().unwrap();
                let report = ranklet(&with(&args, &["--prompt", prompt, "--tokens", &count])).unwrap().json;
                let what = format!("{case}, {key}, {prompt:?}");
                assert_eq!(numbers(&report["prompt_tokens"]), numbers(&text["prompt_tokens"]), "{what}");
                let mut want = numbers(&text[key]["tokens"]);
                let mut got = numbers(&report["tokens"]);
                let written = prompt.to_owned() + report["text"].as_str().unwrap();
                let whole = text[key]["text"].as_str().unwrap();
                if text[key]["all"] == true {
                    // transformers keeps the token that ends a text.
                    if want.last() == Some(&2) {
                        want.pop();
                        assert_eq!((&report["stop"], &report["end"]), (&json!("end"), &json!(2)), "{what}");
                    } else {
                        assert_eq!(report["stop"], "tokens", "{what}");
                    }
                    assert_eq!(written, whole, "{what}");
                } else {
                    // Up to the first close call.
                    got.truncate(want.len());
                    assert!(written.starts_with(whole), "{what}: {written:?}, {whole:?}");
                }
                assert_eq!(got, want, "{what}");
            }
        }
    }
}

#[test]
fn draws_are_fixed_by_their_seed_and_narrowed_by_their_options() {
    let place = converted("llama");
    let args = arguments(&place, "generate", false, &tokenizer("bpe"));
    let args = with(&args, &["--prompt", "a good", "--tokens", "20"]);
    let text = |more: &[&str]| {
        let report = ranklet(&[&args[..], more].concat()).unwrap().json;
        numbers(&report["tokens"])
    };
    let hot = ["--temperature", "1.5"];
    let of = |more: &[&'static str]| text(&[&hot[..], more].concat());
    assert_eq!(of(&["--seed", "7"]), of(&["--seed", "7"]));
    assert_ne!(of(&["--seed", "7"]), of(&["--seed", "8"]));
    assert_eq!(of(&[]), of(&["--seed", "0"]));
    let greedy = text(&[]);
    assert_ne!(of(&[]), greedy);
    assert_eq!(of(&["--top-k", "1"]), greedy);
    assert_eq!(of(&["--top-p", "1e-9"]), greedy);
    assert_eq!(text(&["--temperature", "1e-4"]), greedy);
    // Rounded keys and values: another arithmetic, the same kind of text.
    assert_eq!(text(&["--cache", "i8"]).len(), greedy.len());
}

/// The base of `llama`, with other tokens that end a text.
fn ending(ends: Value) -> Place {
    let place = converted("llama");
    for name in ["config.json", "model.safetensors"] {
        place.write(&format!("base/{name}"), std::fs::read(cases().join("llama/base").join(name)).unwrap());
    }
    place.write("base/generation_config.json", json!({"eos_token_id": ends}).to_string());
    ranklet(&["convert", "base", &place.str("base"), "--weights", "i16", "-o", &place.str("base.rkl")]).unwrap();
    place
}

#[test]
fn a_text_ends_with_any_of_its_ends_or_where_the_context_does() {
    // transformers writes 39, 36, 46, 13, 30, 2 behind this prompt.
    let prompt = ["--prompt", "not\n한", "--tokens", "100"];
    for (ends, tokens, end) in [(json!([2, 46]), 2, json!(46)), (json!(36), 1, json!(36)), (json!([30]), 4, json!(30))]
    {
        let place = ending(ends);
        let args = arguments(&place, "generate", true, &tokenizer("bpe"));
        let report = ranklet(&with(&args, &prompt)).unwrap().json;
        assert_eq!((report["tokens"].as_array().unwrap().len(), &report["end"]), (tokens, &end));
    }
    // Nothing ends it: 7 tokens of prompt in a context of 32, and the last token that is written is not read.
    let place = ending(json!([99]));
    let args = arguments(&place, "generate", true, &tokenizer("bpe"));
    let report = ranklet(&with(&args, &prompt)).unwrap().json;
    assert_eq!((report["tokens"].as_array().unwrap().len(), &report["stop"]), (26, &json!("context")));
    let none = ranklet(&with(&args, &["--prompt", "a", "--tokens", "0"])).unwrap().json;
    assert_eq!(
        (&none["text"], &none["stop"], &none["tokens_per_second"]),
        (&json!(""), &json!("tokens"), &Value::Null)
    );
}

#[test]
fn a_text_that_begins_with_nothing_has_no_space_in_front() {
    // Behind no prompt, transformers writes 63 first, which the tokenizer of the goldens does not have.
    let place = converted("llama");
    let mut json: Value = serde_json::from_slice(&std::fs::read(tokenizer("bpe")).unwrap()).unwrap();
    json["model"]["vocab"]["▁zz"] = json!(63);
    place.write("tokenizer.json", json.to_string());
    let args = arguments(&place, "generate", false, &place.str("tokenizer.json"));
    let text =
        |prompt: &str| ranklet(&with(&args, &["--prompt", prompt, "--tokens", "1"])).unwrap().json["text"].clone();
    assert_eq!(text(""), "zz");
    json["decoder"]["decoders"].as_array_mut().unwrap().pop();
    place.write("tokenizer.json", json.to_string());
    assert_eq!(text(""), " zz");
}

#[test]
fn what_cannot_write_or_label_is_named() {
    let refused = |case: &str, command: &str, more: &[&str]| {
        let place = converted(case);
        let args = arguments(&place, command, false, &tokenizer("bpe"));
        refusal(&with(&args, more))
    };
    let generate = |case| refused(case, "generate", &["--prompt", "a"]);
    let message = generate("llama-classifier");
    assert!(message.contains("takes a language model") && message.contains("classification head"), "{message}");
    assert!(message.contains("base.rkl") && message.contains("`classify` labels texts"), "{message}");
    let message = generate("bert");
    assert!(message.contains("a transformer without a head"), "{message}");
    let classify = |case| refused(case, "classify", &["--text", "a"]);
    let message = classify("llama");
    assert!(message.contains("this base is a language model") && message.contains("`generate`"), "{message}");
    let message = classify("bert");
    assert!(message.contains("has no head") && message.contains("ForSequenceClassification"), "{message}");
    let message = classify("encoder-pre");
    assert!(message.contains("takes vectors of features, not text"), "{message}");
    let place = Place::new();
    Net::new(&[4, 6, 3], 1).save(&place, "base", "classification");
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("base.rkl")]).unwrap();
    let args = arguments(&place, "generate", false, &tokenizer("bpe"));
    let message = refusal(&with(&args, &["--prompt", "a"]));
    assert!(message.contains("a multilayer perceptron"), "{message}");
    let args = arguments(&place, "classify", false, &tokenizer("bpe"));
    let message = refusal(&with(&args, &["--text", "a"]));
    assert!(message.contains("a multilayer perceptron"), "{message}");
}

#[test]
fn tokenizers_that_are_none_or_of_another_model_are_refused() {
    let place = converted("t5-classifier");
    let refused = |path: &str| refusal(&with(&arguments(&place, "classify", false, path), &["--text", "a"]));
    let message = refused(&tokenizer("wordpiece"));
    assert!(message.contains("has id 63, but the base has 48 tokens (0 to 47)"), "{message}");
    let message = refused(&place.str("missing.json"));
    assert!(message.contains("cannot read") && message.contains("missing.json"), "{message}");
    let message = refused(&place.0.path().display().to_string());
    assert!(message.contains("no tokenizer.json") && message.contains("save_pretrained"), "{message}");
    place.write("tokenizer.json", "{");
    let message = refused(&place.0.path().display().to_string());
    assert!(message.contains("no JSON"), "{message}");
    place.write("tokenizer.json", r#"{"model": {"type": "BPE"}}"#);
    assert!(refused(&place.str("tokenizer.json")).contains("no tokenizer"));
    // A good one in a directory.
    place.write("tokenizer.json", std::fs::read(tokenizer("unigram")).unwrap());
    let args = arguments(&place, "classify", false, &place.0.path().display().to_string());
    ranklet(&with(&args, &["--text", "a"])).unwrap();
}

#[test]
fn prompts_and_options_that_make_no_sense_are_refused() {
    let place = converted("llama");
    let args = arguments(&place, "generate", false, &tokenizer("bpe"));
    let long = "정말 good ".repeat(16);
    let message = refusal(&with(&args, &["--prompt", &long]));
    assert!(message.contains("the prompt has 34 tokens; the base's context has 32: shorten it by 2"), "{message}");
    for (options, part) in [
        (&["--temperature=-1"][..], "--temperature -1"),
        (&["--temperature", "NaN"], "--temperature NaN"),
        (&["--temperature", "1", "--top-p", "0"], "--top-p 0"),
        (&["--temperature", "1", "--top-p", "1.5"], "--top-p 1.5"),
        (&["--temperature", "1", "--top-k", "0"], "--top-k 0"),
        (&["--seed", "3"], "--seed: at temperature 0 nothing is drawn"),
        (&["--top-k", "3"], "--top-k: at temperature 0"),
    ] {
        let message = refusal(&with(&args, &[&["--prompt", "a"], options].concat()));
        assert!(message.contains(part), "{message}");
    }
    let mut json: Value = serde_json::from_slice(&std::fs::read(tokenizer("bpe")).unwrap()).unwrap();
    json["decoder"] = Value::Null;
    place.write("tokenizer.json", json.to_string());
    let args = arguments(&place, "generate", false, &place.str("tokenizer.json"));
    let message = refusal(&with(&args, &["--prompt", "a"]));
    assert!(message.contains("tokenizer.json") && message.contains("no decoder is not supported"), "{message}");
}

#[test]
fn files_without_text_are_refused() {
    let place = converted("bert-classifier");
    let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
    let file = place.str("texts.txt");
    assert!(refusal(&args.iter().map(String::as_str).collect::<Vec<_>>()).contains("--file"));
    assert!(refusal(&with(&args, &["--file", &file])).contains("cannot read"));
    place.write("texts.txt", "\n \n");
    assert!(refusal(&with(&args, &["--file", &file])).contains("holds no text; expected one a line"));
    place.write("texts.txt", b"\xFFa\n");
    assert!(refusal(&with(&args, &["--file", &file])).contains("utf-8"));
    place.write("texts.txt", "\u{FEFF}good\r\nnot\n");
    let report = ranklet(&with(&args, &["--file", &file])).unwrap().json;
    let texts: Vec<&Value> = report["texts"].as_array().unwrap().iter().map(|t| &t["text"]).collect();
    assert_eq!(texts, ["good", "not"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A damaged tokenizer is refused, or still is one: never a panic.
    #[test]
    fn damaged_tokenizers(which in 0usize..3, cut in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..12), 0..4)) {
        let name = ["wordpiece", "unigram", "bpe"][which];
        let mut bytes = std::fs::read(tokenizer(name)).unwrap();
        for (from, to, length) in &changes {
            // Parts of it in the wrong place: mostly still JSON.
            let (from, to) = (from.index(bytes.len() - length), to.index(bytes.len() - length));
            bytes.copy_within(from..from + length, to);
        }
        if changes.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        let place = Place::new();
        place.write("tokenizer.json", &bytes);
        DAMAGED.with(|model| {
            let model = model.model().unwrap();
            let t = model.spec().transformer().unwrap();
            if let Ok(tokenizer) = Tokenizer::open(&place.path("tokenizer.json"), t) {
                let _ = (tokenizer.pieces(), tokenizer.encode("not 정말 good!"), tokenizer.encode_with_places(&"good ".repeat(40)));
            }
        });
    }
}

thread_local! {
    static DAMAGED: ImageFile = ImageFile::open(&converted("llama").path("base.rkl")).unwrap();
}

#[cfg(unix)]
mod process {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ranklet"));
        command.args(args.iter().filter(|a| **a != "--json")).stdin(Stdio::null());
        command
    }

    #[test]
    fn a_text_streams_to_stdout_and_its_speed_is_told_on_stderr() {
        let place = converted("llama");
        let args = arguments(&place, "generate", true, &tokenizer("bpe"));
        let args = with(&args, &["--prompt", "not\n한", "--tokens", "14"]);
        let done = command(&args).output().unwrap();
        assert!(done.status.success());
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "not\n한odt정h\n");
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert!(stderr.starts_with("prompt: 7 tokens, ") && stderr.contains("; text: 5 tokens, "), "{stderr}");
        assert!(stderr.contains(" tokens/s; stopped: token 2 ended it"), "{stderr}");
        // A reader who has left is no failure; a full disk is.
        let closed = command(&args).stdout(std::io::pipe().unwrap().1).status().unwrap();
        assert!(closed.success());
        if cfg!(target_os = "linux") {
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let done = command(&args).stdout(full).output().unwrap();
            assert_eq!(done.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&done.stderr).contains("cannot write to stdout"));
        }
        // A refusal leaves stdout empty.
        let done =
            command(&with(&arguments(&place, "generate", true, &tokenizer("bpe")), &["--prompt", "a", "--top-k", "0"]));
        let done = { done }.output().unwrap();
        assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0));
    }

    #[test]
    fn texts_come_from_stdin() {
        let place = converted("bert-classifier");
        let args = arguments(&place, "classify", false, &tokenizer("wordpiece"));
        let args = with(&args, &["--file", "-"]);
        let mut child = command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all("not good at all\n이 제품은\n".as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success());
        assert_eq!(String::from_utf8(done.stdout).unwrap().lines().count(), 3);
    }
}
