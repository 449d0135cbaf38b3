//! Transformers with two adapters: the digest of what they compute, and what must not change a bit of it.
//!
//! A Llama (grouped queries, rotary positions, RMS norms, gated SiLU) writes on, with keys and values in 16 and in 8 bits; a
//! T5 (encoder, decoder, cross-attention, relative positions, gated GELU) classifies. Their weights are random, and the
//! numbers that come out must be those of every other machine.

use ranklet::{
    fixed::Block,
    image::Image,
    include_image,
    memory::Workspace,
    model::{Active, Adapter, Arena, Cache, CacheType, Model, Plan, Sequence, SequenceScratch},
    q,
};

use crate::{Board, Failure, LEAF, digest::Digest, record};

static LLAMA: Image = include_image!("../../../models/tiny/llama.rkl");
static LLAMA_1: Image = include_image!("../../../models/tiny/llama-1.rkl");
static LLAMA_2: Image = include_image!("../../../models/tiny/llama-2.rkl");
static T5: Image = include_image!("../../../models/tiny/t5.rkl");
static T5_1: Image = include_image!("../../../models/tiny/t5-1.rkl");

/// The text: a tile of the core's, and a part of one.
const TEXT: [u32; 7] = [1, 17, 42, 5, 63, 8, 30];
/// What the encoder is given, its last token padding; and the decoder.
const SOURCE: [u32; 6] = [9, 33, 4, 21, 1, 0];
const VALID: [bool; 6] = [true, true, true, true, true, false];
const TARGET: [u32; 5] = [0, 9, 33, 4, 21];

const WIDE: Plan<'_> = Plan::of(&LLAMA).tokens(TEXT.len()).context(TEXT.len()).cache(CacheType::I16);
const NARROW: Plan<'_> = Plan::of(&LLAMA).tokens(TEXT.len()).context(TEXT.len()).cache(CacheType::I8);
const PAIR: Plan<'_> = Plan::of(&T5).tokens(TARGET.len()).source(SOURCE.len()).context(TARGET.len());
/// Of the largest; one after the other they use the same memory.
const BYTES: usize = max(WIDE.bytes(), PAIR.bytes());
static ARENA: Arena<BYTES> = Arena::new();

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Runs everything and prints the records.
///
/// # Errors
/// Whatever the core refuses, and every self-check that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "transformers on {}, kernel leaf {LEAF}, in an arena of {BYTES} bytes", B::NAME)?;
    let memory = ARENA.take()?.try_carve(BYTES).ok_or(Failure::Check("the arena is shorter than it says"))?;
    record::digest(board, LEAF, "llama", llama(memory, &WIDE)?)?;
    record::digest(board, LEAF, "llama, 8-bit cache", llama(memory, &NARROW)?)?;
    record::digest(board, LEAF, "t5", t5(memory)?)?;
    record::stack(board)
}

/// The text with the adapters off, each, scaled, and both.
fn llama(memory: &mut [u8], plan: &Plan<'_>) -> Result<u64, Failure> {
    let model = Model::open(&LLAMA)?;
    let (first, second) = (Adapter::open(&model, LLAMA_1.bytes())?, Adapter::open(&model, LLAMA_2.bytes())?);
    let (mut scratch, mut cache) = Workspace::new(memory).sequence(plan)?;
    let (one, two) = (first.view(), second.scaled(q!(-0.75)));
    let mut digest = Digest::new();
    let mut alone = 0;
    for (n, adapters) in [&[][..], &[one], &[two], &[one, two], &[one.scaled(q!(0.0))]].into_iter().enumerate() {
        let mut whole = Digest::new();
        text(&model, &mut scratch, &mut cache, &mut whole, &[&TEXT], adapters)?;
        let mut cut = Digest::new();
        let (begin, end) = TEXT.split_at(3);
        let tokens = begin.iter().map(core::slice::from_ref);
        let mut pieces = [&TEXT[..0]; 4];
        pieces.iter_mut().zip(tokens.chain([end])).for_each(|(to, piece)| *to = piece);
        text(&model, &mut scratch, &mut cache, &mut cut, &pieces, adapters)?;
        if matches!(plan_cache(plan), CacheType::I16) && whole != cut {
            return Err(Failure::Check("a text token by token gives other bits than at once"));
        }
        match n {
            0 => alone = whole.value(),
            4 if whole.value() != alone => {
                return Err(Failure::Check("an adapter that is switched off leaves a trace"));
            }
            _ => {}
        }
        digest.bytes(&whole.value().to_le_bytes());
        digest.bytes(&cut.value().to_le_bytes());
    }
    Ok(digest.value())
}

/// Whether the plan is the one with the 8-bit cache.
fn plan_cache(plan: &Plan<'_>) -> CacheType {
    if plan.cache_bytes() == WIDE.cache_bytes() { CacheType::I16 } else { CacheType::I8 }
}

/// Takes the logits of all tokens into the digest, the text given in pieces.
fn text(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    digest: &mut Digest,
    pieces: &[&[u32]],
    adapters: &[Active<'_>],
) -> Result<(), Failure> {
    cache.clear();
    for piece in pieces {
        model.decode(scratch, cache, Sequence::tokens(piece), adapters)?;
        for index in 0..piece.len() {
            take(digest, model.logits(scratch, index, adapters)?);
        }
    }
    Ok(())
}

/// An encoder and the decoder that looks at it; another token in the place of the padding changes nothing.
fn t5(memory: &mut [u8]) -> Result<u64, Failure> {
    let model = Model::open(&T5)?;
    let adapter = Adapter::open(&model, T5_1.bytes())?;
    let (mut scratch, mut cache) = Workspace::new(memory).sequence(&PAIR)?;
    let mut digest = Digest::new();
    for adapters in [&[][..], &[adapter.view()], &[adapter.scaled(q!(1.5)), adapter.scaled(q!(-0.5))]] {
        let mut run = |padding: u32| -> Result<u64, Failure> {
            let mut source = SOURCE;
            if let Some(last) = source.last_mut() {
                *last = padding;
            }
            let source = Sequence::tokens(&source).valid(&VALID);
            model.encode(&mut scratch, &mut cache, source, adapters)?;
            model.decode(&mut scratch, &mut cache, Sequence::tokens(&TARGET), adapters)?;
            let mut digest = Digest::new();
            for index in 0..TARGET.len() {
                take(&mut digest, model.logits(&mut scratch, index, adapters)?);
            }
            Ok(digest.value())
        };
        let value = run(0)?;
        if run(7)? != value {
            return Err(Failure::Check("padding has an influence"));
        }
        digest.bytes(&value.to_le_bytes());
    }
    Ok(digest.value())
}

fn take(digest: &mut Digest, block: Block<'_>) {
    digest.i16s(block.mantissas);
    digest.i16s(&[block.exponent.0]);
}
