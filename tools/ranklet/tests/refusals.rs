//! Hostile and merely wrong inputs: each is refused with what was found, where, and what to do; nothing is written.

mod common;

use common::*;
use proptest::prelude::*;
use ranklet_cli::base::Base;
use ranklet_cli::image::{ImageFile, adapter::Parts, base::convert};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::save::{Out, safetensors};
use serde_json::json;

/// Converts `base` and expects a refusal that says all of `parts`, and no file.
fn base_refused(place: &Place, parts: &[&str]) {
    let before = place.listing();
    let e = refusal(&["convert", "base", &place.str("base"), "-o", &place.str("out.rkl")]);
    assert!(parts.iter().all(|p| e.contains(p)), "{parts:?} in: {e}");
    assert_eq!(place.listing(), before, "something was written");
}

fn good() -> (Place, Net) {
    let place = Place::new();
    let net = Net::new(&[4, 6, 3], 1);
    net.save(&place, "base", "classification");
    (place, net)
}

#[test]
fn missing_files() {
    let place = Place::new();
    base_refused(&place, &["base", "no such file"]);
    std::fs::create_dir(place.path("base")).unwrap();
    base_refused(&place, &["config.json", "\"model_type\": \"mlp\""]);
    place.write("base/config.json", r#"{"model_type": "mlp", "modules": ["0"], "head": "none"}"#);
    base_refused(&place, &["without weights", "model.safetensors"]);
    place.write("base/pytorch_model.bin", "x");
    base_refused(&place, &["pickle", "save_file"]);
}

#[test]
fn damaged_files() {
    let (place, _) = good();
    let whole = std::fs::read(place.path("base/model.safetensors")).unwrap();
    for cut in [0, 4, 8, 40, whole.len() - 1] {
        place.write("base/model.safetensors", &whole[..cut]);
        base_refused(&place, &["model.safetensors", &format!("({cut} bytes)"), "not a complete"]);
    }
    place.write("base/model.safetensors", [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat());
    base_refused(&place, &["header too large"]);
    let huge = br#"{"0.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#;
    let huge = [&(huge.len() as u64).to_le_bytes()[..], huge, &[0; 16]].concat();
    place.write("base/model.safetensors", huge);
    base_refused(&place, &["not a complete"]);
    let garbage = [&3_u64.to_le_bytes()[..], b"{x}"].concat();
    place.write("base/model.safetensors", garbage);
    let e = refusal(&["convert", "base", &place.str("base"), "-o", &place.str("out.rkl")]);
    assert_eq!(e.matches("line 1 column 2").count(), 1, "a cause is told once: {e}");
    place.write("base/config.json", "{");
    base_refused(&place, &["config.json", "not a JSON object"]);
}

#[test]
fn wrong_tensors() {
    let (place, net) = good();
    let (w0, w2) = (&net.weights[0], &net.weights[1]);
    let (b0, b2) = (&net.biases[0], &net.biases[1]);
    let save = |tensors: &[(&str, &[usize], &[f32])]| place.tensors("base/model.safetensors", tensors);

    let mut bad = w0.clone();
    bad[5] = f32::NAN;
    save(&[("0.weight", &[6, 4], &bad), ("2.weight", &[3, 6], w2)]);
    base_refused(&place, &["`0.weight`", "NaN", "[1, 1]", "finite"]);
    bad[5] = f32::NEG_INFINITY;
    save(&[("0.weight", &[6, 4], &bad), ("2.weight", &[3, 6], w2)]);
    base_refused(&place, &["-inf"]);
    save(&[("0.weight", &[24], w0), ("2.weight", &[3, 6], w2)]);
    base_refused(&place, &["`0.weight`", "(24)", "(out, in)"]);
    save(&[("0.weight", &[6, 4], w0), ("0.bias", &[3], b2), ("2.weight", &[3, 6], w2)]);
    base_refused(&place, &["`0.bias`", "(3)", "(6)"]);
    save(&[("0.weight", &[6, 4], w0)]);
    base_refused(&place, &["no tensor `2.weight`", "`0.weight`"]);
    save(&[("0.weight", &[6, 4], w0), ("2.weight", &[6, 3], w2)]);
    base_refused(&place, &["`0` has 6 outputs", "`2` takes 3 inputs"]);
    save(&[("0.weight", &[0, 4], &[]), ("2.weight", &[3, 6], w2)]);
    base_refused(&place, &["`0.weight` is (0, 4)"]);
    save(&[("0.weight", &[6, 4], w0), ("2.weight", &[3, 6], w2), ("bn.running_mean", &[6], b0)]);
    base_refused(&place, &["`bn.running_mean`", "claims"]);
    let wide = vec![0.0; 131_073];
    save(&[("0.weight", &[1, 131_073], &wide), ("2.weight", &[1, 1], &[1.0])]);
    base_refused(&place, &["131073", "131072"]);
}

#[test]
fn a_normalisation_that_loses_features() {
    let (place, net) = good();
    let spec = json!({"model_type": "mlp", "modules": ["0", "2"], "activation": "relu", "head": "classification",
                      "normalization": {"mean": "m", "std": "s"}});
    place.write("base/config.json", spec.to_string());
    let save = |mean: &[f32], std: &[f32]| {
        let (w0, w2) = (&net.weights[0], &net.weights[1]);
        let tensors =
            [("0.weight", &[6, 4][..], &w0[..]), ("2.weight", &[3, 6], w2), ("m", &[4], mean), ("s", &[4], std)];
        place.tensors("base/model.safetensors", &tensors);
    };
    // torch.std(0) + 1e-8, where feature 2 is constant.
    save(&[0.5, 3.0, 7.0, 0.0], &[0.3, 2.0, 1e-8, 1.0]);
    base_refused(&place, &["`s`", "feature 2", "std = 1"]);
    save(&[0.5, 3.0, 7e9, 0.0], &[0.3, 2.0, 1e3, 1.0]);
    base_refused(&place, &["feature 0", "feature 2"]);
    save(&[0.5, 3.0, 7.0, 0.0], &[0.3, 2.0, 1.0, 1.0]);
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("ok.rkl")]).unwrap();
}

#[test]
fn other_types() {
    let (place, net) = good();
    let header = |dtype: &str, size: usize| {
        let json = json!({"0.weight": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, size]}}).to_string();
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
    };
    place.write("base/config.json", r#"{"model_type": "mlp", "modules": ["0"], "head": "none"}"#);
    place.write("base/model.safetensors", [header("I8", 4), vec![1; 4]].concat());
    base_refused(&place, &["`0.weight`", "I8", "F32, F16, BF16 or F64"]);
    place.write("base/model.safetensors", [header("F64", 32), 1e300_f64.to_le_bytes().repeat(4)].concat());
    base_refused(&place, &["`0.weight`", "holds 1e300 at", "finite in f32"]);
    let bf16 = [header("BF16", 8), half::bf16::from_f32(1.5).to_le_bytes().repeat(4)].concat();
    let f16 = [header("F16", 8), half::f16::from_f32(1.5).to_le_bytes().repeat(4)].concat();
    let f32s = [header("F32", 16), 1.5_f32.to_le_bytes().repeat(4)].concat();
    let mut sources = Vec::new();
    for bytes in [bf16, f16, f32s] {
        place.write("base/model.safetensors", bytes);
        let report = ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("x.rkl")]).unwrap();
        sources.push(report.json["source"].clone());
    }
    assert!(sources.windows(2).all(|w| w[0] == w[1]), "one checkpoint, whatever type it is stored in");
    assert_eq!(net.dims.len(), 3);
}

#[test]
fn shards() {
    let (place, net) = good();
    let part = |name: &str, i: usize, file: &str| {
        let dims = [net.dims[i + 1], net.dims[i]];
        place.tensors(&format!("base/{file}"), &[(name, &dims, &net.weights[i])]);
    };
    std::fs::remove_file(place.path("base/model.safetensors")).unwrap();
    part("0.weight", 0, "a.safetensors");
    part("2.weight", 1, "b.safetensors");
    let index = |map: serde_json::Value| {
        place.write("base/model.safetensors.index.json", json!({"weight_map": map}).to_string());
    };
    index(json!({"0.weight": "a.safetensors", "2.weight": "b.safetensors"}));
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("ok.rkl")]).unwrap();
    index(json!({"0.weight": "b.safetensors", "2.weight": "a.safetensors"}));
    base_refused(&place, &["index.json", "does not hold it"]);
    index(json!({"0.weight": "a.safetensors", "2.weight": "../b.safetensors"}));
    base_refused(&place, &["not a plain file name"]);
    index(json!({"0.weight": "a.safetensors", "2.weight": "c.safetensors"}));
    base_refused(&place, &["c.safetensors"]);
    index(json!({"0.weight": "a.safetensors"}));
    base_refused(&place, &["no tensor `2.weight`"]);
}

/// A base and a place for PEFT directories.
fn with_base() -> (Place, Net, Pair) {
    let (place, net) = good();
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("base.rkl")]).unwrap();
    let pair = Pair::new(&net, 0, 2, 3);
    (place, net, pair)
}

fn adapter_refused(place: &Place, parts: &[&str]) {
    let before = place.listing();
    let (peft, base, out) = (place.str("peft"), place.str("base.rkl"), place.str("out.rkl"));
    let e = refusal(&["convert", "adapter", &peft, "--base", &base, "-o", &out]);
    assert!(parts.iter().all(|p| e.contains(p)), "{parts:?} in: {e}");
    assert_eq!(place.listing(), before, "something was written");
}

#[test]
fn adapters_that_cannot_be_taken() {
    let (place, net, pair) = with_base();
    adapter_refused(&place, &["no such file or directory"]);
    std::fs::create_dir(place.path("peft")).unwrap();
    adapter_refused(&place, &["adapter_config.json", "save_pretrained"]);
    let save = |pairs: &[Pair], c| save_peft(&place, "peft", &net, pairs, c);
    let one = std::slice::from_ref(&pair);
    save(one, config(3, 3.0, &["0"]));
    adapter_refused(&place, &["rank 2", "says 3"]);
    save(one, config(2, 3.0, &["0", "2"]));
    adapter_refused(&place, &["selects `2`", "incomplete"]);
    save(one, config(2, 3.0, &["2"]));
    adapter_refused(&place, &["tensors for `0`", "target_modules"]);
    save(one, config(2, 1e-300, &["0"]));
    adapter_refused(&place, &["`lora_alpha`", "1e-290"]);
    save(&[], config(2, 3.0, &["9"]));
    adapter_refused(&place, &["no lora_A"]);
    let mut wide = pair.clone();
    wide.a[3] = f32::INFINITY;
    save(&[wide], config(2, 3.0, &["0"]));
    adapter_refused(&place, &["lora_A", "inf", "[0, 3]"]);
    for (field, value) in [("use_dora", json!(true)), ("bias", json!("all")), ("new_thing", json!(1))] {
        let mut c = config(2, 3.0, &["0"]);
        c[field] = value;
        save(one, c);
        adapter_refused(&place, &[&format!("`{field}`")]);
    }
    // A pair too many, too few, or of another net.
    let extra = |name: &str, shape: &[usize]| {
        let n = shape.iter().product();
        let tensors = [
            ("base_model.model.0.lora_A.weight".to_owned(), Out::f32s(&[2, 4], &pair.a)),
            ("base_model.model.0.lora_B.weight".to_owned(), Out::f32s(&[6, 2], &pair.b)),
            (name.to_owned(), Out::f32s(shape, &vec![0.0; n])),
        ];
        place.write("peft/adapter_model.safetensors", safetensors(tensors).unwrap());
        place.write("peft/adapter_config.json", config(2, 3.0, &["0"]).to_string());
    };
    extra("base_model.model.classifier.weight", &[1]);
    adapter_refused(&place, &["left-over", "`base_model.model.classifier.weight`", "modules_to_save"]);
    extra("base_model.model.0.lora_magnitude_vector", &[6]);
    adapter_refused(&place, &["`base_model.model.0.lora_magnitude_vector`", "`use_dora` is not set"]);
    extra("base_model.model.2.lora_A.weight", &[2, 6]);
    adapter_refused(&place, &["`2` has `base_model.model.2.lora_A.weight` but no lora_B"]);
    extra("base_model.model.9.lora_A.weight", &[2, 6]);
    adapter_refused(&place, &["`9` is no linear layer", "`0`, `2`"]);
    extra("base_model.model.0.lora_A.default.weight", &[2, 4]);
    adapter_refused(&place, &["save_pretrained()"]);
    extra("layers.0.lora_a", &[2, 4]);
    adapter_refused(&place, &["MLX-LM"]);
    let other = Net::new(&[5, 6], 1);
    save_peft(&place, "peft", &other, &[Pair::new(&other, 0, 2, 1)], config(2, 3.0, &["0"]));
    adapter_refused(&place, &["(…, 5)", "4 inputs", "another base"]);
    std::fs::remove_file(place.path("peft/adapter_model.safetensors")).unwrap();
    adapter_refused(&place, &["no adapter_model.safetensors"]);
    place.write("peft/adapter_model.bin", "x");
    adapter_refused(&place, &["pickle", "safe_serialization"]);
}

#[test]
fn modules_to_save_that_nobody_holds_is_a_note() {
    let (place, net, pair) = with_base();
    let mut c = config(2, 3.0, &["0"]);
    c["modules_to_save"] = json!(["classifier", "score"]);
    save_peft(&place, "peft", &net, &[pair], c.clone());
    let (peft, base, out) = (place.str("peft"), place.str("base.rkl"), place.str("out.rkl"));
    let report = ranklet(&["convert", "adapter", &peft, "--base", &base, "-o", &out]).unwrap();
    assert_eq!(report.json["notes"].as_array().unwrap().len(), 2);
    assert!(report.human.contains("`score`"));
}

#[test]
fn images_are_not_believed() {
    let (place, ..) = with_base();
    let whole = std::fs::read(place.path("base.rkl")).unwrap();
    let inspect = |bytes: &[u8]| {
        place.write("x.rkl", bytes);
        refusal(&["inspect", &place.str("x.rkl")])
    };
    for cut in [0, 3, 63, 64, whole.len() - 1] {
        assert!(inspect(&whole[..cut]).contains("x.rkl"), "{cut}");
    }
    let mut flipped = whole.clone();
    flipped[70] ^= 1;
    assert!(inspect(&flipped).contains("damaged head"));
    let mut flipped = whole.clone();
    let last = flipped.len() - 20;
    flipped[last] ^= 1;
    assert!(inspect(&flipped).contains("damaged payload"));
    let tensors = std::fs::read(place.path("base/model.safetensors")).unwrap();
    assert!(inspect(&tensors).contains("a safetensors file"));
    let (base, file) = (place.str("base.rkl"), place.str("in.safetensors"));
    let e = refusal(&["run", "--base", &base, "--adapter", &base, "--input", &file, "--output", &place.str("o")]);
    assert!(e.contains("--base"), "{e}");
}

#[test]
fn data_that_does_not_fit() {
    let (place, ..) = with_base();
    let run = |more: &[&str]| {
        let (base, input) = (place.str("base.rkl"), place.str("in.safetensors"));
        refusal(&[&["run", "--base", &base, "--input", &input, "--output"], more].concat())
    };
    let out = place.str("o.safetensors");
    assert!(run(&[&out]).contains("no such file"));
    place.tensors("in.safetensors", &[("inputs", &[2, 5], &[0.0; 10])]);
    let e = run(&[&out]);
    assert!(e.contains("(2, 5)") && e.contains("(batch, 4)"), "{e}");
    place.tensors("in.safetensors", &[("x", &[1, 4], &[0.0; 4])]);
    assert!(run(&[&out]).contains("no tensor `inputs`"));
    place.tensors("in.safetensors", &[("inputs", &[1, 4], &[0.0, f32::NAN, 0.0, 0.0])]);
    assert!(run(&[&out]).contains("[0, 1]"));
    place.tensors("in.safetensors", &[("inputs", &[1, 4], &[0.0; 4])]);
    assert!(run(&[&place.str("no/o.safetensors")]).contains("does not exist"));
    assert!(run(&[&place.str("in.safetensors")]).contains("also an input"));
    assert!(!place.path("o.safetensors").exists());
}

#[test]
fn a_header_that_says_it_twice() {
    let (place, _) = good();
    let whole = std::fs::read(place.path("base/model.safetensors")).unwrap();
    let (length, rest) = whole.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    // The same bytes again, under another shape.
    let text = std::str::from_utf8(header).unwrap().trim_end();
    let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
    let again = json!({"dtype": "F32", "shape": [4, 6], "data_offsets": parsed["0.weight"]["data_offsets"]});
    let header = format!("{{\"0.weight\":{again},{}", text.strip_prefix('{').unwrap());
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    place.write("base/model.safetensors", bytes);
    base_refused(&place, &["model.safetensors", "`0.weight` twice"]);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices() {
    let (place, ..) = with_base();
    let p = |n: &str| place.str(n);
    let (base, out) = (p("base.rkl"), p("out"));
    place.tensors("in.safetensors", &[("inputs", &[1, 4], &[0.5; 4])]);
    let input = p("in.safetensors");
    for args in [
        &["inspect", "/dev/null"][..],
        &["convert", "base", "/dev/null", "-o", &out],
        &["convert", "adapter", "/dev/null", "--base", &base, "-o", &out],
        &["run", "--base", "/dev/null", "--input", &input, "--output", &out],
        &["run", "--base", &base, "--input", "/dev/null", "--output", &out],
        &["run", "--base", &base, "--adapter", "/dev/null", "--input", &input, "--output", &out],
    ] {
        let e = refusal(args);
        assert!(e.contains("/dev/null") && e.contains("only regular files"), "{args:?}: {e}");
    }
}

#[test]
fn layers_of_one_name() {
    let (place, ..) = good();
    let mut base = Base::open(&place.path("base")).unwrap();
    for names in [["0", "0"], ["1", ""]] {
        // A layer without a name is called by its number.
        base.linears.iter_mut().zip(names).for_each(|(l, name)| l.module = name.to_owned());
        place.write("x.rkl", convert(&base, WeightType::I8, || ()).unwrap().bytes);
        let e = refusal(&["inspect", &place.str("x.rkl")]);
        assert!(e.contains("x.rkl") && e.contains(&format!("`{}`", names[0])), "{e}");
    }
}

#[test]
fn metadata_that_claim_anything() {
    let (place, net, pair) = with_base();
    save_peft(&place, "peft", &net, &[pair], config(2, 3.0, &["0"]));
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "adapter", &p("peft"), "--base", &p("base.rkl"), "-o", &p("task.rkl")]).unwrap();
    let (base, file) =
        (ImageFile::open(&place.path("base.rkl")).unwrap(), ImageFile::open(&place.path("task.rkl")).unwrap());
    let model = base.model().unwrap();
    let parts = Parts::copy(&file.adapter(&model).unwrap());
    let meta = serde_json::Map::from_iter([("base_parameters".to_owned(), json!(u64::MAX))]);
    place.write("x.rkl", parts.emit(model.source(), model.head().image, &meta).unwrap());
    assert_eq!(ranklet(&["inspect", &p("x.rkl")]).unwrap().json["all_params"], u64::MAX);
}

#[test]
fn planes_that_wrap_around() {
    let (place, net, pair) = with_base();
    save_peft(&place, "peft", &net, &[pair], config(2, 3.0, &["0"]));
    let p = |n: &str| place.str(n);
    let (base, task, bad) = (p("base.rkl"), p("task.rkl"), p("bad.rkl"));
    ranklet(&["convert", "adapter", &p("peft"), "--base", &base, "-o", &task]).unwrap();
    let (base_file, file) =
        (ImageFile::open(&place.path("base.rkl")).unwrap(), ImageFile::open(&place.path("task.rkl")).unwrap());
    let model = base_file.model().unwrap();
    let mut parts = Parts::copy(&file.adapter(&model).unwrap());
    (parts.high[3], parts.low[3]) = (i16::MIN, -1);
    place.write("bad.rkl", parts.emit(model.source(), model.head().image, &serde_json::Map::new()).unwrap());
    place.tensors("in.safetensors", &[("inputs", &[1, 4], &[0.5; 4])]);
    let (input, out) = (p("in.safetensors"), p("out"));
    for args in [
        &["run", "--base", &base, "--adapter", &bad, "--input", &input, "--output", &out][..],
        &["export", &bad, "--base", &base, "-o", &out],
        &["inspect", &bad, "--base", &base],
    ] {
        let e = refusal(args);
        assert!(e.contains("bad.rkl") && e.contains("element 3"), "{e}");
    }
    let e = refusal(&["inspect", &base, "--base", &p("nope")]);
    assert!(e.contains("--base is for an adapter"), "{e}");
}

/// Fields that a hostile file sets to anything: positions in the first bytes, where headers and directories stand.
fn tampered(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let head = bytes.len().min(700);
    changes.iter().for_each(|(at, value)| bytes[at.index(head)] = *value);
    bytes
}

#[test]
fn no_bytes_make_it_panic() {
    let (place, net, pair) = with_base();
    save_peft(&place, "peft", &net, &[pair], config(2, 3.0, &["0"]));
    let (peft, base, task) = (place.str("peft"), place.str("base.rkl"), place.str("task.rkl"));
    ranklet(&["convert", "adapter", &peft, "--base", &base, "-o", &task]).unwrap();
    let tensors = std::fs::read(place.path("base/model.safetensors")).unwrap();
    let images = [std::fs::read(&base).unwrap(), std::fs::read(&task).unwrap()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let outcome = runner.run(&changes, |changes| {
        place.write("base/model.safetensors", tampered(tensors.clone(), &changes));
        let _ = Base::open(&place.path("base"));
        for (image, more) in images.iter().zip([&[][..], &["--base", &base]]) {
            place.write("x.rkl", tampered(image.clone(), &changes));
            let _ = ranklet(&[&["inspect", &place.str("x.rkl")], more].concat());
            if let Ok(file) = ImageFile::open(&place.path("x.rkl")) {
                // Whatever passes both checksums is whole.
                prop_assert!(images.iter().any(|i| i == file.bytes()));
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn outputs_never_replace_inputs() {
    let (place, net, pair) = with_base();
    save_peft(&place, "peft", &net, &[pair], config(2, 3.0, &["0"]));
    let p = |n: &str| place.str(n);
    let (base, task) = (p("base.rkl"), p("task.rkl"));
    ranklet(&["convert", "adapter", &p("peft"), "--base", &base, "-o", &task]).unwrap();
    place.tensors("d.safetensors", &[("inputs", &[1, 4], &[0.5; 4]), ("cotangent", &[1, 3], &[1.0; 3])]);
    let data = p("d.safetensors");

    let files = ["base/model.safetensors", "base/config.json", "peft/adapter_model.safetensors"];
    let files = [&files[..], &["peft/adapter_config.json", "base.rkl", "task.rkl", "d.safetensors"]].concat();
    let before: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(place.path(f)).unwrap()).collect();
    let weights = p("base/model.safetensors");
    for args in [
        &["convert", "base", &p("base"), "-o", &weights][..],
        &["convert", "base", &p("base"), "-o", &p("base/config.json")],
        &["convert", "base", &weights, "-o", &p("base/config.json")],
        &["convert", "base", &weights, "-o", &weights],
        &["convert", "adapter", &p("peft"), "--base", &base, "-o", &p("peft/adapter_model.safetensors")],
        &["convert", "adapter", &p("peft"), "--base", &base, "-o", &p("peft/../peft/adapter_config.json")],
        &["convert", "adapter", &p("peft"), "--base", &base, "-o", &base],
        &["run", "--base", &base, "--adapter", &task, "--input", &data, "--output", &task],
        &["grad", "--base", &base, "--adapter", &format!("{task}:0.5"), "--input", &data, "--output", &task],
        &["train", "--base", &base, "--data", &data, "--init", &task, "-o", &task],
        &["train", "--base", &base, "--data", &data, "--init", &task, "-o", &p("new.rkl"), "--log", &task],
        &["train", "--base", &base, "--data", &data, "-o", &p("new.rkl"), "--log", &data],
    ] {
        let e = refusal(args);
        assert!(e.contains("is also an input") || e.contains("is a file of the input"), "{args:?}: {e}");
    }
    // Two outputs, neither of which exists, in two spellings.
    let e = refusal(&["train", "--base", &base, "--data", &data, "-o", &p("n.rkl"), "--log", &p("base/../n.rkl")]);
    assert!(e.contains("same file"), "{e}");
    let after: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(place.path(f)).unwrap()).collect();
    assert!(before == after);
    assert!(!place.path("n.rkl").exists() && !place.path("new.rkl").exists());
    // An image may stand in the checkpoint's directory, and be made again.
    for _ in 0..2 {
        ranklet(&["convert", "base", &p("base"), "-o", &p("base/i8.rkl")]).unwrap();
    }
}
