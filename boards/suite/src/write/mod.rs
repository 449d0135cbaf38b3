//! The writer: a language model of 260,032 parameters writes on the board, from static buffers, in integers.
//!
//! The base and two adapters lie in flash. Who writes is chosen call by call: the base alone, the base with the one adapter, or
//! with the other. Nothing is copied or merged, and what one of them did leaves no trace on the next.
//!
//! - [`model`]: the images, and how much memory
//! - [`costs`]: tokens and prompts, counted; the same bits however a text is cut
//! - [`turns`]: adapters take turns, for comparison with floats on the host
//! - [`page`]: tokens become characters and lines
//! - here: what happens, in order

pub mod costs;
pub mod model;
pub mod page;
pub mod turns;

use ranklet::{
    Active, Seed,
    image::Vocabulary,
    layer::sample::Sampler,
    model::{Adapter, Cache, Model, Sequence, SequenceScratch, Workspace},
    q,
};

use self::{
    model::{ARENA, AUSTEN, BASE, NARROW, PSALM, WIDE},
    page::Page,
};
use crate::{Board, Failure, LEAF, bench::meter::Meter, digest::Digest, record};

/// "And it came to pass", behind the token that begins every text. The device has no tokenizer; it needs none to write.
const BEGINNING: [u32; 8] = [0, 296, 353, 454, 288, 292, 315, 84];
/// Tokens of a text, its beginning included.
const LENGTH: usize = 112;
/// How it is drawn: the same for all, so that only the adapter makes the difference.
const SAMPLER: Sampler = Sampler { temperature: q!(0.7), min_p: q!(0.05), seed: Seed(4) };

/// Runs it.
///
/// # Errors
/// The first failure: whatever the core refuses, and each self-check that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let memory = ARENA.take()?.try_carve(WIDE.bytes()).ok_or(Failure::Check("the arena is shorter than its plan"))?;
    let model = Model::open(&BASE)?;
    let vocabulary = model.vocabulary().ok_or(Failure::Check("the base has no vocabulary"))?;
    let (austen, psalm) = (Adapter::open(&model, &AUSTEN)?, Adapter::open(&model, &PSALM)?);

    writeln!(board, "ranklet writes on {}, kernel leaf {LEAF}\n", B::NAME)?;
    writeln!(board, "  base      {} bytes in flash, 8-bit weights, source {}", BASE.len(), model.source())?;
    writeln!(board, "  adapters  {} and {} bytes in flash, switched from call to call", AUSTEN.len(), PSALM.len())?;
    writeln!(
        board,
        "  memory    {} bytes, static, for {LENGTH} tokens with keys and values in 16 bits ({} in 8)",
        WIDE.bytes(),
        NARROW.bytes()
    )?;

    let mut digest = Digest::new();
    let texts: [(&str, &[Active<'_>]); 3] = [
        ("the base alone", &[]),
        ("the same with the adapter `austen`", &[austen.view()]),
        ("the same with the adapter `psalm`", &[psalm.view()]),
    ];
    let (mut scratch, mut cache) = Workspace::new(memory).sequence(&WIDE)?;
    for (manner, adapters) in texts {
        writeln!(board, "\n{manner}:\n")?;
        text(board, &model, &vocabulary, &mut scratch, &mut cache, adapters, &mut digest)?;
    }
    writeln!(board)?;
    turns::run(board, &model, &mut scratch, &mut cache, [austen.view(), psalm.view()], &mut digest)?;
    costs::run(&mut Meter::where_counted(board)?, memory, &mut digest)?;
    record::digest(board, LEAF, "write", digest.value())?;
    record::stack(board)
}

/// Writes one text, token by token as they come.
fn text<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    vocabulary: &Vocabulary<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<(), Failure> {
    let mut page = Page::new();
    for id in BEGINNING {
        page.put(board, vocabulary.bytes_of(id))?;
    }
    // What was kept of another text goes: its keys and values are another adapter's.
    cache.clear();
    model.decode(scratch, cache, Sequence::tokens(&BEGINNING), adapters)?;
    while cache.len() < LENGTH {
        let last = scratch.len() - 1;
        let id = SAMPLER.choose(model.logits(scratch, last, adapters)?, cache.len() as u32) as u32;
        digest.bytes(&id.to_le_bytes());
        if vocabulary.is_end(id) {
            break;
        }
        page.put(board, vocabulary.bytes_of(id))?;
        model.decode(scratch, cache, Sequence::tokens(&[id]), adapters)?;
    }
    page.end(board)?;
    Ok(())
}
