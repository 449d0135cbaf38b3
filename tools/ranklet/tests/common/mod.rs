//! Small checkpoints, adapters and data on disk, and a float64 oracle to compare with.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.

use clap::Parser;
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::commands::{Cli, execute};
use ranklet_cli::report::Report;
use ranklet_cli::save::{Out, safetensors};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A deterministic source of values in −1..1.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.value() * scale).collect()
    }
}

/// A directory of its own, and files in it.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn str(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn tensors(&self, name: &str, tensors: &[(&str, &[usize], &[f32])]) {
        let tensors = tensors.iter().map(|(n, s, d)| ((*n).to_owned(), Out::f32s(s, d)));
        self.write(name, safetensors(tensors).unwrap());
    }

    /// Everything in it, to see that a failure left nothing behind.
    pub fn listing(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Runs a command line in this process.
pub fn ranklet(args: &[&str]) -> anyhow::Result<Report> {
    execute(&Cli::try_parse_from(std::iter::once("ranklet").chain(args.iter().copied()))?)
}

/// Runs one that must fail; the whole message.
pub fn refusal(args: &[&str]) -> String {
    match ranklet(args) {
        Ok(report) => panic!("{args:?} was accepted:\n{}", report.human),
        Err(e) => format!("{e:#}"),
    }
}

/// A network in f32, as its checkpoint has it.
pub struct Net {
    pub dims: Vec<usize>,
    /// (out, in) each.
    pub weights: Vec<Vec<f32>>,
    pub biases: Vec<Vec<f32>>,
}

impl Net {
    pub fn new(dims: &[usize], seed: u64) -> Net {
        let mut draw = Draw::new(seed);
        let pairs: Vec<(usize, usize)> = dims.windows(2).map(|w| (w[0], w[1])).collect();
        let weights = pairs.iter().map(|&(i, o)| draw.values(i * o, (3.0 / i as f32).sqrt())).collect();
        let biases = pairs.iter().map(|&(_, o)| draw.values(o, 0.3)).collect();
        Net { dims: dims.to_vec(), weights, biases }
    }

    /// `nn.Sequential`'s names: linears stand at 0, 2, 4, ….
    pub fn module(i: usize) -> String {
        (2 * i).to_string()
    }

    pub fn save(&self, place: &Place, dir: &str, head: &str) {
        let modules: Vec<String> = (0..self.weights.len()).map(Net::module).collect();
        let spec = json!({"model_type": "mlp", "modules": modules, "activation": "relu", "head": head});
        place.write(&format!("{dir}/config.json"), spec.to_string());
        let mut tensors = Vec::new();
        for (i, (w, b)) in self.weights.iter().zip(&self.biases).enumerate() {
            let (inputs, outputs) = (self.dims[i], self.dims[i + 1]);
            tensors.push((format!("{}.weight", Net::module(i)), Out::f32s(&[outputs, inputs], w)));
            tensors.push((format!("{}.bias", Net::module(i)), Out::f32s(&[outputs], b)));
        }
        place.write(&format!("{dir}/model.safetensors"), safetensors(tensors).unwrap());
    }
}

/// A pair on layer `layer`, in PEFT's orientation.
#[derive(Clone)]
pub struct Pair {
    pub layer: usize,
    pub rank: usize,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
}

impl Pair {
    pub fn new(net: &Net, layer: usize, rank: usize, seed: u64) -> Pair {
        let mut draw = Draw::new(seed);
        let (inputs, outputs) = (net.dims[layer], net.dims[layer + 1]);
        let a = draw.values(rank * inputs, (1.0 / inputs as f32).sqrt());
        Pair { layer, rank, a, b: draw.values(outputs * rank, 0.2) }
    }
}

/// Writes a PEFT directory.
pub fn save_peft(place: &Place, dir: &str, net: &Net, pairs: &[Pair], config: Value) {
    place.write(&format!("{dir}/adapter_config.json"), serde_json::to_string_pretty(&config).unwrap());
    let mut tensors = Vec::new();
    for p in pairs {
        let (inputs, outputs) = (net.dims[p.layer], net.dims[p.layer + 1]);
        let key = |part: &str| format!("base_model.model.{}.lora_{part}.weight", Net::module(p.layer));
        tensors.push((key("A"), Out::f32s(&[p.rank, inputs], &p.a)));
        tensors.push((key("B"), Out::f32s(&[outputs, p.rank], &p.b)));
    }
    place.write(&format!("{dir}/adapter_model.safetensors"), safetensors(tensors).unwrap());
}

pub fn config(r: usize, alpha: f64, targets: &[&str]) -> Value {
    json!({"peft_type": "LORA", "r": r, "lora_alpha": alpha, "target_modules": targets})
}

/// `y = W x + b + s B (A x)` through all layers, in f64. Returns every layer's input, and the output.
pub fn oracle(net: &Net, pairs: &[Pair], scaling: f64, x: &[f32]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut h: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let mut inputs = Vec::new();
    let last = net.weights.len() - 1;
    for (i, (w, b)) in net.weights.iter().zip(&net.biases).enumerate() {
        let dot = |row: &[f32], v: &[f64]| row.iter().zip(v).map(|(&a, b)| f64::from(a) * b).sum::<f64>();
        let mut y: Vec<f64> = w.chunks(h.len()).zip(b).map(|(row, &b)| dot(row, &h) + f64::from(b)).collect();
        for p in pairs.iter().filter(|p| p.layer == i) {
            let u: Vec<f64> = p.a.chunks(h.len()).map(|row| dot(row, &h)).collect();
            y.iter_mut().zip(p.b.chunks(p.rank)).for_each(|(y, row)| *y += scaling * dot(row, &u));
        }
        if i < last {
            y.iter_mut().for_each(|v| *v = v.max(0.0));
        }
        inputs.push(std::mem::replace(&mut h, y));
    }
    (inputs, h)
}

/// Central differences of `L = Σ output · cotangent` by every element of A and B.
pub fn differences(net: &Net, pairs: &[Pair], scaling: f64, x: &[f32], c: &[f32]) -> Vec<(Vec<f64>, Vec<f64>)> {
    let rows = x.len() / net.dims[0];
    let width = c.len() / rows;
    let l = |pairs: &[Pair]| -> f64 {
        let row = |(x, c): (&[f32], &[f32])| -> f64 {
            oracle(net, pairs, scaling, x).1.iter().zip(c).map(|(y, &c)| y * f64::from(c)).sum()
        };
        x.chunks(net.dims[0]).zip(c.chunks(width)).map(row).sum()
    };
    let mut out = Vec::new();
    for i in 0..pairs.len() {
        let slope = |pick: fn(&mut Pair) -> &mut Vec<f32>| -> Vec<f64> {
            let n = pick(&mut pairs[i].clone()).len();
            (0..n)
                .map(|k| {
                    let at = |delta: f32| {
                        let mut moved = pairs.to_vec();
                        let v = &mut pick(&mut moved[i])[k];
                        *v += delta;
                        let at = f64::from(*v);
                        (at, l(&moved))
                    };
                    let ((hi, up), (lo, down)) = (at(1e-3), at(-1e-3));
                    (up - down) / (hi - lo)
                })
                .collect()
        };
        out.push((slope(|p| &mut p.a), slope(|p| &mut p.b)));
    }
    out
}

/// ‖got − want‖ / ‖want‖.
pub fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    (error / norm).sqrt()
}

pub fn read(path: &Path, name: &str) -> Vec<f32> {
    Checkpoint::open_file(path).unwrap().f32s(name).unwrap().data
}
