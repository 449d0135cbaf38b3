//! The float reference against PyTorch, for every family and every kind of adapter: what `verify` measures by.

mod common;

use common::{FAMILIES, cases, checkpoint_of};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::{self, ImageFile, stored::Stored};
use ranklet_cli::peft;
use ranklet_cli::peft::keys::{Part, name};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::reference::{Reference, gradients::Gradients, layers::adapt};
use ranklet_cli::sequences::Batch;
use std::path::Path;

/// Relative L2: the goldens are rounded to `f32`, and the rotary angles to 2^-32 turns.
const LIMIT: f64 = 1e-7;

/// Kinds of adapters, and their bases.
const KINDS: [(&str, &str); 7] = [
    ("bias_lora_only", "bert"),
    ("dora", "llama"),
    ("dora_conv1d", "gpt2"),
    ("lora_bias", "bert"),
    ("modules_to_save", "llama"),
    ("patterns", "llama"),
    ("rslora", "llama"),
];

/// Relative L2 over the positions that count.
fn error(found: &[f64], expected: &[f32], golden: &Checkpoint) -> f64 {
    let mask = golden.contains("output_mask").then(|| golden.i64s("output_mask").unwrap().data);
    let width = mask.as_ref().map_or(1, |m| expected.len() / m.len());
    let counts = |i: usize| mask.as_ref().is_none_or(|m| m[i / width] == 1);
    let pairs =
        || found.iter().zip(expected).enumerate().filter(|&(i, _)| counts(i)).map(|(_, (f, &e))| (f, f64::from(e)));
    let wrong: f64 = pairs().map(|(f, e)| (f - e).powi(2)).sum();
    (wrong / pairs().map(|(_, e)| e * e).sum::<f64>()).sqrt()
}

fn compare(base: &str, golden: &Path, adapter: Option<&Path>, tensor: &str) {
    let golden = Checkpoint::open_file(golden).unwrap();
    let (checkpoint, network) = checkpoint_of(base);
    let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ()).unwrap();
    let file = ImageFile::of(Path::new(base), &converted.bytes);
    let model = file.model().unwrap();
    let batch = Batch::read(&golden, &model, model.spec().transformer().unwrap()).unwrap();
    let mut reference = Reference::read(&checkpoint, &network).unwrap();
    if let Some(adapter) = adapter {
        let read = peft::read(adapter, None, &Stored::floats(&reference.layers)).unwrap();
        adapt(&mut reference.layers, &read.pairs);
    }
    let found: Vec<f64> =
        (0..batch.count).flat_map(|row| reference.run(&batch.row(row), adapter.is_some(), &mut |_| ())).collect();
    let expected = golden.f32s(tensor).unwrap().data;
    assert_eq!(found.len(), expected.len(), "{base}");
    let error = error(&found, &expected, &golden);
    println!("{base:17} {tensor:15} {error:.1e}");
    assert!(error <= LIMIT, "{base}, {tensor}: {error:.1e}");
}

#[test]
fn families_are_torchs() {
    for case in FAMILIES {
        let (directory, golden) = (cases().join(case), cases().join(case).join("golden.safetensors"));
        compare(case, &golden, None, "output_base");
        compare(case, &golden, Some(&directory.join("adapter")), "output_adapter");
    }
    for case in ["bert", "t5-encoder", "llama", "encoder"] {
        compare(case, &cases().join(case).join("masked.safetensors"), None, "output_base");
    }
    compare("outlier", &cases().join("outlier/golden.safetensors"), None, "output_base");
}

/// The gradients of A and B for `L = Σ output · cotangent`.
#[test]
fn gradients_are_torchs() {
    for case in FAMILIES {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let (checkpoint, network) = checkpoint_of(case);
        let mut reference = Reference::read(&checkpoint, &network).unwrap();
        let read = peft::read(&cases().join(case).join("adapter"), None, &Stored::floats(&reference.layers)).unwrap();
        adapt(&mut reference.layers, &read.pairs);
        let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ()).unwrap();
        let file = ImageFile::of(Path::new(case), &converted.bytes);
        let model = file.model().unwrap();
        let batch = Batch::read(&golden, &model, model.spec().transformer().unwrap()).unwrap();
        let cotangent: Vec<f64> = golden.f32s("cotangent").unwrap().data.iter().map(|&v| v.into()).collect();
        let mut gradients = Gradients::new(&reference.layers, &reference.norms, false);
        for (row, dy) in cotangent.chunks_exact(cotangent.len() / batch.count).enumerate() {
            let (tape, y) = reference.tape(&batch.row(row), true, &mut |_| ());
            tape.backward(y, dy, &mut gradients);
        }
        let (mut wrong, mut all, mut compared) = (0.0, 0.0, 0);
        for pair in &read.pairs {
            let [a, b] = &gradients.added[pair.site][0];
            for (values, part) in [(a, Part::A), (b, Part::B)] {
                let key = name(&reference.layers[pair.site].module, part);
                // A wrapped attention's output has its pair twice: `gradients.rs` tells why.
                let times = if key.contains("self_attn.base_layer.out_proj") { 2.0 } else { 1.0 };
                if !golden.contains(&key) {
                    assert!(pair.whole, "{case}: {key}");
                    continue;
                }
                let expected = golden.f32s(&key).unwrap().data;
                assert_eq!(values.len(), expected.len(), "{key}");
                wrong += values.iter().zip(&expected).map(|(v, &e)| (v - times * f64::from(e)).powi(2)).sum::<f64>();
                all += expected.iter().map(|&e| (times * f64::from(e)).powi(2)).sum::<f64>();
                compared += 1;
            }
        }
        assert_eq!(compared, golden.names().filter(|n| n.contains("lora_")).count(), "{case}");
        let error = f64::sqrt(wrong / all);
        println!("{case:17} gradients       {error:.1e}");
        assert!(error <= LIMIT, "{case}: gradients are off by {error:.1e}");
    }
}

/// And those of everything else, against difference quotients.
#[test]
fn gradients_of_the_whole_are_difference_quotients() {
    for case in ["bert-classifier", "llama", "encoder-pre"] {
        let golden = Checkpoint::open_file(&cases().join(case).join("golden.safetensors")).unwrap();
        let (checkpoint, network) = checkpoint_of(case);
        let mut reference = Reference::read(&checkpoint, &network).unwrap();
        let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ()).unwrap();
        let file = ImageFile::of(Path::new(case), &converted.bytes);
        let model = file.model().unwrap();
        let batch = Batch::read(&golden, &model, model.spec().transformer().unwrap()).unwrap();
        let loss = |reference: &Reference| -> f64 {
            let y = reference.run(&batch.row(0), false, &mut |_| ());
            y.iter().enumerate().map(|(i, y)| y * (i as f64).sin()).sum()
        };
        let mut gradients = Gradients::new(&reference.layers, &reference.norms, true);
        let (tape, y) = reference.tape(&batch.row(0), false, &mut |_| ());
        let dy: Vec<f64> = (0..tape.value(y).len()).map(|i| (i as f64).sin()).collect();
        tape.backward(y, &dy, &mut gradients);
        drop(tape);
        let whole = gradients.whole.unwrap();
        let mut quotient = |of: &dyn Fn(&mut Reference) -> &mut f64, expected: f64, what: &str| {
            let step = 1e-5;
            *of(&mut reference) += step;
            let above = loss(&reference);
            *of(&mut reference) -= 2.0 * step;
            let slope = (above - loss(&reference)) / (2.0 * step);
            *of(&mut reference) += step;
            assert!((slope - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{case}, {what}: {slope} {expected}");
        };
        for (site, [weight, bias]) in whole.layers.iter().enumerate() {
            for at in [0, weight.len() / 2, weight.len() - 1] {
                quotient(&|r| &mut r.layers[site].weight[at], weight[at], "weight");
            }
            if let Some(&expected) = bias.last() {
                quotient(&|r| r.layers[site].bias.as_mut().unwrap().last_mut().unwrap(), expected, "bias");
            }
        }
        for (index, [weight, bias]) in whole.norms.iter().enumerate() {
            quotient(&|r| &mut r.norms[index].weight[1], weight[1], "norm");
            if let Some(&expected) = bias.first() {
                quotient(&|r| &mut r.norms[index].bias.as_mut().unwrap()[0], expected, "norm's bias");
            }
        }
    }
}

#[test]
fn kinds_are_pefts() {
    for (kind, base) in KINDS {
        let directory = cases().join("adapters").join(kind);
        compare(base, &directory.join("golden.safetensors"), Some(&directory.join("adapter")), "output_adapter");
    }
}
