//! Adapters of llama.cpp: PEFT's golden adapters, written as its converter writes them, become the same pairs.

mod common;

use common::{Place, ranklet, refusal};
use proptest::prelude::*;
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile, adapter, stored::Stored};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::tensor::Matrix;
use ranklet_cli::{gguf, peft};
use std::path::{Path, PathBuf};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases")
}

fn place_with(case: &str) -> Place {
    let base = cases().join(case).join("base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let network = hf::describe(&Config::read(&base.join("config.json")).unwrap(), &checkpoint).unwrap();
    let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ()).unwrap();
    let place = Place::new();
    place.write("base.rkl", converted.bytes);
    place
}

/// Rows as llama.cpp wants them: (heads, 2, half) with the inner two exchanged.
fn interleaved(rows: &[&[f32]], heads: usize) -> Vec<f32> {
    let half = rows.len() / heads / 2;
    let mut out = vec![];
    for head in rows.chunks(2 * half) {
        for j in 0..half {
            out.extend(head[j]);
            out.extend(head[half + j]);
        }
    }
    out
}

enum Value<'a> {
    Text(&'a str),
    Float(f32),
    Texts(&'a [&'a str]),
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// A file of these fields and F32 tensors, (rows, columns) each.
fn write(fields: &[(&str, Value<'_>)], tensors: &[(String, usize, usize, Vec<f32>)], kind: u32) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((fields.len() as u64).to_le_bytes());
    for (key, value) in fields {
        text(&mut out, key);
        match value {
            Value::Text(s) => {
                out.extend(8_u32.to_le_bytes());
                text(&mut out, s);
            }
            Value::Float(v) => {
                out.extend(6_u32.to_le_bytes());
                out.extend(v.to_le_bytes());
            }
            Value::Texts(list) => {
                out.extend(9_u32.to_le_bytes());
                out.extend(8_u32.to_le_bytes());
                out.extend((list.len() as u64).to_le_bytes());
                list.iter().for_each(|s| text(&mut out, s));
            }
        }
    }
    let mut data = Vec::new();
    for (name, rows, cols, values) in tensors {
        text(&mut out, name);
        out.extend(2_u32.to_le_bytes());
        out.extend((*cols as u64).to_le_bytes());
        out.extend((*rows as u64).to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        for v in values {
            match kind {
                0 => data.extend(v.to_le_bytes()),
                1 => data.extend(half::f16::from_f32(*v).to_le_bytes()),
                _ => data.extend(half::bf16::from_f32(*v).to_le_bytes()),
            }
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

const LLAMA: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const BERT: [(&str, &str); 6] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
];
const GPT2: [(&str, &str); 4] =
    [("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"), ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")];

/// A case's PEFT adapter as llama.cpp's converter would write it; its pairs have one scaling.
fn converted(case: &str, architecture: &str, names: &[(&str, &str)], kind: u32) -> Vec<u8> {
    let dir = cases().join(case).join("adapter");
    let file = Checkpoint::open_file(&dir.join("adapter_model.safetensors")).unwrap();
    let config = peft::config::Config::read(&dir.join("adapter_config.json")).unwrap();
    let mut tensors = Vec::new();
    for name in file.names() {
        let m = file.matrix(name, "").unwrap();
        let path = name.strip_prefix("base_model.model.").unwrap();
        let part = if path.contains("lora_A") { "lora_a" } else { "lora_b" };
        let block: String = path.split('.').find(|p| p.parse::<u32>().is_ok()).unwrap().to_owned();
        let (_, theirs) = names.iter().find(|(ours, _)| path.contains(&format!(".{block}.{ours}.lora"))).unwrap();
        let rows: Vec<&[f32]> = m.iter_rows().collect();
        let data = match (architecture, part, *theirs) {
            ("llama", "lora_b", "attn_q") => interleaved(&rows, 4),
            ("llama", "lora_b", "attn_k") => interleaved(&rows, 2),
            _ => m.data.clone(),
        };
        let (part, m) = match (architecture, part) {
            ("gpt2", "lora_a") => ("lora_b", m.transposed()),
            ("gpt2", _) => ("lora_a", m.transposed()),
            _ => (part, Matrix::new(m.rows, m.cols, data)),
        };
        tensors.push((format!("blk.{block}.{theirs}.weight.{part}"), m.rows, m.cols, m.data));
    }
    let fields = [
        ("general.architecture", Value::Text(architecture)),
        ("general.type", Value::Text("adapter")),
        ("adapter.type", Value::Text("lora")),
        ("general.tags", Value::Texts(&["a", "longer", ""])),
        ("adapter.lora.alpha", Value::Float(config.alpha("") as f32)),
    ];
    write(&fields, &tensors, kind)
}

#[test]
fn pairs_are_pefts() {
    // Each case has its architecture's name.
    for (case, names) in [("llama", &LLAMA[..]), ("qwen2", &LLAMA), ("bert", &BERT), ("gpt2", &GPT2)] {
        let place = place_with(case);
        let p = |n: &str| place.str(n);
        place.write("task.gguf", converted(case, case, names, 0));
        let peft = cases().join(case).join("adapter").display().to_string();
        ranklet(&["convert", "adapter", &peft, "--base", &p("base.rkl"), "-o", &p("peft.rkl")]).unwrap();
        ranklet(&["convert", "adapter", &p("task.gguf"), "--base", &p("base.rkl"), "-o", &p("gguf.rkl")]).unwrap();
        let base = ImageFile::open(&place.path("base.rkl")).unwrap();
        let model = base.model().unwrap();
        let pairs = |name: &str| {
            let file = ImageFile::open(&place.path(name)).unwrap();
            adapter::read(&file.adapter(&model).unwrap()).pairs
        };
        assert_eq!(pairs("gguf.rkl"), pairs("peft.rkl"), "{case}");
    }
}

#[test]
fn other_types_are_read() {
    let place = place_with("llama");
    let base = ImageFile::open(&place.path("base.rkl")).unwrap();
    let model = base.model().unwrap();
    let stored = Stored::of(&model);
    let read = |kind: u32| {
        place.write("x.gguf", converted("llama", "llama", &LLAMA, kind));
        gguf::read(&place.path("x.gguf"), &stored, model.spec().transformer()).unwrap().pairs
    };
    let whole = read(0);
    for (kind, bits) in [(1, 11), (30, 8)] {
        for (a, b) in whole.iter().zip(read(kind)) {
            let peak = a.b.data.iter().fold(0.0_f32, |p, v| p.max(v.abs()));
            let worst = a.b.data.iter().zip(&b.b.data).fold(0.0_f32, |w, (a, b)| w.max((a - b).abs()));
            assert!(worst <= peak * 2_f32.powi(-bits), "type {kind}: {worst}");
        }
    }
}

fn refused(place: &Place, bytes: &[u8], parts: &[&str]) {
    place.write("x.gguf", bytes);
    let before = place.listing();
    let p = |n: &str| place.str(n);
    let e = refusal(&["convert", "adapter", &p("x.gguf"), "--base", &p("base.rkl"), "-o", &p("x.rkl")]);
    assert!(parts.iter().all(|p| e.contains(p)), "{parts:?} in: {e}");
    assert_eq!(place.listing(), before, "something was written");
}

#[test]
fn refusals_name_the_thing() {
    let place = place_with("llama");
    let file = |changes: &[(&str, Value<'_>)], tensors: &[(&str, usize, usize)]| {
        let mut fields = vec![
            ("general.architecture", Value::Text("llama")),
            ("general.type", Value::Text("adapter")),
            ("adapter.type", Value::Text("lora")),
            ("adapter.lora.alpha", Value::Float(8.0)),
        ];
        for (key, value) in changes {
            fields.retain(|(k, _)| k != key);
            let value = match value {
                Value::Text(s) => Value::Text(s),
                Value::Float(v) => Value::Float(*v),
                Value::Texts(list) => Value::Texts(list),
            };
            fields.push((key, value));
        }
        let tensors: Vec<_> = tensors.iter().map(|&(n, r, c)| (n.to_owned(), r, c, vec![1.0; r * c])).collect();
        write(&fields, &tensors, 0)
    };
    let q = [("blk.0.attn_q.weight.lora_a", 2, 32), ("blk.0.attn_q.weight.lora_b", 32, 2)];
    refused(&place, &file(&[("general.type", Value::Text("model"))], &q), &["`general.type`", "\"model\""]);
    refused(&place, &file(&[("adapter.type", Value::Text("control"))], &q), &["`adapter.type`", "\"control\""]);
    refused(&place, &file(&[("general.architecture", Value::Text("mamba"))], &q), &["\"mamba\"", "`llama`, `qwen2`"]);
    refused(&place, &file(&[("adapter.lora.alpha", Value::Float(f32::NAN))], &q), &["`adapter.lora.alpha`", "NaN"]);
    let alora = ("adapter.alora.invocation_tokens", Value::Texts(&[]));
    refused(&place, &file(&[alora], &q), &["aLoRA"]);
    refused(&place, &file(&[], &[]), &["holds no tensors"]);
    refused(&place, &file(&[], &q[..1]), &["no tensor `blk.0.attn_q.weight.lora_b`"]);
    refused(&place, &file(&[], &[("token_embd.weight.lora_a", 2, 64)]), &["`token_embd.weight`", "no linear layer"]);
    refused(&place, &file(&[], &[("blk.0.attn_norm.weight", 1, 32)]), &["left-over", "`blk.0.attn_norm.weight`"]);
    refused(&place, &file(&[], &[q[0], ("blk.0.attn_q.weight.lora_b", 31, 2)]), &["lora_b", "31 rows", "4 heads"]);
    refused(&place, &file(&[], &[q[0], ("blk.0.attn_q.weight.lora_b", 32, 3)]), &["the rank"]);
    let far = [("blk.9.ffn_up.weight.lora_a", 2, 32), ("blk.9.ffn_up.weight.lora_b", 44, 2)];
    refused(&place, &file(&[], &far), &["`model.layers.9.mlp.up_proj` is no linear layer"]);
    let whole = file(&[], &q);
    refused(&place, &whole[..whole.len() - 40], &["beyond the file's end"]);
    refused(&place, &whole[..100], &["ends within a field"]);
    let mut version = whole.clone();
    version[4] = 1;
    refused(&place, &version, &["version 1"]);
    let mut kind = whole;
    let at = kind.windows(6).position(|w| w == b"lora_a").unwrap() + 6 + 4 + 16;
    kind[at] = 8;
    refused(&place, &kind, &["lora_a", "type 8", "--outtype f32"]);
}

#[test]
fn no_bytes_make_it_panic() {
    let place = place_with("llama");
    let base = ImageFile::open(&place.path("base.rkl")).unwrap();
    let model = base.model().unwrap();
    let stored = Stored::of(&model);
    let whole = converted("llama", "llama", &LLAMA, 0);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
    let outcome = runner.run(&(changes, any::<prop::sample::Index>()), |(changes, cut)| {
        let mut bytes = whole.clone();
        changes.iter().for_each(|(at, value)| bytes[at.index(1500)] = *value);
        bytes.truncate(bytes.len() - cut.index(64));
        place.write("x.gguf", bytes);
        let _ = gguf::read(&place.path("x.gguf"), &stored, model.spec().transformer());
        Ok(())
    });
    outcome.unwrap();
}

/// A file whose pairs are as llama.cpp loads them is taken as well; one that may be either is not.
#[test]
fn pairs_of_gpt2_either_way() {
    let place = place_with("gpt2");
    let fields = || {
        [
            ("general.architecture", Value::Text("gpt2")),
            ("general.type", Value::Text("adapter")),
            ("adapter.type", Value::Text("lora")),
        ]
    };
    let tensor = |name: &str, rows: usize, cols: usize| {
        (name.to_owned(), rows, cols, (0..rows * cols).map(|i| i as f32).collect::<Vec<f32>>())
    };
    let base = ImageFile::open(&place.path("base.rkl")).unwrap();
    let model = base.model().unwrap();
    let read = |tensors: &[(String, usize, usize, Vec<f32>)]| {
        place.write("x.gguf", write(&fields(), tensors, 0));
        gguf::read(&place.path("x.gguf"), &Stored::of(&model), model.spec().transformer())
    };
    let (a, b) = ("blk.0.attn_qkv.weight.lora_a", "blk.0.attn_qkv.weight.lora_b");
    let plain = read(&[tensor(a, 2, 32), tensor(b, 96, 2)]).unwrap();
    assert!(plain.warnings.is_empty());
    assert_eq!(plain.pairs[0].scaling, 1.0, "no alpha");
    let turned = read(&[tensor(a, 2, 96), tensor(b, 32, 2)]).unwrap();
    assert!(turned.warnings[0].contains("exchanged"), "{:?}", turned.warnings);
    assert_eq!(turned.pairs[0].a.data[..4], [0.0, 2.0, 4.0, 6.0]);
    let square = [tensor("blk.0.attn_output.weight.lora_a", 2, 32), tensor("blk.0.attn_output.weight.lora_b", 32, 2)];
    let e = read(&square).unwrap_err().to_string();
    assert!(e.contains("`blk.0.attn_output.weight`") && e.contains("square"), "{e}");
}
