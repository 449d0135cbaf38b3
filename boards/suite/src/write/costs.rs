//! What writing costs, in instructions: a token at the beginning and later on, a prompt at once, an adapter on top, opening an
//! adapter, and switching between two. On the way: a prompt at once gives the bits of its tokens one by one.

use core::hint::black_box;

use ranklet::{
    Active, Plan, Seed,
    layer::sample::Sampler,
    model::{Adapter, Cache, Model, RunError, Sequence, SequenceScratch, Workspace},
    q,
};

use super::model::{AUSTEN, BASE, HELD_OUT, NARROW, PSALM, WIDE};
use crate::{Board, Failure, bench::meter::Meter, digest::Digest, record::Work};

/// Tokens of the prompt that is run at once.
const PROMPT: usize = 32;
/// Positions at which a token is counted.
const SHOWN: [(usize, &str); 2] = [(0, "position-0"), (39, "position-39")];

/// Counts all of it; where nothing counts, all of it is run.
///
/// # Errors
/// What the core refuses, memory below [`WIDE`]'s, and bits that differ.
pub fn run<B: Board>(meter: &mut Meter<'_, B>, memory: &mut [u8], digest: &mut Digest) -> Result<(), Failure> {
    let model = Model::open(&BASE)?;
    let (opened, instructions) = meter.count(|| Adapter::open(&model, black_box(&AUSTEN)))?;
    let (austen, psalm) = (opened?, Adapter::open(&model, &PSALM)?);
    meter.print("adapter-open", "r4-qv", instructions, Work::Units(1, "adapter"))?;
    let (view, instructions) = meter.count(|| black_box(&austen).view())?;
    meter.print("adapter-switch", "r4-qv", instructions, Work::Units(1, "switch"))?;

    texts(meter, &model, memory, &WIDE, &[], "", digest)?;
    texts(meter, &model, memory, &NARROW, &[], "-i8-cache", digest)?;
    texts(meter, &model, memory, &WIDE, &[view], "+lora4", digest)?;
    texts(meter, &model, memory, &WIDE, &[view, psalm.view()], "+2xlora4", digest)
}

/// One choice of cache and adapters.
fn texts<B: Board>(
    meter: &mut Meter<'_, B>,
    model: &Model<'_>,
    memory: &mut [u8],
    plan: &Plan<'_>,
    adapters: &[Active<'_>],
    kind: &str,
    digest: &mut Digest,
) -> Result<(), Failure> {
    let (mut scratch, mut cache) = Workspace::new(memory).sequence(plan)?;
    let mut alone = Digest::new();
    for (position, &id) in HELD_OUT.iter().enumerate() {
        let (done, instructions) = meter.count(|| next(model, &mut scratch, &mut cache, &[id], adapters))?;
        done?;
        if let Some((_, shape)) = SHOWN.iter().find(|(shown, _)| *shown == position) {
            meter.print(format_args!("story-token{kind}"), shape, instructions, Work::Units(1, "token"))?;
        }
        logits(model, &mut scratch, adapters, &mut alone)?;
    }
    if kind.is_empty() {
        let sampler = Sampler { temperature: q!(0.7), min_p: q!(0.05), seed: Seed(4) };
        let y = model.logits(&mut scratch, 0, adapters)?;
        let (id, instructions) = meter.count(|| black_box(&sampler).choose(black_box(y), 39))?;
        meter.print("sample", y.mantissas.len(), instructions, Work::Units(1, "token"))?;
        digest.bytes(&(id as u32).to_le_bytes());
    }
    cache.clear();
    let mut whole = Digest::new();
    let (prompt, rest) = HELD_OUT.split_at(PROMPT);
    let (done, instructions) = meter.count(|| next(model, &mut scratch, &mut cache, prompt, adapters))?;
    done?;
    meter.print(format_args!("story-prompt{kind}"), PROMPT, instructions, Work::Units(1, "prompt"))?;
    logits(model, &mut scratch, adapters, &mut whole)?;
    next(model, &mut scratch, &mut cache, rest, adapters)?;
    logits(model, &mut scratch, adapters, &mut whole)?;
    if whole != alone {
        return Err(Failure::Check("a prompt at once has other bits than its tokens one by one"));
    }
    digest.bytes(&whole.value().to_le_bytes());
    Ok(())
}

/// The next tokens of a text, and the logits behind them: what firmware does for each token that it writes.
#[inline(never)]
fn next(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    tokens: &[u32],
    adapters: &[Active<'_>],
) -> Result<(), RunError> {
    model.decode(scratch, cache, Sequence::tokens(black_box(tokens)), black_box(adapters))?;
    black_box(model.logits(scratch, tokens.len() - 1, adapters)?);
    Ok(())
}

/// The logits of all tokens of the last call.
fn logits(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<(), Failure> {
    for index in 0..scratch.len() {
        let y = model.logits(scratch, index, adapters)?;
        digest.i16s(y.mantissas);
        digest.i16s(&[y.exponent.0]);
    }
    Ok(())
}
