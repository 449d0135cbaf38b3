//! A linear layer, as inference runs it: from 16-bit blocks to 16-bit blocks, requantization included.

use core::{fmt, hint::black_box};

use ranklet::{
    fixed::{Exp, Real, Tile, TileMut},
    kernel::{I4, Weights},
    layer::{
        Activation, Linear, Lora, ShapeError, Vector,
        linear::{Extras, Scratch},
    },
    model::RunError,
};

use super::{memory::Memory, meter::Meter, shape::Shape, weights::Pool};
use crate::{Board, Failure, record::Work};

/// Rank of the adapters.
pub(super) const RANK: usize = 8;

/// Width of the weights; activations have 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    W4,
    W8,
    W16,
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Width::W4 => "w4a16",
            Width::W8 => "w8a16",
            Width::W16 => "w16a16",
        })
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    width: Width,
    shape: Shape,
    bias: bool,
    lora: bool,
}

impl Case {
    pub(super) const fn gemv(width: Width, dims: (usize, usize)) -> Self {
        Self { width, shape: Shape::gemv(dims), bias: false, lora: false }
    }

    pub(super) const fn with_bias(self) -> Self {
        Self { bias: true, ..self }
    }

    pub(super) const fn with_lora(self) -> Self {
        Self { lora: true, ..self }
    }

    pub(super) const fn with_tokens(self, tokens: usize) -> Self {
        Self { shape: Shape { tokens, ..self.shape }, ..self }
    }

    const fn macs(self) -> u64 {
        self.shape.macs() + if self.lora { self.shape.lora_macs(RANK) } else { 0 }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.shape.tokens > 1 { "batch" } else { "gemv" };
        write!(f, "{kind}-{}-requant", self.width)?;
        if self.bias {
            f.write_str("+bias")?;
        }
        if self.lora {
            write!(f, "+lora{RANK}")?;
        }
        Ok(())
    }
}

/// Measures one case.
pub(super) fn linear<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    case: Case,
) -> Result<(), Failure> {
    let Shape { tokens, inputs, outputs } = case.shape;
    let (x, x_exponents) = memory.vectors(pool, tokens, inputs)?;
    let (y, y_exponents) = (memory.take::<i16>(tokens * outputs)?, memory.take::<Exp>(tokens)?);
    let acc = memory.take::<i64>(Linear::acc_len(inputs, outputs, tokens))?;

    let layer = black_box(layer(pool, case.width, case.shape, case.bias));
    let lora = black_box(case.lora.then(|| adapter(pool, case.shape)));
    let x = black_box(Tile { mantissas: x, exponents: x_exponents });
    let y = black_box(TileMut { mantissas: y, exponents: y_exponents });
    let mut scratch = black_box(Scratch { acc, vector: &mut [], rank: &mut [], masked: &mut [] });
    let (done, instructions) = meter.count(|| bench_forward(&layer, x, lora, y, &mut scratch))?;
    done.map_err(RunError::from)?;
    meter.print(case, case.shape, instructions, Work::Macs(case.macs()))
}

/// One place that calls the layer, so that all cases run the same code.
#[inline(never)]
fn bench_forward(
    layer: &Linear<'_>,
    x: Tile<'_>,
    lora: Option<Lora<'_>>,
    y: TileMut<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), ShapeError> {
    layer.forward(x, lora.into_iter(), y, scratch)
}

/// A layer over the pool's weights.
pub(super) fn layer(pool: &Pool, width: Width, shape: Shape, bias: bool) -> Linear<'static> {
    let Shape { inputs, outputs, .. } = shape;
    let (all, nibbles, groups) = (inputs * outputs, outputs * I4::row_bytes(inputs), outputs * I4::row_groups(inputs));
    Linear {
        weights: match width {
            Width::W8 => Weights::I8(pool.i8.get(..all).unwrap_or(&[])),
            Width::W16 => Weights::I16(pool.i16.get(..all).unwrap_or(&[])),
            Width::W4 => Weights::I4(I4 {
                nibbles: pool.nibbles.get(..nibbles).unwrap_or(&[]),
                groups: pool.groups.get(..groups).unwrap_or(&[]),
            }),
        },
        inputs,
        outputs,
        scales: pool.scales.get(..outputs).unwrap_or(&[]),
        exponent: -26,
        bias: bias.then(|| Vector { mantissas: pool.biases.get(..outputs).unwrap_or(&[]), exponent: -26 }),
        activation: Activation::None,
    }
}

/// An adapter over the pool's weights.
pub(super) fn adapter(pool: &Pool, shape: Shape) -> Lora<'static> {
    Lora {
        rank: RANK,
        a: pool.i16.get(..RANK * shape.inputs).unwrap_or(&[]),
        a_exponent: Exp(-19),
        b: pool.i16.get(..RANK * shape.outputs).unwrap_or(&[]),
        b_exponent: Exp(-21),
        scaling: Real::int(2),
        dropout: None,
        extras: Extras::NONE,
    }
}
