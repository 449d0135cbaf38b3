//! Adapters take turns on one text. The logits of every turn go to a file on the host, which `cargo xtask story` and
//! `cargo xtask test` hold against what PyTorch gives with the adapters merged into the base (`models/story/golden.safetensors`).

use embedded_io::Write as _;
use ranklet::{
    Active, Block,
    model::{Cache, Model, Sequence, SequenceScratch},
};

use super::model::HELD_OUT;
use crate::{Board, Failure, board::FileErrorOf, digest::Digest};

/// The file: four turns (base, austen, psalm, both), for each of [`HELD_OUT`]'s tokens the mantissas of its logits and
/// their exponent; everything as little-endian i16.
pub const FILE: &core::ffi::CStr = c"write.logits";

/// Runs all turns, and some again.
///
/// # Errors
/// What the core refuses; [`Failure::File`]; [`Failure::Check`] where a turn depends on those before it.
pub fn run<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    [austen, psalm]: [Active<'_>; 2],
    digest: &mut Digest,
) -> Result<(), Failure> {
    let failed = |error: FileErrorOf<B>| Failure::File(embedded_io::Error::kind(&error));
    let mut file = board.create(FILE).map_err(failed)?;
    let both = [austen, psalm];
    let turns: [&[Active<'_>]; 4] = [&[], &[austen], &[psalm], &both];
    let mut first = [0; 4];
    for (adapters, value) in turns.iter().zip(&mut first) {
        *value = turn(model, scratch, cache, adapters, |y| {
            for mantissa in y.mantissas.iter().chain([&y.exponent.0]) {
                file.write_all(&mantissa.to_le_bytes()).map_err(failed)?;
            }
            Ok(())
        })?;
        digest.bytes(&value.to_le_bytes());
    }
    for (adapters, value) in turns.iter().zip(first).rev() {
        if turn(model, scratch, cache, adapters, |_| Ok(()))? != value {
            return Err(Failure::Check("what an adapter gives depends on those before it"));
        }
    }
    Ok(())
}

/// One turn: the logits of all tokens to `each`, and their digest.
fn turn(
    model: &Model<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    adapters: &[Active<'_>],
    mut each: impl FnMut(Block<'_>) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut digest = Digest::new();
    cache.clear();
    for piece in HELD_OUT.chunks(32) {
        model.decode(scratch, cache, Sequence::tokens(piece), adapters)?;
        for index in 0..piece.len() {
            let y = model.logits(scratch, index, adapters)?;
            digest.i16s(y.mantissas);
            digest.i16s(&[y.exponent.0]);
            each(y)?;
        }
    }
    Ok(digest.value())
}
