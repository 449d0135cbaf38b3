//! The head's nonlinear part.

use core::hint::black_box;

use ranklet::{fixed::Block, layer::head::softmax_terms};

use super::{memory::Memory, meter::Meter, weights::Pool};
use crate::{Board, Failure, record::Work};

/// The terms of a softmax and their sum; the division by it is the loss's, or the caller's.
pub(super) fn softmax<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    classes: usize,
) -> Result<(), Failure> {
    let (mantissas, _) = memory.vectors(pool, 1, classes)?;
    let terms = memory.take::<u32>(classes)?;
    // Logits within ±8.
    let logits = black_box(Block { mantissas, exponent: ranklet::fixed::Exp(-12) });
    let terms = black_box(terms);
    let (sum, instructions) = meter.count(|| bench_softmax(logits, terms))?;
    black_box(sum);
    meter.print("softmax-terms", classes, instructions, Work::Units(classes as u64, "element"))
}

#[inline(never)]
fn bench_softmax(logits: Block<'_>, terms: &mut [u32]) -> u64 {
    softmax_terms(logits, |i, term| {
        if let Some(slot) = terms.get_mut(i) {
            *slot = term;
        }
    })
}
