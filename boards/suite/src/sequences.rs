//! Whole transformers with two adapters each, in memory that a board with 16 KB of RAM has, and the digests of all that they
//! compute, which must be equal on every machine. An application of its own: beside a trainer, such a board has no flash for it.
//!
//! | family | has | weights |
//! |---|---|---|
//! | `llama` | a decoder: causal attention, grouped queries, rotary positions, RMS norm, SiLU gates | i8 |
//! | `t5` | encoder and decoder: cross attention, relative positions, RMS norm, GELU gates; a stream of 32 bits | i4 |
//! | `bert` | an encoder: attention in both directions, padding, learned positions, layer norm, GELU, a pooler | i16 |
//!
//! Each runs without an adapter, with the first, with the second subtracted in part, with both, and without again, which must
//! leave no trace. Decoders do so with keys and values in 16 and in 8 bits, and read every text in one piece, in pieces of
//! four, and token by token: the same bits. The networks are never trained; `models/tiny/families.py` draws them.

use ranklet::{
    Block, Image, include_image,
    layer::head::argmax,
    model::{Active, Adapter, Cache, CacheType, Model, Plan, Sequence, SequenceScratch, Workspace},
    must_fit, q,
};

use crate::{Board, Failure, LEAF, digest::Digest, record};

/// A network, its adapters, and the memory it is given.
struct Family {
    base: Image,
    one: Image,
    two: Image,
    plan: Plan<'static>,
}

macro_rules! family {
    ($name:ident, $folder:literal) => {
        static $name: Family = {
            const BASE: Image = include_image!(concat!("../../../models/tiny/", $folder, "/base.rkl"));
            Family {
                base: BASE,
                one: include_image!(concat!("../../../models/tiny/", $folder, "/one.rkl")),
                two: include_image!(concat!("../../../models/tiny/", $folder, "/two.rkl")),
                plan: Plan::of(&BASE).tokens(PROMPT.len()).source(SOURCE.len()).context(PROMPT.len() + WRITTEN),
            }
        };
    };
}

family!(LLAMA, "llama");
family!(T5, "t5");
family!(BERT, "bert");

/// What a decoder reads, and how many tokens it then goes on by itself.
const PROMPT: [u32; 7] = [1, 17, 4, 22, 9, 9, 13];
const WRITTEN: usize = 4;
/// What an encoder reads, the last of it padding; T5's text ends with 1.
const SOURCE: [u32; 6] = [5, 19, 2, 8, 1, 0];
const VALID: [bool; 6] = [true, true, true, true, true, false];
const TYPES: [u8; 6] = [0, 0, 0, 1, 1, 0];

/// Bytes that every network runs in.
const BYTES: usize = {
    let (llama, t5, bert) = (LLAMA.plan.bytes(), T5.plan.bytes(), BERT.plan.bytes());
    let larger = if llama > t5 { llama } else { t5 };
    if larger > bert { larger } else { bert }
};
must_fit!(BYTES, 6 * 1024);

/// Runs everything and prints the records.
///
/// # Errors
/// Whatever the core refuses, and every self-check that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "ranklet transformers on {}, kernel leaf {LEAF}", B::NAME)?;
    let digests = digests()?;
    writeln!(
        board,
        "with adapters in {BYTES} bytes: a text in pieces has the bits of the whole, adapters leave no trace"
    )?;
    for (name, digest) in digests {
        record::digest(board, LEAF, name, digest)?;
    }
    record::stack(board)
}

/// Names and digests.
fn digests() -> Result<[(&'static str, u64); 3], Failure> {
    let (mut llama, mut t5, mut bert) = (Digest::new(), Digest::new(), Digest::new());
    for cache in [CacheType::I16, CacheType::I8] {
        adapted(&LLAMA, cache, &mut llama, |model, scratch, cache, adapters| {
            texts(model, scratch, cache, &PROMPT, adapters)
        })?;
        adapted(&T5, cache, &mut t5, translations)?;
    }
    adapted(&BERT, CacheType::I16, &mut bert, |model, scratch, cache, adapters| {
        let mut digest = Digest::new();
        encoded(model, scratch, cache, Sequence::tokens(&SOURCE).types(&TYPES).valid(&VALID), adapters, &mut digest)?;
        Ok(digest)
    })?;
    Ok([("llama", llama.value()), ("t5", t5.value()), ("bert", bert.value())])
}

/// What is done with one choice of adapters.
type Work = fn(&Model<'_>, &mut SequenceScratch<'_>, &mut Cache<'_>, &[Active<'_>]) -> Result<Digest, Failure>;

/// One network with every choice of adapters.
#[inline(never)]
fn adapted(family: &Family, cache: CacheType, digest: &mut Digest, work: Work) -> Result<(), Failure> {
    let mut memory = [0; BYTES + 15];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&family.plan.cache(cache))?;
    let model = Model::open(&family.base)?;
    let one = Adapter::open(&model, &family.one)?.view();
    let two = Adapter::open(&model, &family.two)?;
    let (part, both) = ([two.scaled(q!(-0.75))], [one, two.view()]);
    let choices: [&[Active<'_>]; 5] = [&[], &[one], &part, &both, &[]];
    let mut all = [0; 5];
    for (choice, value) in choices.into_iter().zip(&mut all) {
        *value = work(&model, &mut scratch, &mut cache, choice)?.value();
        digest.bytes(&value.to_le_bytes());
    }
    let [off, .., again] = all;
    if off != again {
        return Err(Failure::Check("switching the adapters off left a trace"));
    }
    let same = |(n, value): (usize, &u64)| all.iter().skip(n + 1).take(3 - n).any(|other| other == value);
    if all.iter().enumerate().take(3).any(same) {
        return Err(Failure::Check("an adapter of a transformer does nothing"));
    }
    Ok(())
}

/// A text, however it is cut: the same bits.
fn texts(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    prompt: &[u32],
    adapters: &[Active<'_>],
) -> Result<Digest, Failure> {
    let whole = text(model, scratch, cache, prompt.chunks(prompt.len()), adapters)?;
    for tokens in [4, 1] {
        if text(model, scratch, cache, prompt.chunks(tokens), adapters)? != whole {
            return Err(Failure::Check("a text in pieces has other bits than in one"));
        }
    }
    Ok(whole)
}

/// Reads a text in these pieces, and goes on with the likeliest tokens.
fn text<'t>(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    pieces: impl Iterator<Item = &'t [u32]>,
    adapters: &[Active<'_>],
) -> Result<Digest, Failure> {
    let mut digest = Digest::new();
    let mut next = 0;
    cache.truncate(0);
    for piece in pieces {
        next = read(model, scratch, cache, piece, adapters, &mut digest)?;
    }
    for _ in 0..WRITTEN {
        next = read(model, scratch, cache, &[next], adapters, &mut digest)?;
    }
    Ok(digest)
}

/// Decodes a piece of a text; returns what is likeliest behind it.
fn read(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    piece: &[u32],
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<u32, Failure> {
    model.decode(scratch, cache, Sequence::tokens(piece), adapters)?;
    outputs(model, scratch, adapters, digest)
}

/// The encoder over a source, then texts of the decoder that looks at it.
fn translations(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    adapters: &[Active<'_>],
) -> Result<Digest, Failure> {
    let mut digest = Digest::new();
    let source = Sequence::tokens(&SOURCE).valid(&VALID);
    model.encode(scratch, cache, source, adapters)?;
    hidden(model, scratch, &mut digest)?;
    // The decoder reads the source behind its start token, as a classifier's does.
    let [first, second, third, ..] = SOURCE;
    let prompt = [0, first, second, third, first];
    digest.bytes(&texts(model, scratch, cache, &prompt, adapters)?.value().to_le_bytes());
    Ok(digest)
}

/// An encoder over a sequence, and what its head makes of all of it.
fn encoded(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    sequence: Sequence<'_>,
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<(), Failure> {
    model.encode(scratch, cache, sequence, adapters)?;
    hidden(model, scratch, digest)?;
    block(model.pooled(scratch, sequence, adapters)?, digest);
    Ok(())
}

/// The hidden states of the last call.
fn hidden(model: &Model<'_>, scratch: &SequenceScratch<'_>, digest: &mut Digest) -> Result<(), Failure> {
    (0..scratch.len()).try_for_each(|index| {
        block(model.hidden(scratch, index)?, digest);
        Ok(())
    })
}

/// Hidden state and head of every token of the last call, token by token; returns the likeliest output of the last.
fn outputs(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<u32, Failure> {
    let mut likeliest = 0;
    for index in 0..scratch.len() {
        block(model.hidden(scratch, index)?, digest);
        let y = model.logits(scratch, index, adapters)?;
        block(y, digest);
        likeliest = argmax(y.mantissas) as u32;
    }
    Ok(likeliest)
}

fn block(block: Block<'_>, digest: &mut Digest) {
    digest.i16s(block.mantissas);
    digest.i16s(&[block.exponent.0]);
}

#[cfg(test)]
mod tests {
    use super::digests;

    /// The boards' comparison with the host says nothing where the host is wrong with itself: here overflows are checked.
    #[test]
    fn all_families_run_and_twice_the_same() {
        let found = digests().expect("all checks hold");
        assert_eq!(digests(), Ok(found));
        let [llama, t5, bert] = found.map(|(_, value)| value);
        assert!(llama != t5 && t5 != bert && bert != llama);
    }
}
