//! Files of transformers and their adapters that are cut off, put in another order, or hold what is no number.

mod common;

use common::{Place, cases, ranklet, refusal};
use serde_json::{Map, Value, json};
use std::path::Path;

const BASES: [&str; 5] = ["bert-classifier", "t5-classifier", "llama-bf16", "gpt2-f16", "encoder"];
const ADAPTER: &str = "adapter/adapter_model.safetensors";

/// The files with the weights of a case: of its base, of which one may have two, and of its adapter.
fn weights(case: &str) -> [&'static str; 2] {
    [if case == "llama-bf16" { "base/model-00002-of-00002.safetensors" } else { "base/model.safetensors" }, ADAPTER]
}

/// A case's base and adapter, to be damaged.
fn copied(case: &str) -> Place {
    let place = Place::new();
    for directory in ["base", "adapter"] {
        for entry in std::fs::read_dir(cases().join(case).join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            place.write(&format!("{directory}/{name}"), std::fs::read(&path).unwrap());
        }
    }
    place
}

fn convert(place: &Place) -> [Vec<u8>; 2] {
    let (base, adapter) = (place.str("base.rkl"), place.str("adapter.rkl"));
    ranklet(&["convert", "base", &place.str("base"), "-o", &base]).unwrap();
    ranklet(&["convert", "adapter", &place.str("adapter"), "--base", &base, "-o", &adapter]).unwrap();
    [base, adapter].map(|path| std::fs::read(path).unwrap())
}

/// The message with which a damaged file is refused; nothing else may have been written.
fn refused(place: &Place, file: &str) -> String {
    let (base, out) = (place.str("good.rkl"), place.str("out.rkl"));
    let message = if file != ADAPTER {
        refusal(&["convert", "base", &place.str("base"), "-o", &out])
    } else {
        refusal(&["convert", "adapter", &place.str("adapter"), "--base", &base, "-o", &out])
    };
    assert!(!place.path("out.rkl").exists());
    message
}

/// Name, description, data.
type Tensor = (String, Value, Vec<u8>);

/// A file's tensors, and its metadata.
fn tensors(bytes: &[u8]) -> (Vec<Tensor>, Option<Value>) {
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
    let metadata = header.remove("__metadata__");
    let of = |(name, value): (String, Value)| {
        let at = |i: usize| start + value["data_offsets"][i].as_u64().unwrap() as usize;
        let data = bytes[at(0)..at(1)].to_vec();
        (name, value, data)
    };
    (header.into_iter().map(of).collect(), metadata)
}

/// The same tensors in this order.
fn file(tensors: &[Tensor], metadata: Option<Value>) -> Vec<u8> {
    let mut header = Map::new();
    header.extend(metadata.map(|m| ("__metadata__".to_owned(), m)));
    let mut data = vec![];
    for (name, value, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(name.clone(), json!({"dtype": value["dtype"], "shape": value["shape"], "data_offsets": offsets}));
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat()
}

#[test]
fn what_is_cut_off_is_refused() {
    for case in BASES {
        let place = copied(case);
        ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("good.rkl")]).unwrap();
        for name in weights(case) {
            let whole = std::fs::read(place.path(name)).unwrap();
            let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
            for cut in [0, 7, header / 2, header, header + 1, whole.len() / 2, whole.len() - 1] {
                place.write(name, &whole[..cut]);
                let message = refused(&place, name);
                let file = Path::new(name).file_name().unwrap().to_string_lossy();
                assert!(message.contains(&*file) && message.contains("not a complete"), "{case}, {cut}: {message}");
            }
            place.write(name, &whole);
        }
    }
}

#[test]
fn the_order_of_tensors_changes_nothing() {
    for case in BASES {
        let place = copied(case);
        let expected = convert(&place);
        for name in weights(case) {
            let before = std::fs::read(place.path(name)).unwrap();
            let (mut all, metadata) = tensors(&before);
            all.reverse();
            let middle = all.len() / 2;
            all.swap(0, middle);
            let after = file(&all, metadata);
            assert_ne!(before, after, "{case}: {name}");
            place.write(name, after);
        }
        assert!(convert(&place) == expected, "{case}");
    }
}

#[test]
fn tensors_under_each_others_names_are_refused_where_shapes_tell() {
    let place = copied("llama");
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("good.rkl")]).unwrap();
    for (name, a, b, reason) in [
        ("base/model.safetensors", "q_proj.weight", "down_proj.weight", "shape"),
        (ADAPTER, "q_proj.lora_A.weight", "q_proj.lora_B.weight", "lora_A has rank"),
    ] {
        let before = std::fs::read(place.path(name)).unwrap();
        let (mut all, metadata) = tensors(&before);
        let find = |part: &str| all.iter().position(|(n, ..)| n.contains("layers.0.") && n.ends_with(part)).unwrap();
        let (i, j) = (find(a), find(b));
        let names = [all[i].0.clone(), all[j].0.clone()];
        (all[i].0, all[j].0) = (names[1].clone(), names[0].clone());
        place.write(name, file(&all, metadata));
        let message = refused(&place, name);
        assert!(message.contains("layers.0.") && message.contains(reason), "{message}");
        place.write(name, before);
    }
}

#[test]
fn what_is_no_number_is_refused_by_its_tensor() {
    for case in BASES {
        let place = copied(case);
        ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("good.rkl")]).unwrap();
        for name in weights(case) {
            let before = std::fs::read(place.path(name)).unwrap();
            let (all, metadata) = tensors(&before);
            for at in 0..all.len() {
                let mut damaged = all.clone();
                let (tensor, value, data) = &mut damaged[at];
                // Infinity, or NaN, at the end of the tensor.
                let bad: &[u8] = match (value["dtype"].as_str().unwrap(), at % 2) {
                    ("F32", 0) => &[0, 0, 0xC0, 0x7F],
                    ("F32", _) => &[0, 0, 0x80, 0xFF],
                    ("BF16", 0) => &[0xC0, 0x7F],
                    ("BF16", _) => &[0x80, 0xFF],
                    ("F16", 0) => &[0, 0x7E],
                    ("F16", _) => &[0, 0xFC],
                    // Position numbers, which nothing reads.
                    _ => continue,
                };
                let (tensor, end) = (tensor.clone(), data.len());
                data[end - bad.len()..].copy_from_slice(bad);
                place.write(name, file(&damaged, metadata.clone()));
                let message = refused(&place, name);
                assert!(message.contains(&tensor), "{case}: {tensor} is not named: {message}");
            }
            place.write(name, before);
        }
    }
}
