//! Outputs against float64, gradients against central differences, through the command line and real files.

mod common;

use common::*;

/// Relative error allowed, and why. Norm over all outputs or gradients of the batch.
///
/// | what | i16 | i8 | i4 | reason |
/// |---|---|---|---|---|
/// | outputs | 1e-3 | 3e-2 | 0.25 | 16-bit blocks round to 2^-16 of the peak a layer, and clamp the uppermost 1/256; i8 weights carry 0.4 % noise a layer, i4 weights 8 % |
/// | gradients | 1e-2 | | | as outputs, twice through the network, and ReLUs near 0 that switch |
const OUTPUTS: [(&str, f64); 3] = [("i16", 1e-3), ("i8", 3e-2), ("i4", 0.25)];
const GRADIENTS: f64 = 1e-2;

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

fn expected(case: &Case, pairs: &[Pair], scaling: f64) -> Vec<f64> {
    case.x.chunks(case.net.dims[0]).flat_map(|x| oracle(&case.net, pairs, scaling, x).1).collect()
}

#[test]
fn outputs_follow_float64() {
    for (dims, rank) in [(&[7, 13, 5][..], 3), (&[512, 512], 8), (&[33, 1, 64, 9], 1), (&[1, 31, 2], 64)] {
        let case = case(dims, rank, 40);
        for (weights, tolerance) in OUTPUTS {
            convert(&case, weights);
            let error = relative(&outputs(&case, &[]), &expected(&case, &[], 0.0));
            assert!(error <= tolerance, "{dims:?} {weights} without adapter: {error:.2e}");
            let got = outputs(&case, &[&case.place.str("task.rkl")]);
            let error = relative(&got, &expected(&case, &case.pairs, scaling(rank)));
            assert!(error <= tolerance, "{dims:?} r={rank} {weights}: {error:.2e}");
        }
    }
}

#[test]
fn adapters_are_scaled_and_summed() {
    let case = case(&[7, 13, 5], 3, 20);
    convert(&case, "i16");
    let task = case.place.str("task.rkl");
    let off = outputs(&case, &[&format!("{task}:0")]);
    assert_eq!(off, outputs(&case, &[]), "an adapter at 0 is no adapter, bit for bit");
    let got = outputs(&case, &[&format!("{task}:0.75"), &format!("{task}:-0.25")]);
    let error = relative(&got, &expected(&case, &case.pairs, 0.5 * scaling(3)));
    assert!(error <= 1e-3, "{error:.2e}");
}

#[test]
fn gradients_follow_central_differences() {
    for (dims, rank) in [(&[7, 13, 5][..], 3), (&[9, 6, 8, 4], 2), (&[24, 24], 8)] {
        let case = case(dims, rank, 5);
        convert(&case, "i16");
        let p = |n: &str| case.place.str(n);
        let (base, task, input, output) = (p("base.rkl"), p("task.rkl"), p("in.safetensors"), p("grad.safetensors"));
        let args = ["grad", "--base", &base, "--adapter", &task, "--input", &input, "--output", &output];
        ranklet(&args).unwrap();
        let c = read(&case.place.path("in.safetensors"), "cotangent");
        assert_eq!(c.len() / case.rows, dims[dims.len() - 1]);
        let want = differences(&case.net, &case.pairs, scaling(rank), &case.x, &c);
        for (pair, (a, b)) in case.pairs.iter().zip(&want) {
            for (part, want) in [("A", a), ("B", b)] {
                let key = format!("base_model.model.{}.lora_{part}.weight", Net::module(pair.layer));
                let error = relative(&read(&case.place.path("grad.safetensors"), &key), want);
                assert!(error <= GRADIENTS, "{dims:?} {key}: {error:.2e}");
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
    let error = relative(&read(&place.path("o.safetensors"), "last_hidden_state"), &want);
    assert!(error <= 1e-3, "{error:.2e}");
}
