//! Every family against PyTorch, transformers and PEFT: `models/cases/*/golden.safetensors`, and `masked.safetensors` where
//! there is one.

mod common;

use common::{FAMILIES, Place, cases, figure, image_of, ranklet, refusal};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile, adapter::Parts, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::quantize::WeightType;
use ranklet_cli::quantize::recipe::Recipe;
use ranklet_cli::save::{Out, safetensors};
use ranklet_cli::sequences::{self, Batch};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Tolerances: relative L2 of the output, and of what the adapter changes, each against `f64`.
///
/// * `i16` weights: 1e-3 and 5e-3, the contract. 16-bit activations leave about 1e-4 a block; the adapter's part is a third
///   of the output, and its error that of both outputs.
/// * `i8` weights: 5e-2 and 1e-1, the contract. Rounding to 8 bits alone is 40 to 45 dB a layer.
const TOLERANCES: [(WeightType, f64, f64); 2] = [(WeightType::I16, 1e-3, 5e-3), (WeightType::I8, 5e-2, 1e-1)];

/// Relative L2 error over the positions that count.
fn error(found: &[f64], expected: &[f64], mask: &[bool]) -> f64 {
    let width = expected.len() / mask.len();
    let each = || found.iter().zip(expected).enumerate().filter(|(i, _)| mask[i / width]).map(|(_, v)| v);
    let wrong: f64 = each().map(|(f, e)| (f - e) * (f - e)).sum();
    let all: f64 = each().map(|(_, e)| e * e).sum();
    (wrong / all).sqrt()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn outputs_are_torchs() {
    let mut failures = vec![];
    for case in FAMILIES {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let base = golden.f32s("output_base").unwrap();
        let adapted = wide(&golden.f32s("output_adapter").unwrap().data);
        let expected = wide(&base.data);
        let positions = base.shape.iter().rev().skip(1).product();
        let mask = match golden.contains("output_mask") {
            true => golden.i64s("output_mask").unwrap().data.iter().map(|&m| m == 1).collect(),
            false => vec![true; positions],
        };
        for (to, limit, effect_limit) in TOLERANCES {
            let file = image_of(case, to, false);
            let model = file.model().unwrap();
            let t = model.spec().transformer().unwrap();
            let batch = Batch::read(&golden, &model, t).unwrap();
            let out = sequences::run(&model, t, &[], &batch, || ()).unwrap();
            assert_eq!(out.shape, base.shape, "{case}");
            let off = wide(&out.data);
            let mut figures = vec![("output", error(&off, &expected, &mask), limit)];
            {
                let read = peft::read(&cases().join(case).join("adapter"), None, &Stored::of(&model)).unwrap();
                let bytes =
                    Parts::of(&read.pairs).emit(model.source(), model.head().image, &Default::default()).unwrap();
                let task = ImageFile::of(Path::new("task"), &bytes);
                let adapter = task.adapter(&model).unwrap();
                let on = wide(&sequences::run(&model, t, &[adapter.view()], &batch, || ()).unwrap().data);
                figures.push(("with adapter", error(&on, &adapted, &mask), limit));
                let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
                let effect = error(&minus(&on, &off), &minus(&adapted, &expected), &mask);
                figures.push(("adapter's effect", effect, effect_limit));
            }
            for (what, error, limit) in figures {
                figure("families", case, to.name(), what, &format!("{error:.1e}"), &format!("{limit:.0e}"));
                if error.is_nan() || error > limit {
                    failures.push(format!("{case}, {}, {what}: {error:.2e} is above {limit:.0e}", to.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The output of a base on a file's inputs, and how far it is from the file's.
fn distance(file: &ImageFile, golden: &Checkpoint) -> f64 {
    let model = file.model().unwrap();
    let t = model.spec().transformer().unwrap();
    let batch = Batch::read(golden, &model, t).unwrap();
    let out = sequences::run(&model, t, &[], &batch, || ()).unwrap();
    let expected = golden.f32s("output_base").unwrap();
    assert_eq!(out.shape, expected.shape);
    error(&wide(&out.data), &wide(&expected.data), &mask(golden, &expected.shape))
}

/// Which vectors count.
fn mask(golden: &Checkpoint, shape: &[usize]) -> Vec<bool> {
    if golden.contains("output_mask") {
        return golden.i64s("output_mask").unwrap().data.iter().map(|&m| m == 1).collect();
    }
    vec![true; shape.iter().rev().skip(1).product()]
}

/// Masks that are no row's tail: padding on the left, and holes.
#[test]
fn any_mask_is_torchs() {
    for case in ["bert", "t5-encoder", "llama", "encoder"] {
        let golden = Checkpoint::open_file(&cases().join(case).join("masked.safetensors")).unwrap();
        for (to, limit, _) in TOLERANCES {
            let error = distance(&image_of(case, to, false), &golden);
            figure("families", case, to.name(), "other masks", &format!("{error:.1e}"), &format!("{limit:.0e}"));
            assert!(error <= limit, "{case}: {error:.2e}");
        }
    }
}

/// A 32-bit residual stream computes the same function.
#[test]
fn a_wide_stream_is_as_good() {
    for case in ["llama", "gpt2", "t5-encoder"] {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let error = distance(&image_of(case, WeightType::I16, true), &golden);
        figure("families", case, "i16", "32-bit stream", &format!("{error:.1e}"), "1e-3");
        assert!(error <= 1e-3, "{case}: {error:.2e}");
    }
}

/// A copy of a case's base, its tensors renamed and its configuration changed.
fn altered(case: &str, rename: impl Fn(&str) -> Option<String>, fields: &[(&str, Value)]) -> Place {
    let place = Place::new();
    let base = cases().join(case).join("base");
    let from = Checkpoint::open(&base).unwrap();
    let tensors = from.names().filter_map(|name| {
        let t = from.f32s(name).unwrap();
        Some((rename(name)?, Out::f32s(&t.shape, &t.data)))
    });
    place.write("base/model.safetensors", safetensors(tensors).unwrap());
    let text = std::fs::read_to_string(base.join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    for (field, value) in fields {
        config.insert((*field).to_owned(), value.clone());
    }
    place.write("base/config.json", Value::Object(config).to_string());
    place
}

fn bytes(place: &Place) -> Vec<u8> {
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("out.rkl")]).unwrap();
    std::fs::read(place.path("out.rkl")).unwrap()
}

/// Checkpoints on the hub may lack the prefix of the model they are loaded into, and may be of old names: the same image.
#[test]
fn names_of_the_hub() {
    for (case, prefix) in [
        ("bert-classifier", "bert."),
        ("gpt2", "transformer."),
        ("t5-classifier", "transformer."),
        ("llama-classifier", "model."),
    ] {
        let plain = altered(case, |n| Some(n.to_owned()), &[]);
        let bare = altered(case, |n| Some(n.strip_prefix(prefix).unwrap_or(n).to_owned()), &[]);
        assert!(bytes(&plain) == bytes(&bare), "{case} without {prefix}");
    }
    let old =
        |n: &str| Some(n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"));
    assert!(bytes(&altered("bert", |n| Some(n.to_owned()), &[])) == bytes(&altered("bert", old, &[])));
    let copies = |n: &str| Some(n.replace("shared.weight", "encoder.embed_tokens.weight"));
    assert!(bytes(&altered("t5-encoder", |n| Some(n.to_owned()), &[])) == bytes(&altered("t5-encoder", copies, &[])));
}

/// What is not supported is named, with what is.
#[test]
fn refusals_name_the_field() {
    let same = |n: &str| Some(n.to_owned());
    for (case, field, value, parts) in [
        ("bert", "architectures", json!(["BertForMaskedLM"]), ["`architectures`", "`BertModel`"]),
        ("bert", "hidden_act", json!("mish"), ["`hidden_act`", "`gelu`"]),
        ("bert", "position_embedding_type", json!("relative_key"), ["`position_embedding_type`", "absolute"]),
        ("bert", "is_decoder", json!(true), ["`is_decoder`", "true"]),
        ("bert", "add_cross_attention", json!(true), ["`add_cross_attention`", "true"]),
        ("bert", "quantization_config", json!({"bits": 4}), ["`quantization_config`", "bits"]),
        ("bert", "num_attention_heads", json!(5), ["`num_attention_heads`", "5 does not divide"]),
        ("bert", "vocab_size", json!(99), ["embeddings.word_embeddings.weight", "(99, 32)"]),
        ("bert", "intermediate_size", json!(40), ["intermediate.dense.weight", "(40, 32)"]),
        ("bert-classifier", "problem_type", json!("ranking"), ["`problem_type`", "regression"]),
        ("llama", "rope_parameters", json!({"rope_type": "yarn", "factor": 2.0}), ["yarn", "`llama3`"]),
        ("llama", "rope_parameters", json!({"rope_type": "linear"}), ["`factor`", "above 0"]),
        ("llama", "partial_rotary_factor", json!(0.5), ["`partial_rotary_factor`", "0.5"]),
        ("llama", "attention_bias", json!(true), ["q_proj.bias", "no tensor"]),
        ("llama", "mlp_bias", json!(true), ["gate_proj.bias", "no tensor"]),
        ("llama", "num_key_value_heads", json!(3), ["4 heads on 3", "multiple"]),
        ("llama", "tie_word_embeddings", json!("yes"), ["`tie_word_embeddings`", "true or false"]),
        ("qwen2", "hidden_size", json!(0), ["`hidden_size`", "found 0"]),
        ("qwen2", "hidden_size", json!(131_073), ["`hidden_size`", "1 to 131072"]),
        ("qwen2", "vocab_size", json!(151_936), ["embed_tokens.weight", "(151936, "]),
        ("qwen2", "vocab_size", json!(262_145), ["`vocab_size`", "1 to 262144"]),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), ["`scale_attn_by_inverse_layer_idx`", "true"]),
        ("gpt2", "n_layer", json!(1), ["h.1.attn.c_attn.bias", "no part of this architecture"]),
        ("gpt2", "n_layer", json!(3), ["h.2.", "no tensor"]),
        ("t5-classifier", "feed_forward_proj", json!("gated-mish"), ["`feed_forward_proj`", "mish"]),
        ("t5-classifier", "is_gated_act", json!(false), ["`is_gated_act`", "false"]),
        ("t5-classifier", "dense_act_fn", json!("relu"), ["`dense_act_fn`", "relu"]),
        ("t5-classifier", "decoder_start_token_id", Value::Null, ["`decoder_start_token_id`", "none"]),
        (
            "t5-classifier",
            "architectures",
            json!(["T5ForConditionalGeneration"]),
            ["`architectures`", "`T5EncoderModel`"],
        ),
        ("t5-encoder", "relative_attention_num_buckets", json!(3), ["`relative_attention_num_buckets`", "3 buckets"]),
        ("encoder", "activation", json!("elu"), ["`activation`", "`relu`"]),
        ("encoder", "head", json!("classification"), ["`head`", "no `classifier`"]),
        ("encoder", "layers", json!(2), ["`layers`", "unknown"]),
        ("encoder-pre", "pool", json!("max"), ["`pool`", "`mean`"]),
    ] {
        let place = altered(case, same, &[(field, value.clone())]);
        let e = refusal(&["convert", "base", &place.str("base"), "-o", &place.str("out.rkl")]);
        assert!(parts.iter().all(|p| e.contains(p)), "{case}, {field} = {value}: {e}");
        assert!(!place.path("out.rkl").exists());
    }
    let place = altered("bert", |n| (!n.contains("layer.0.output.dense.bias")).then(|| n.to_owned()), &[]);
    let e = refusal(&["convert", "base", &place.str("base"), "-o", &place.str("out.rkl")]);
    assert!(e.contains("layer.0.output.dense.bias"), "{e}");
    let place = altered("bert", same, &[]);
    let (base, out) = (place.str("base"), place.str("out.rkl"));
    let e = refusal(&["convert", "base", &base, "-o", &out, "--residual", "i32"]);
    assert!(e.contains("32-bit residual stream"), "{e}");
    let e = refusal(&["convert", "base", &base, "-o", &out, "--keep", "lm_head=i16"]);
    assert!(e.contains("--keep lm_head=i16"), "{e}");
}

/// A window of attention bounds the texts, for within it nothing slides.
#[test]
fn windows_bound_the_texts() {
    let positions = |case: &str, fields: &[(&str, Value)]| {
        let place = altered(case, |n| Some(n.to_owned()), fields);
        let file = ImageFile::of(Path::new("x"), &bytes(&place));
        file.model().unwrap().spec().transformer().unwrap().positions
    };
    let longest = ("max_position_embeddings", json!(8000));
    for (case, fields, expected) in [
        ("mistral", vec![("sliding_window", json!(9))], 9),
        ("mistral", vec![("sliding_window", Value::Null)], 8000),
        ("llama", vec![("sliding_window", json!(9))], 8000),
        ("qwen2", vec![("sliding_window", json!(9)), ("use_sliding_window", json!(false))], 8000),
        ("qwen2", vec![("sliding_window", json!(9)), ("use_sliding_window", json!(true))], 9),
    ] {
        let all: Vec<(&str, Value)> = [longest.clone()].into_iter().chain(fields.clone()).collect();
        assert_eq!(positions(case, &all), expected, "{case} {fields:?}");
    }
}

/// Some matrices at another type: nearer than without, and the head of a tied model has the type of its table.
#[test]
fn some_matrices_may_be_kept() {
    let case = "llama-tied";
    let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
    let keep = |patterns: &[&str]| {
        let base = cases().join(case).join("base");
        let checkpoint = Checkpoint::open(&base).unwrap();
        let network = hf::describe(&Config::read(&base.join("config.json")).unwrap(), &checkpoint).unwrap();
        let keep = patterns.iter().map(|p| p.parse().unwrap()).collect();
        let recipe = Recipe { to: WeightType::I8, keep };
        ImageFile::of(
            Path::new("x"),
            &image::transformer::convert(&checkpoint, &network, recipe, false, || ()).unwrap().bytes,
        )
    };
    let [none, head, all] = [&[][..], &["lm_head=i16"], &[r".*=i16"]].map(|p| distance(&keep(p), &golden));
    println!("kept: nothing {none:.2e}, head {head:.2e}, all {all:.2e}");
    assert!(head < none && all < 1e-3);
    let as_table = keep(&["embed_tokens=i16"]);
    assert_eq!(as_table.bytes(), keep(&["lm_head=i16"]).bytes());
}

/// Some whole-number tensors of a file, changed, as a file.
fn only(from: &Checkpoint, names: &[&str], change: impl Fn(&str, &mut [i64])) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for name in names {
        let mut t = from.i64s(name).unwrap();
        change(name, &mut t.data);
        let start = data.len();
        data.extend(t.data.iter().flat_map(|v| v.to_le_bytes()));
        let place = json!({"dtype": "I64", "shape": t.shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), place);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A classifier looks at the last token that is no padding, as transformers does: by its number, not by the mask.
#[test]
fn the_last_token_is_found_by_its_number() {
    let golden = Checkpoint::open_file(&cases().join("llama-classifier/golden.safetensors")).unwrap();
    assert!(golden.i64s("attention_mask").unwrap().data.contains(&0), "nothing is padded");
    let place = Place::new();
    let file = image_of("llama-classifier", WeightType::I16, false);
    let model = file.model().unwrap();
    let t = model.spec().transformer().unwrap();
    let logits = |names: &[&str], change: &dyn Fn(&str, &mut [i64])| {
        place.write("x.safetensors", only(&golden, names, change));
        let input = Checkpoint::open_file(&place.path("x.safetensors")).unwrap();
        sequences::run(&model, t, &[], &Batch::read(&input, &model, t).unwrap(), || ()).unwrap().data
    };
    let both = ["input_ids", "attention_mask"];
    let expected = logits(&both, &|_, _| ());
    assert_eq!(logits(&["input_ids"], &|_, _| ()), expected);
    let all_count = |name: &str, data: &mut [i64]| {
        if name == "attention_mask" {
            data.fill(1);
        }
    };
    assert_eq!(logits(&both, &all_count), expected);
    let no_padding = |name: &str, data: &mut [i64]| {
        if name == "input_ids" {
            data.iter_mut().filter(|id| **id == i64::from(t.pad)).for_each(|id| *id = i64::from(t.pad) + 1);
        }
    };
    assert_ne!(logits(&both, &no_padding), expected);
}

/// The commands, from a checkpoint to an output file.
#[test]
fn from_checkpoint_to_output() {
    let place = Place::new();
    let case = |name: &str| cases().join("t5-classifier").join(name).display().to_string();
    let (base, task, out) = (place.str("base.rkl"), place.str("task.rkl"), place.str("out.safetensors"));
    ranklet(&["convert", "base", &case("base"), "--weights", "i16", "-o", &base]).unwrap();
    ranklet(&["convert", "adapter", &case("adapter"), "--base", &base, "-o", &task]).unwrap();
    let input = case("golden.safetensors");
    ranklet(&["run", "--base", &base, "--adapter", &task, "--input", &input, "--output", &out]).unwrap();
    let found = Checkpoint::open_file(Path::new(&out)).unwrap().f32s("logits").unwrap();
    let expected = Checkpoint::open_file(Path::new(&input)).unwrap().f32s("output_adapter").unwrap();
    assert_eq!(found.shape, expected.shape);
    let error = error(&wide(&found.data), &wide(&expected.data), &[true; 3]);
    assert!(error <= 1e-3, "{error:.2e}");

    // Without `decoder_input_ids`, the model shifts `input_ids` itself.
    let golden = Checkpoint::open_file(Path::new(&input)).unwrap();
    place.write("short.safetensors", only(&golden, &["input_ids", "attention_mask"], |_, _| ()));
    let (short, again) = (place.str("short.safetensors"), place.str("again.safetensors"));
    ranklet(&["run", "--base", &base, "--adapter", &task, "--input", &short, "--output", &again]).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());

    let inspected = ranklet(&["inspect", &base]).unwrap();
    assert!(inspected.human.contains("encoder of 2 blocks, decoder of 2 blocks"), "{}", inspected.human);
    assert!(inspected.human.contains("cross q") && inspected.human.contains("trainable params"));
    assert_eq!(inspected.json["parameters"], json!(32_131));
    let ram =
        |args: &[&str]| ranklet(&[&["plan", "--base", &base], args].concat()).unwrap().json["ram"]["total"].clone();
    assert!(ram(&["--tokens", "8"]).as_u64() < ram(&["--tokens", "64"]).as_u64());
    assert!(ram(&["--cache", "i8"]).as_u64() < ram(&[]).as_u64());
    let train =
        |more: &[&str]| ranklet(&[&["plan", "--base", &base, "--tokens", "8", "--train"], more].concat()).unwrap();
    let learner = |more: &[&str]| train(more).json["ram"]["learner"].as_u64();
    assert!(learner(&["--on", "q,v"]) < learner(&[]) && learner(&[]) > Some(0));
    assert!(learner(&["--on", "q,v", "--immediate"]) < learner(&["--on", "q,v"]));
    assert!(learner(&["--on", "q,v", "--only-b"]) < learner(&["--on", "q,v"]));
    for (args, part) in [
        (&["plan", "--base", &base, "--train", "adamw", "--on", "q,x"][..], "--on x: expected"),
        (&["plan", "--base", &base, "--tokens", "0"], "expected 1 to 512"),
    ] {
        let e = refusal(args);
        assert!(e.contains(part), "{args:?}: {e}");
    }
}
