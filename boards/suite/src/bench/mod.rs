//! The benchmark: instructions, counted by a calibrated instrument, one record per operation and shape.
//!
//! | file | what it measures |
//! |---|---|
//! | `product` | the bare kernels, without requantization |
//! | `forward` | a linear layer as inference runs it: product, scales, bias, adapter, requantization |
//! | `backward` | a linear layer's gradients: dx; dA and dB |
//! | `head` | softmax |
//! | `model` | whole networks: inference, a sample in training, the optimizers |
//!
//! Boards with megabytes also count a language model's tokens, [`crate::write::costs`], and a step of its training: `step`.
//!
//! Beside them: `meter` (counts and prints), `memory` (buffers), `weights` (constants in flash). All operands go
//! through `black_box`: no shape is known to the compiler, as in firmware that reads it from an image.

mod backward;
mod forward;
mod head;
mod memory;
pub mod meter;
mod model;
mod product;
mod shape;
mod step;
mod weights;

use core::cell::RefCell;

use critical_section::Mutex;
use zerocopy::IntoBytes;

use self::{
    forward::{Case, Width},
    memory::Memory,
    meter::Meter,
    model::Network,
    shape::Shape,
    weights::Pool,
};
use crate::{Board, Failure, digest::Digest, record, write::costs};

/// Width of x, width of y.
const GEMV: [(usize, usize); 4] = [(64, 64), (256, 64), (172, 64), (64, 172)];
/// The pair of a rank-8 adapter on a layer of 64.
const TINY: [(usize, usize); 2] = [(64, 8), (8, 64)];

/// The benchmark for boards with megabytes: every shape.
///
/// # Errors
/// [`Failure::Counter`] if the instrument is off: then nothing is printed, because nothing could be believed.
pub fn large<B: Board>(board: &mut B) -> Result<(), Failure> {
    // Most of it for the step of a language model that learns on every layer.
    static MEMORY: Mutex<RefCell<[u64; 36_000]>> = Mutex::new(RefCell::new([0; 36_000]));
    let sizes = Sizes {
        widest: (512, 512),
        tokens: 32,
        batches: &[(64, 64), (64, 172), (256, 256)],
        backward: &[(64, 64), (512, 512)],
        learns: &model::DIGITS,
    };
    with(&MEMORY, |memory| {
        run(board, memory, &weights::LARGE, &sizes)?;
        // Here and not in `run`: a language model is more than a small board's flash holds.
        costs::run(&mut Meter::new(board)?, memory.as_mut_bytes(), &mut Digest::new())?;
        step::run(&mut Meter::new(board)?, memory.as_mut_bytes())?;
        record::stack(board)
    })
}

/// The benchmark for boards with 256 KB of flash and 16 KB of RAM: a narrower widest layer, 8 tokens in place of 32.
///
/// # Errors
/// As [`large`].
pub fn small<B: Board>(board: &mut B) -> Result<(), Failure> {
    static MEMORY: Mutex<RefCell<[u64; 920]>> = Mutex::new(RefCell::new([0; 920]));
    let sizes =
        Sizes { widest: (512, 128), tokens: 8, batches: &[(64, 64)], backward: &[(64, 64)], learns: &model::TINY };
    with(&MEMORY, |memory| {
        run(board, memory, &weights::SMALL, &sizes)?;
        record::stack(board)
    })
}

/// What a board has room for.
struct Sizes {
    /// The largest layer.
    widest: (usize, usize),
    /// Tokens of a batch.
    tokens: usize,
    /// Layers that a batch runs through.
    batches: &'static [(usize, usize)],
    /// Layers whose gradients are computed.
    backward: &'static [(usize, usize)],
    /// The network that learns.
    learns: &'static Network,
}

fn run<B: Board>(board: &mut B, memory: &mut [u64], pool: &Pool, sizes: &Sizes) -> Result<(), Failure> {
    let mut meter = Meter::new(board)?;

    for width in [Width::W8, Width::W16] {
        for dims in [(64, 64), sizes.widest] {
            if pool.has(width, dims) {
                product::gemv(&mut meter, Memory::new(memory), pool, width, dims)?;
            }
        }
    }
    for dims in GEMV.into_iter().chain([sizes.widest]) {
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W8, dims))?;
    }
    for dims in [(64, 64), sizes.widest] {
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W8, dims).with_bias())?;
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W8, dims).with_lora())?;
        if pool.has(Width::W4, dims) {
            forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W4, dims))?;
        }
    }
    forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W16, (64, 64)))?;
    for dims in TINY {
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W8, dims))?;
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W16, dims))?;
    }
    for &dims in sizes.batches {
        forward::linear(&mut meter, Memory::new(memory), pool, Case::gemv(Width::W8, dims).with_tokens(sizes.tokens))?;
    }
    for &dims in sizes.backward {
        backward::input(&mut meter, Memory::new(memory), pool, Shape::gemv(dims))?;
        backward::adapter(&mut meter, Memory::new(memory), pool, Shape::gemv(dims))?;
    }
    for classes in [10, 64] {
        head::softmax(&mut meter, Memory::new(memory), pool, classes)?;
    }
    model::infer(&mut meter, Memory::new(memory), pool, &model::DIGITS)?;
    model::adamw(&mut meter, Memory::new(memory), pool, sizes.learns)?;
    model::momentum(&mut meter, Memory::new(memory), pool, sizes.learns)
}

/// Lends the static memory. Nothing else borrows it, and interrupts stay off while instructions are counted.
fn with<const N: usize>(
    memory: &'static Mutex<RefCell<[u64; N]>>,
    work: impl FnOnce(&mut [u64]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    critical_section::with(|cs| match memory.borrow(cs).try_borrow_mut() {
        Ok(mut memory) => work(memory.as_mut_slice()),
        Err(_) => Err(Failure::Check("the benchmark runs twice")),
    })
}
