//! A linear layer's gradients, one token.

use core::hint::black_box;

use ranklet::{
    fixed::{Tile, TileMut},
    layer::{
        Linear, Lora, ShapeError,
        gradient::{GradScale, Gradient},
        linear::{LoraGradient, Scratch},
    },
    model::RunError,
};

use super::{
    forward::{RANK, Width, adapter as new_adapter, layer as new_layer},
    memory::Memory,
    meter::Meter,
    shape::Shape,
    weights::Pool,
};
use crate::{Board, Failure, record::Work};

/// dx = Wᵀ dy.
pub(super) fn input<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    shape: Shape,
) -> Result<(), Failure> {
    let Shape { tokens, inputs, outputs } = shape;
    let (x, x_exponents) = memory.vectors(pool, tokens, inputs)?;
    let (dy, dy_exponents) = memory.vectors(pool, tokens, outputs)?;
    let (dx, dx_exponents) = memory.vectors(pool, tokens, inputs)?;
    let (acc, vector, rank) = scratch(&mut memory, shape)?;

    let layer = black_box(new_layer(pool, Width::W8, shape, false));
    let x = black_box(Tile { mantissas: x, exponents: x_exponents });
    let dy = black_box(Tile { mantissas: dy, exponents: dy_exponents });
    let dx = black_box(Some(TileMut { mantissas: dx, exponents: dx_exponents }));
    let mut scratch = black_box(Scratch { acc, vector, rank, masked: &mut [] });
    let (done, instructions) = meter.count(|| bench_backward(&layer, x, dy, None, None, dx, &mut scratch))?;
    done.map_err(RunError::from)?;
    meter.print("backward-w8a16-dx", shape, instructions, Work::Macs(shape.macs()))
}

/// dA and dB, from A x and Bᵀ dy: two passes through the pair.
pub(super) fn adapter<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    shape: Shape,
) -> Result<(), Failure> {
    let Shape { tokens, inputs, outputs } = shape;
    let (x, x_exponents) = memory.vectors(pool, tokens, inputs)?;
    let (dy, dy_exponents) = memory.vectors(pool, tokens, outputs)?;
    let (a, b) = (memory.take::<i32>(RANK * inputs)?, memory.take::<i32>(RANK * outputs)?);
    a.fill(0);
    b.fill(0);
    let (acc, vector, rank) = scratch(&mut memory, shape)?;
    let (mut a_scale, mut b_scale) = (GradScale::EMPTY, GradScale::EMPTY);

    let layer = black_box(new_layer(pool, Width::W8, shape, false));
    let lora = black_box(new_adapter(pool, shape));
    let x = black_box(Tile { mantissas: x, exponents: x_exponents });
    let dy = black_box(Tile { mantissas: dy, exponents: dy_exponents });
    let gradient = black_box(Some(LoraGradient {
        a: Some(Gradient { values: a, scale: &mut a_scale }),
        b: Some(Gradient { values: b, scale: &mut b_scale }),
    }));
    let mut scratch = black_box(Scratch { acc, vector, rank, masked: &mut [] });
    let (done, instructions) =
        meter.count(|| bench_backward(&layer, x, dy, Some(&lora), gradient, None, &mut scratch))?;
    done.map_err(RunError::from)?;
    let macs = 2 * shape.lora_macs(RANK);
    meter.print(format_args!("backward-lora{RANK}-dadb"), shape, instructions, Work::Macs(macs))
}

/// One place that calls the layer, so that both measurements run the same code.
#[inline(never)]
fn bench_backward(
    layer: &Linear<'_>,
    x: Tile<'_>,
    dy: Tile<'_>,
    lora: Option<&Lora<'_>>,
    gradient: Option<LoraGradient<'_>>,
    dx: Option<TileMut<'_>>,
    scratch: &mut Scratch<'_>,
) -> Result<(), ShapeError> {
    layer.backward(x, dy, lora.copied().into_iter(), gradient, dx, scratch)
}

type Buffers<'a> = (&'a mut [i64], &'a mut [i16], &'a mut [i16]);

fn scratch<'a>(memory: &mut Memory<'a>, shape: Shape) -> Result<Buffers<'a>, Failure> {
    Ok((
        memory.take(Linear::acc_len(shape.inputs, shape.outputs, 0))?,
        memory.take(Linear::vector_len(shape.outputs))?,
        memory.take(Linear::rank_len(RANK, shape.tokens))?,
    ))
}
