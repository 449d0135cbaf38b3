//! Small checkpoints, adapters and data on disk, and the way from them to the float oracle.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.

use clap::Parser;
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::commands::{Cli, execute};
use ranklet_cli::hf::{self, Network, config::Config};
use ranklet_cli::image::{self, ImageFile};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::report::{Report, chain};
use ranklet_cli::save::{Out, safetensors};
use ranklet_host_tests::fixture::relative_l2;
use ranklet_host_tests::oracle::{self, Linear, Mlp};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Tells a figure that a test has measured, and the limit it is held to: `cargo xtask accuracy` makes docs/accuracy.md of them.
/// `text`: as the document shows it.
pub fn figure(table: &str, case: &str, weights: &str, what: &str, text: &str, limit: &str) {
    println!(
        "{}",
        json!({"record": "accuracy", "table": table, "case": case, "weights": weights, "what": what, "text": text, "limit": limit})
    );
}

/// Golden cases of every family: `models/cases`.
pub const FAMILIES: [&str; 15] = [
    "bert",
    "bert-classifier",
    "bert-tokens",
    "t5-encoder",
    "t5-classifier",
    "llama",
    "llama-tied",
    "llama-classifier",
    "llama-bf16",
    "mistral",
    "qwen2",
    "gpt2",
    "gpt2-f16",
    "encoder",
    "encoder-pre",
];

/// Where they are.
pub fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cases")
}

/// A case's base in floats, and what is known of it.
pub fn checkpoint_of(case: &str) -> (Checkpoint, Network) {
    let base = cases().join(case).join("base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let network = hf::describe(&Config::read(&base.join("config.json")).unwrap(), &checkpoint).unwrap();
    (checkpoint, network)
}

/// A case's base as an image; `wide`: with a 32-bit residual stream.
pub fn image_of(case: &str, to: WeightType, wide: bool) -> ImageFile {
    let (checkpoint, network) = checkpoint_of(case);
    let converted = image::transformer::convert(&checkpoint, &network, to, wide, || ()).unwrap();
    ImageFile::of(Path::new(case), &converted.bytes)
}

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
        Err(e) => chain(&e),
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

/// The network as the float oracle has it. `of` gives a layer's weights: the checkpoint's own, or dequantised ones.
pub fn mlp(net: &Net, of: impl Fn(usize) -> Vec<f32>) -> Mlp<f64> {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let last = net.weights.len() - 1;
    let layers = (0..=last).map(|i| Linear {
        inputs: net.dims[i],
        outputs: net.dims[i + 1],
        weight: wide(&of(i)),
        bias: wide(&net.biases[i]),
        relu: i < last,
    });
    Mlp { mean: vec![], factor: vec![], layers: layers.collect() }
}

/// The pairs as the float oracle has them.
pub fn oracle_pairs(pairs: &[Pair], scaling: f64) -> Vec<oracle::Pair<f64>> {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let of = |p: &Pair| oracle::Pair { site: p.layer, rank: p.rank, a: wide(&p.a), b: wide(&p.b), scaling };
    pairs.iter().map(of).collect()
}

/// Rows of f32 through the oracle.
pub fn outputs(net: &Mlp<f64>, pairs: &[oracle::Pair<f64>], x: &[f32]) -> Vec<f64> {
    let row = |x: &[f32]| net.run(&x.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>(), pairs);
    x.chunks(net.layers[0].inputs).flat_map(row).collect()
}

/// `|got − want| / |want|`.
pub fn relative(got: &[f32], want: &[f64]) -> f64 {
    relative_l2(&got.iter().map(|&g| f64::from(g)).collect::<Vec<f64>>(), want)
}

pub fn read(path: &Path, name: &str) -> Vec<f32> {
    Checkpoint::open_file(path).unwrap().f32s(name).unwrap().data
}
