//! The bare kernels: exact sums, nothing rounded.

use core::hint::black_box;

use ranklet::kernel::active;

use super::{forward::Width, memory::Memory, meter::Meter, shape::Shape, weights::Pool};
use crate::{Board, Failure, record::Work};

/// `W x`, one token.
pub(super) fn gemv<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    width: Width,
    dims: (usize, usize),
) -> Result<(), Failure> {
    let shape = Shape::gemv(dims);
    let (x, _) = memory.vectors(pool, 1, shape.inputs)?;
    let acc = memory.take::<i64>(shape.outputs)?;
    let (x, acc) = (black_box(&*x), black_box(acc));
    let inputs = black_box(shape.inputs);
    let count = shape.inputs * shape.outputs;
    let ((), instructions) = match width {
        Width::W16 => {
            let w = black_box(pool.i16.get(..count).unwrap_or(&[]));
            meter.count(|| bench_product_i16(w, inputs, x, acc))?
        }
        _ => {
            let w = black_box(pool.i8.get(..count).unwrap_or(&[]));
            meter.count(|| bench_product_i8(w, inputs, x, acc))?
        }
    };
    meter.print(format_args!("gemv-{width}-kernel"), shape, instructions, Work::Macs(shape.macs()))
}

/// A function of its own, so that it can be found in the disassembly and counted by hand: see `docs/benchmarks.md`.
#[inline(never)]
fn bench_product_i8(w: &[i8], inputs: usize, x: &[i16], acc: &mut [i64]) {
    active::product_i8(w, inputs, x, acc);
}

#[inline(never)]
fn bench_product_i16(w: &[i16], inputs: usize, x: &[i16], acc: &mut [i64]) {
    active::product_i16(w, inputs, x, acc);
}
