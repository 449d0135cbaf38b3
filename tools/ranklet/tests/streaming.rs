//! What converting holds in memory: every allocation is counted.

use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, sections::Spool};
use ranklet_cli::quantize::WeightType;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated, and the most that were. Of large blocks of zeros the system makes no memory until they are
/// touched: one at a time is not counted, that of an image whose weights are left out.
struct Counting {
    now: AtomicUsize,
    peak: AtomicUsize,
    zeros: AtomicPtr<u8>,
}

#[global_allocator]
static HEAP: Counting =
    Counting { now: AtomicUsize::new(0), peak: AtomicUsize::new(0), zeros: AtomicPtr::new(null_mut()) };

/// From this on a block of zeros is large.
const LARGE: usize = 1 << 20;

impl Counting {
    fn grow(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }

    /// The most that `f` holds beside what is held when it starts.
    fn of<T>(&self, f: impl FnOnce() -> T) -> (T, usize) {
        let before = self.now.load(Relaxed);
        self.peak.store(before, Relaxed);
        let value = f();
        (value, self.peak.load(Relaxed) - before)
    }
}

// SAFETY: the system's allocator does the work; only sizes are kept. A reallocation counts as both blocks at once, which is
// the worst it can be.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let block = unsafe { System.alloc_zeroed(layout) };
        let large = layout.size() >= LARGE;
        if !large || self.zeros.compare_exchange(null_mut(), block, Relaxed, Relaxed).is_err() {
            self.grow(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.zeros.compare_exchange(block, null_mut(), Relaxed, Relaxed).is_err() {
            self.now.fetch_sub(layout.size(), Relaxed);
        }
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }
}

const LAYERS: usize = 8;
const DIM: usize = 256;
const HIDDEN: usize = 640;
const VOCAB: usize = 4096;

/// A Llama of 8 layers, 8.4 M parameters: 34 MB in f32, its largest matrix 4 MB.
fn llama(dir: &Path) {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": DIM,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, DIM])];
    for i in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape.to_vec()));
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), &[DIM, DIM]);
        }
        add("mlp.gate_proj", &[HIDDEN, DIM]);
        add("mlp.up_proj", &[HIDDEN, DIM]);
        add("mlp.down_proj", &[DIM, HIDDEN]);
        add("input_layernorm", &[DIM]);
        add("post_attention_layernorm", &[DIM]);
    }
    tensors.push(("model.norm.weight".to_owned(), vec![DIM]));
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in &tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut out = BufWriter::new(File::create(dir.join("model.safetensors")).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    for i in 0..at as u32 / 4 {
        out.write_all(&((i.wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}

/// Neither the checkpoint nor the image: one matrix in f32, its mantissas and scales, and less than 1.5 MB beside.
#[test]
fn converting_holds_one_matrix() {
    let dir = tempfile::tempdir().unwrap();
    llama(dir.path());
    let output = dir.path().join("base.rkl");
    let largest = VOCAB * DIM;
    let slack = 1_500_000;
    for (to, mantissas) in [(WeightType::I8, largest), (WeightType::I4, largest / 2 + largest / 32)] {
        let (mut unwritten, peak) = HEAP.of(|| {
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let network = hf::describe(&Config::read(&dir.path().join("config.json")).unwrap(), &checkpoint).unwrap();
            let spool = Spool::beside(&output);
            image::transformer::prepare(&checkpoint, &network, to, false, spool, || ()).unwrap()
        });
        let (bytes, writing) = HEAP.of(|| unwritten.write_to(&mut File::create(&output).unwrap()).unwrap());
        assert_eq!(bytes, output.metadata().unwrap().len());
        assert!(bytes > 3_000_000 && writing < slack, "{writing} bytes while an image of {bytes} was written");
        let least = 4 * largest;
        assert!((least..least + mantissas + slack).contains(&peak), "{} needs {peak} bytes", to.name());
        let (file, reading) = HEAP.of(|| image::ImageFile::open(&output).unwrap());
        assert_eq!(file.bytes().len() as u64, bytes);
        assert!(reading as u64 <= bytes + 1024, "{reading} bytes to read an image of {bytes}");
        assert_eq!(image::parameters(&file.model().unwrap()), unwritten.parameters);
    }
}
