//! Outputs and gradients against the float oracle, through the command line and real files.

mod common;

use common::*;
use ranklet_cli::quantize::{WeightType, quantize};
use ranklet_cli::tensor::Matrix;
use ranklet_host_tests::tolerance::{GRADIENT_I16, MERGED, OUTPUT_DEQUANTIZED, OUTPUT_I8, OUTPUT_I16};

struct Case {
    place: Place,
    net: Net,
    pairs: Vec<Pair>,
    x: Vec<f32>,
    rows: usize,
}

/// alpha 6 under rank r.
fn scaling(rank: usize) -> f64 {
    6.0 / rank as f64
}

fn case(dims: &[usize], rank: usize, rows: usize) -> Case {
    let place = Place::new();
    let net = Net::new(dims, 1);
    net.save(&place, "base", "regression");
    let pairs: Vec<Pair> = (0..dims.len() - 1).map(|l| Pair::new(&net, l, rank, 10 + l as u64)).collect();
    let names: Vec<String> = pairs.iter().map(|p| Net::module(p.layer)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    save_peft(&place, "peft", &net, &pairs, config(rank, 6.0, &names));
    let x = Draw::new(3).values(rows * dims[0], 2.0);
    let c = Draw::new(4).values(rows * dims[dims.len() - 1], 1.0);
    let outputs = dims[dims.len() - 1];
    place.tensors("in.safetensors", &[("inputs", &[rows, dims[0]], &x), ("cotangent", &[rows, outputs], &c)]);
    Case { place, net, pairs, x, rows }
}

fn convert(case: &Case, weights: &str) {
    let p = |n: &str| case.place.str(n);
    ranklet(&["convert", "base", &p("base"), "--weights", weights, "-o", &p("base.rkl")]).unwrap();
    ranklet(&["convert", "adapter", &p("peft"), "--base", &p("base.rkl"), "-o", &p("task.rkl")]).unwrap();
}

fn outputs(case: &Case, adapters: &[&str]) -> Vec<f32> {
    let p = |n: &str| case.place.str(n);
    let (base, input, output) = (p("base.rkl"), p("in.safetensors"), p("out.safetensors"));
    let mut args = vec!["run", "--base", &base, "--input", &input, "--output", &output];
    adapters.iter().for_each(|a| args.extend(["--adapter", a]));
    ranklet(&args).unwrap();
    read(&case.place.path("out.safetensors"), "logits")
}

/// The checkpoint's own weights.
fn original(case: &Case) -> Vec<Vec<f32>> {
    case.net.weights.clone()
}

/// The weights as an image of this type has them.
fn dequantized(case: &Case, to: WeightType) -> Vec<Vec<f32>> {
    let dims = |i: usize| (case.net.dims[i + 1], case.net.dims[i]);
    let of = |(i, w): (usize, &Vec<f32>)| quantize(&Matrix::new(dims(i).0, dims(i).1, w.clone()), to).dequantize().data;
    case.net.weights.iter().enumerate().map(of).collect()
}

fn expected(case: &Case, weights: &[Vec<f32>], pairs: &[Pair], scaling: f64) -> Vec<f64> {
    let net = mlp(&case.net, |i| weights[i].clone());
    common::outputs(&net, &oracle_pairs(pairs, scaling), &case.x)
}

#[test]
fn outputs_follow_float64() {
    for (dims, rank) in [(&[7, 13, 5][..], 3), (&[512, 512], 8), (&[33, 1, 64, 9], 1), (&[1, 31, 2], 64)] {
        let case = case(dims, rank, 200);
        let task = case.place.str("task.rkl");
        for to in [WeightType::I16, WeightType::I8, WeightType::I4] {
            convert(&case, to.name());
            for (adapters, pairs) in [(&[][..], &[][..]), (&[task.as_str()], &case.pairs)] {
                let what = format!("{dims:?}, {}, {} pairs", to.name(), pairs.len());
                let got = outputs(&case, adapters);
                let against = |w: &[Vec<f32>]| relative(&got, &expected(&case, w, pairs, scaling(rank)));
                match to {
                    WeightType::I16 => OUTPUT_I16.check(against(&original(&case)), &what),
                    WeightType::I8 => OUTPUT_I8.check(against(&original(&case)), &what),
                    // What 4 bits cost is a matter of the checkpoint; that they are read as written is not.
                    WeightType::I4 => OUTPUT_DEQUANTIZED.check(against(&dequantized(&case, to)), &what),
                }
            }
        }
    }
}

#[test]
fn adapters_are_scaled_and_summed() {
    let case = case(&[7, 13, 5], 3, 200);
    convert(&case, "i16");
    let task = case.place.str("task.rkl");
    let off = outputs(&case, &[&format!("{task}:0")]);
    assert_eq!(off, outputs(&case, &[]), "an adapter at 0 is no adapter, bit for bit");
    let got = outputs(&case, &[&format!("{task}:0.75"), &format!("{task}:-0.25")]);
    let want = expected(&case, &original(&case), &case.pairs, 0.5 * scaling(3));
    MERGED.check(relative(&got, &want), "0.75 and -0.25 of an adapter");
}

#[test]
fn gradients_follow_float64() {
    for (dims, rank) in [(&[7, 13, 5][..], 3), (&[512, 512], 8), (&[9, 6, 8, 4], 2), (&[24, 24], 64)] {
        let case = case(dims, rank, 5);
        convert(&case, "i16");
        let p = |n: &str| case.place.str(n);
        let (base, task, input, output) = (p("base.rkl"), p("task.rkl"), p("in.safetensors"), p("grad.safetensors"));
        let args = ["grad", "--base", &base, "--adapter", &task, "--input", &input, "--output", &output];
        ranklet(&args).unwrap();
        let c = read(&case.place.path("in.safetensors"), "cotangent");
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let net = mlp(&case.net, |i| case.net.weights[i].clone());
        let pairs = oracle_pairs(&case.pairs, scaling(rank));
        let rows = case.x.chunks(dims[0]).zip(c.chunks(dims[dims.len() - 1]));
        let per_row: Vec<_> =
            rows.map(|(x, c)| net.backward(&net.trace(&wide(x), &pairs, None), &pairs, None, &wide(c)).0).collect();
        assert_eq!(per_row.len(), case.rows);
        for (i, pair) in case.pairs.iter().enumerate() {
            let sum = |of: fn(&ranklet_host_tests::oracle::PairGradient<f64>) -> &Vec<f64>| {
                let mut total = vec![0.0; of(&per_row[0][i]).len()];
                per_row.iter().for_each(|g| total.iter_mut().zip(of(&g[i])).for_each(|(t, g)| *t += g));
                total
            };
            for (part, want) in [("A", sum(|g| &g.a)), ("B", sum(|g| &g.b))] {
                let key = format!("base_model.model.{}.lora_{part}.weight", Net::module(pair.layer));
                let got = read(&case.place.path("grad.safetensors"), &key);
                GRADIENT_I16.check(relative(&got, &want), &format!("{dims:?}, {key}"));
            }
        }
    }
}

#[test]
fn normalization_is_in_the_image() {
    let place = Place::new();
    let spec = r#"{"model_type": "mlp", "modules": ["fc"], "head": "none",
                   "normalization": {"mean": "input.mean", "std": "input.std"}}"#;
    place.write("base/config.json", spec);
    let (w, mean, std) = ([1.0, 2.0, -0.5, 0.25, 3.0, 1.0], [0.5, -1.0, 10.0], [0.1, 2.0, 30.0]);
    place.tensors(
        "base/model.safetensors",
        &[("fc.weight", &[2, 3], &w), ("input.mean", &[3], &mean), ("input.std", &[3], &std)],
    );
    let x = [0.7, 3.0, -20.0];
    place.tensors("in.safetensors", &[("inputs", &[1, 1, 3], &x)]);
    let p = |n: &str| place.str(n);
    ranklet(&["convert", "base", &p("base"), "--weights", "i16", "-o", &p("b.rkl")]).unwrap();
    ranklet(&["run", "--base", &p("b.rkl"), "--input", &p("in.safetensors"), "--output", &p("o.safetensors")]).unwrap();
    let z: Vec<f64> = (0..3).map(|i| (f64::from(x[i]) - f64::from(mean[i])) / f64::from(std[i])).collect();
    let want: Vec<f64> = w.chunks(3).map(|r| r.iter().zip(&z).map(|(&w, z)| f64::from(w) * z).sum()).collect();
    let got = read(&place.path("o.safetensors"), "last_hidden_state");
    OUTPUT_I16.check(relative(&got, &want), "normalised");
}
