//! What an adapter may have beside A and B, on multilayer perceptrons: DoRA's magnitudes, trained biases, layers trained
//! whole; and sums of such adapters. The reference is a network whose weights have been changed in `f64`.

mod common;

use common::*;
use ranklet_cli::save::{Out, safetensors};
use ranklet_host_tests::tolerance::OUTPUT_I16;
use serde_json::{Value, json};

/// A network, an adapter directory that is being filled, and the network that PEFT would compute.
struct Bench {
    place: Place,
    net: Net,
    tensors: Vec<(String, Out)>,
    merged: Net,
    x: Vec<f32>,
}

fn copy(net: &Net) -> Net {
    Net { dims: net.dims.clone(), weights: net.weights.clone(), biases: net.biases.clone() }
}

impl Bench {
    fn new(dims: &[usize]) -> Bench {
        let place = Place::new();
        let net = Net::new(dims, 11);
        net.save(&place, "base", "regression");
        let p = |n: &str| place.str(n);
        ranklet(&["convert", "base", &p("base"), "--weights", "i16", "-o", &p("base.rkl")]).unwrap();
        let x = Draw::new(3).values(24 * dims[0], 1.0);
        place.tensors("in.safetensors", &[("inputs", &[24, dims[0]], &x)]);
        Bench { place, merged: copy(&net), net, tensors: vec![], x }
    }

    fn put(&mut self, name: &str, shape: &[usize], data: &[f32]) {
        self.tensors.push((format!("base_model.model.{name}"), Out::f32s(shape, data)));
    }

    /// A pair; the network gets W + s B A.
    fn pair(&mut self, layer: usize, rank: usize, s: f64) {
        let p = Pair::new(&self.net, layer, rank, 20 + layer as u64);
        let (inputs, outputs) = (self.net.dims[layer], self.net.dims[layer + 1]);
        let module = Net::module(layer);
        self.put(&format!("{module}.lora_A.weight"), &[rank, inputs], &p.a);
        self.put(&format!("{module}.lora_B.weight"), &[outputs, rank], &p.b);
        for (i, w) in self.merged.weights[layer].iter_mut().enumerate() {
            let (o, k) = (i / inputs, i % inputs);
            let product = (0..rank).map(|r| f64::from(p.b[o * rank + r]) * f64::from(p.a[r * inputs + k])).sum::<f64>();
            *w = (f64::from(*w) + s * product) as f32;
        }
    }

    /// Magnitudes on a pair that is there: every row gets a norm of its own, some of them negative or zero.
    fn magnitudes(&mut self, layer: usize) {
        let (inputs, outputs) = (self.net.dims[layer], self.net.dims[layer + 1]);
        let mut m: Vec<f32> = Draw::new(5).values(outputs, 1.5);
        m[1] = 0.0;
        self.put(&format!("{}.lora_magnitude_vector", Net::module(layer)), &[outputs], &m);
        for (row, &m) in self.merged.weights[layer].chunks_exact_mut(inputs).zip(&m) {
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            row.iter_mut().for_each(|v| *v = (f64::from(*v) * f64::from(m) / norm) as f32);
        }
    }

    /// A bias in place of the base's, under this name.
    fn bias(&mut self, layer: usize, name: &str) {
        let bias = Draw::new(40 + layer as u64).values(self.net.dims[layer + 1], 0.5);
        self.put(&format!("{}.{name}", Net::module(layer)), &[bias.len()], &bias);
        self.merged.biases[layer] = bias;
    }

    /// A bias of B.
    fn bias_of_b(&mut self, layer: usize, s: f64) {
        let bias = Draw::new(60 + layer as u64).values(self.net.dims[layer + 1], 0.5);
        self.put(&format!("{}.lora_B.bias", Net::module(layer)), &[bias.len()], &bias);
        for (b, d) in self.merged.biases[layer].iter_mut().zip(bias) {
            *b = (f64::from(*b) + s * f64::from(d)) as f32;
        }
    }

    /// A layer trained whole.
    fn whole(&mut self, layer: usize) {
        let (inputs, outputs) = (self.net.dims[layer], self.net.dims[layer + 1]);
        let weight = Draw::new(80).values(inputs * outputs, 0.7);
        self.put(&format!("{}.weight", Net::module(layer)), &[outputs, inputs], &weight);
        self.merged.weights[layer] = weight;
        self.bias(layer, "bias");
    }

    fn save(&self, config: &Value) {
        self.place.write("peft/adapter_config.json", config.to_string());
        let tensors = self.tensors.iter().cloned();
        self.place.write("peft/adapter_model.safetensors", safetensors(tensors).unwrap());
    }

    fn convert(&self, dir: &str, task: &str) {
        let (dir, base, task) = (self.place.str(dir), self.place.str("base.rkl"), self.place.str(task));
        ranklet(&["convert", "adapter", &dir, "--base", &base, "-o", &task]).unwrap();
    }

    fn run(&self, adapters: &[String]) -> Vec<f32> {
        let p = |n: &str| self.place.str(n);
        let (base, input, output) = (p("base.rkl"), p("in.safetensors"), p("out.safetensors"));
        let mut args = vec!["run", "--base", &base, "--input", &input, "--output", &output];
        adapters.iter().for_each(|a| args.extend(["--adapter", a]));
        ranklet(&args).unwrap();
        read(&self.place.path("out.safetensors"), "logits")
    }

    /// Converts, runs and compares; exports, converts that and compares again.
    fn check(&self, config: &Value, what: &str) {
        self.save(config);
        let want = outputs(&mlp(&self.merged, |i| self.merged.weights[i].clone()), &[], &self.x);
        self.convert("peft", "task.rkl");
        OUTPUT_I16.check(relative(&self.run(&[self.place.str("task.rkl")]), &want), what);
        self.export("task.rkl");
        assert_eq!(self.exported_config(), *config, "{what}: every field");
        self.convert("back", "again.rkl");
        OUTPUT_I16.check(relative(&self.run(&[self.place.str("again.rkl")]), &want), &format!("{what}, exported"));
    }

    fn export(&self, task: &str) {
        let p = |n: &str| self.place.str(n);
        ranklet(&["export", &p(task), "--base", &p("base.rkl"), "-o", &p("back")]).unwrap();
    }

    fn exported_config(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.place.path("back/adapter_config.json")).unwrap()).unwrap()
    }

    fn refused(&self, config: &Value, parts: &[&str]) {
        self.save(config);
        let p = |n: &str| self.place.str(n);
        let e = refusal(&["convert", "adapter", &p("peft"), "--base", &p("base.rkl"), "-o", &p("no.rkl")]);
        assert!(parts.iter().all(|p| e.contains(p)), "{parts:?} in: {e}");
        assert!(!self.place.path("no.rkl").exists());
    }
}

fn with(mut config: Value, changes: Value) -> Value {
    changes.as_object().unwrap().iter().for_each(|(k, v)| config[k] = v.clone());
    config
}

#[test]
fn dora() {
    let mut b = Bench::new(&[9, 14, 6]);
    b.pair(0, 3, 2.0);
    b.magnitudes(0);
    b.pair(1, 3, 2.0);
    b.magnitudes(1);
    let c = with(config(3, 6.0, &["0", "2"]), json!({"use_dora": true}));
    b.check(&c, "DoRA");
    b.bias(1, "base_layer.bias");
    b.bias(0, "base_layer.bias");
    b.check(&with(c, json!({"bias": "lora_only"})), "DoRA with trained biases");
}

#[test]
fn dora_on_other_weights() {
    for weights in ["i8", "i4"] {
        let mut b = Bench::new(&[40, 14]);
        b.pair(0, 3, 2.0);
        b.magnitudes(0);
        let p = |n: &str| b.place.str(n);
        ranklet(&["convert", "base", &p("base"), "--weights", weights, "-o", &p("base.rkl")]).unwrap();
        b.save(&with(config(3, 6.0, &["0"]), json!({"use_dora": true})));
        b.convert("peft", "task.rkl");
        // The norm is that of the weights as they are stored: every row of the sum is as long as its magnitude says.
        let identity: Vec<f32> = (0..40 * 40).map(|i| if i % 41 == 0 { 1.0 } else { 0.0 }).collect();
        let rows = [identity, vec![0.0; 40]].concat();
        b.place.tensors("in.safetensors", &[("inputs", &[41, 40], &rows)]);
        let out = b.run(&[p("task.rkl")]);
        let bias = &out[40 * 14..];
        for (o, &m) in read(&b.place.path("peft/adapter_model.safetensors"), "base_model.model.0.lora_magnitude_vector")
            .iter()
            .enumerate()
        {
            let norm = (0..40).map(|k| f64::from(out[k * 14 + o] - bias[o]).powi(2)).sum::<f64>().sqrt();
            assert!((norm - f64::from(m.abs())).abs() < 2e-3, "{weights}, row {o}: {norm} for {m}");
        }
    }
}

#[test]
fn trained_biases() {
    let mut b = Bench::new(&[9, 14, 6]);
    b.pair(0, 4, 0.5);
    b.bias(0, "base_layer.bias");
    b.check(&with(config(4, 2.0, &["0"]), json!({"bias": "lora_only"})), "bias=lora_only");
    b.bias(1, "bias");
    b.check(&with(config(4, 2.0, &["0"]), json!({"bias": "all"})), "bias=all");

    let mut b = Bench::new(&[9, 14, 6]);
    b.pair(1, 4, 0.5);
    b.bias_of_b(1, 0.5);
    b.check(&with(config(4, 2.0, &["2"]), json!({"lora_bias": true})), "lora_bias");
}

#[test]
fn layers_trained_whole() {
    // More inputs than outputs, and fewer; the smaller side at its limit.
    for dims in [[9, 70, 6], [9, 5, 70], [9, 64, 64]] {
        let mut b = Bench::new(&dims);
        b.pair(0, 4, 0.5);
        b.whole(1);
        let c = with(config(4, 2.0, &["0"]), json!({"modules_to_save": ["2", "classifier"]}));
        b.check(&c, &format!("{dims:?}"));
        let report = ranklet(&["inspect", &b.place.str("task.rkl")]).unwrap();
        let whole = dims[1] * dims[2] + dims[2];
        assert_eq!(report.json["trainable_params"], 4 * (dims[0] + dims[1]) + whole, "as PyTorch counts them");
        assert_eq!(report.json["pairs"][1]["more"], "whole, bias");
    }
    let mut b = Bench::new(&[9, 65, 65]);
    b.pair(0, 4, 0.5);
    b.whole(1);
    let c = with(config(4, 2.0, &["0"]), json!({"modules_to_save": ["2"]}));
    b.refused(&c, &["`base_model.model.2.weight`", "(65, 65)", "rank 65", "target_modules"]);
}

#[test]
fn refusals() {
    let plain = config(4, 2.0, &["0"]);
    let mut b = Bench::new(&[9, 14, 6]);
    b.pair(0, 4, 0.5);
    for (changes, name) in [
        (json!({"use_dora": true}), "lora_magnitude_vector"),
        (json!({"lora_bias": true}), "lora_B.bias"),
        (json!({"bias": "all"}), "base_layer.bias"),
        (json!({"bias": "lora_only"}), "base_layer.bias"),
    ] {
        let field = changes.as_object().unwrap().keys().next().unwrap().clone();
        b.refused(&with(plain.clone(), changes), &[&format!("`{field}` is set"), name, "incomplete"]);
    }
    let refused = |name: &str, shape: &[usize], value: f32, changes: Value, parts: &[&str]| {
        let mut b = Bench::new(&[9, 14, 6]);
        b.pair(0, 4, 0.5);
        b.put(name, shape, &vec![value; shape.iter().product()]);
        b.refused(&with(plain.clone(), changes), parts);
    };
    let none = || json!({});
    refused("0.base_layer.bias", &[14], 1.0, none(), &["`base_model.model.0.base_layer.bias`", "`bias` is not set"]);
    refused("0.lora_B.bias", &[14], 1.0, none(), &["`base_model.model.0.lora_B.bias`", "`lora_bias` is not set"]);
    refused("0.lora_B.bias", &[13], 1.0, json!({"lora_bias": true}), &["lora_B.bias", "(13)", "(14)"]);
    refused("2.bias", &[6], 1.0, none(), &["left-over", "`base_model.model.2.bias`"]);
    let dora = || json!({"use_dora": true});
    refused("0.lora_magnitude_vector", &[14], 1e9, dora(), &["`0`: row 0", "100 times"]);
    refused("0.lora_magnitude_vector", &[1, 14], 1.0, dora(), &["lora_magnitude_vector", "(1, 14)"]);
    let all = |name: &str| json!({"bias": "all", "modules_to_save": [name]});
    refused("norm.bias", &[14], 1.0, json!({"bias": "all"}), &["`base_model.model.norm.bias`", "lora_only"]);
    refused("2.weight", &[6, 14], 1.0, json!({"modules_to_save": ["2"]}), &["`2` was trained whole", "2.bias`"]);
    refused("2.bias", &[6], 1.0, all("2"), &["modules_to_save names `2`"]);
    refused("0.weight", &[14, 9], 1.0, json!({"modules_to_save": ["0"]}), &["`0` has a pair and was trained whole"]);
    refused("fc.weight", &[14, 9], 1.0, json!({"modules_to_save": ["fc"]}), &["`fc` was trained whole", "`0`, `2`"]);
    refused("2.weight", &[6, 13], 1.0, json!({"modules_to_save": ["2"]}), &["(6, 13)", "(6, 14)"]);
}

#[test]
fn such_adapters_do_not_train_on() {
    let mut b = Bench::new(&[9, 14, 6]);
    b.pair(0, 3, 2.0);
    b.magnitudes(0);
    b.save(&with(config(3, 6.0, &["0"]), json!({"use_dora": true})));
    b.convert("peft", "task.rkl");
    let targets = vec![0.0; 24 * 6];
    b.place.tensors("data.safetensors", &[("inputs", &[24, 9], &b.x), ("targets", &[24, 6], &targets)]);
    let p = |n: &str| b.place.str(n);
    let e = refusal(&[
        "train",
        "--base",
        &p("base.rkl"),
        "--data",
        &p("data.safetensors"),
        "--init",
        &p("task.rkl"),
        "-o",
        &p("n"),
    ]);
    assert!(e.contains("DoRA"), "{e}");
    let report = ranklet(&["inspect", &p("task.rkl")]).unwrap();
    assert_eq!((&report.json["can_train"], &report.json["pairs"][0]["more"]), (&json!(false), &json!("DoRA")));
}

/// Three adapters of unlike kinds: their weighted sum does what they do together, as an image and as a PEFT directory.
#[test]
fn a_sum_does_what_its_adapters_do() {
    let dims = [9, 14, 6];
    let place = |make: &dyn Fn(&mut Bench) -> Value| {
        let mut b = Bench::new(&dims);
        let c = make(&mut b);
        b.save(&c);
        b.convert("peft", "task.rkl");
        b
    };
    let plain = |b: &mut Bench| {
        b.pair(0, 4, 0.5);
        b.pair(1, 2, 1.0);
        with(config(4, 2.0, &["0", "2"]), json!({"rank_pattern": {"2": 2}, "task_type": "SEQ_CLS"}))
    };
    let dora = |b: &mut Bench| {
        b.pair(0, 3, 2.0);
        b.magnitudes(0);
        with(config(3, 6.0, &["0"]), json!({"use_dora": true, "task_type": "SEQ_CLS"}))
    };
    let biased = |b: &mut Bench| {
        b.pair(0, 5, 0.2);
        b.bias(0, "base_layer.bias");
        b.whole(1);
        let more = json!({"bias": "lora_only", "modules_to_save": ["2"], "task_type": "SEQ_CLS"});
        with(config(5, 1.0, &["0"]), more)
    };
    let benches = [place(&plain), place(&dora), place(&biased)];
    let tasks: Vec<String> = benches.iter().map(|b| b.place.str("task.rkl")).collect();
    let b = &benches[0];
    let weighted = [format!("{}:0.5", tasks[0]), format!("{}:-0.3", tasks[1]), tasks[2].clone()];
    let together: Vec<f64> = b.run(&weighted).iter().map(|&v| f64::from(v)).collect();
    assert!(relative(&b.run(&[]), &together) > 0.1, "they do something");

    let (base, sum) = (b.place.str("base.rkl"), b.place.str("sum.rkl"));
    let mut args = vec!["merge"];
    args.extend(weighted.iter().map(String::as_str));
    args.extend(["--base", &base, "-o", &sum]);
    let report = ranklet(&args).unwrap();
    assert_eq!(report.json["pairs"][0]["rank"], 12);
    assert_eq!(report.json["pairs"][0]["more"], "DoRA, bias");
    assert_eq!(report.json["pairs"][1]["more"], "whole, bias");
    OUTPUT_I16.check(relative(&b.run(std::slice::from_ref(&sum)), &together), "the sum");

    b.export("sum.rkl");
    let c = b.exported_config();
    for (field, value) in [
        ("r", json!(12)),
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("modules_to_save", json!(["2"])),
        ("target_modules", json!(["0"])),
        ("task_type", json!("SEQ_CLS")),
    ] {
        assert_eq!(c[field], value, "{field}");
    }
    b.convert("back", "again.rkl");
    OUTPUT_I16.check(relative(&b.run(&[b.place.str("again.rkl")]), &together), "the sum, exported");
    let card = std::fs::read_to_string(b.place.path("back/README.md")).unwrap();
    assert!(card.contains("| merged | 0.5 × task.rkl + -0.3 × task.rkl + 1 × task.rkl |"), "{card}");
}

#[test]
fn sums_that_cannot_be() {
    let mut b = Bench::new(&[80, 70, 6]);
    b.pair(0, 40, 0.5);
    b.save(&config(40, 20.0, &["0"]));
    b.convert("peft", "task.rkl");
    let p = |n: &str| b.place.str(n);
    let (task, base, sum) = (p("task.rkl"), p("base.rkl"), p("sum.rkl"));
    let e = refusal(&["merge", &task, &task, "--base", &base, "-o", &sum]);
    assert!(e.contains("`0`: the ranks add up to 80") && e.contains("one by one"), "{e}");
    let e = refusal(&["merge", &format!("{task}:0"), "--base", &base, "-o", &sum]);
    assert!(e.contains("nothing is left"), "{e}");
    let e = refusal(&["merge", &task, "--base", &base, "-o", &task]);
    assert!(e.contains("also an input"), "{e}");
    assert!(!b.place.path("sum.rkl").exists());
    let report = ranklet(&["merge", &format!("{task}:-2"), "--base", &base, "-o", &sum]).unwrap();
    assert_eq!(report.json["pairs"][0]["scaling"], -1.0);
    let e = refusal(&["merge", &base, "--base", &base, "-o", &p("x.rkl")]);
    assert!(e.contains("--base"), "{e}");
}
