//! A device that rehearses: texts come once and are held in flash; what is held is learned from in an order of chance, epoch after epoch,
//! with the frozen blocks' outputs kept; after each epoch texts that it does not learn from are measured, until that brings nothing any more.
//!
//! The flash is memory that behaves as one. Whether the chip's own does is the matter of its driver.

use ranklet::{
    fixed::{
        Real,
        hash::{Purpose, Seed, Stream},
    },
    memory::Workspace,
    model::{Model, Plan, Roles, Scratch, Sequence, Train},
    q,
    store::Ram,
    train::{
        AdamW, FlashReservoir, Patience, Places, Prefixes, Score, SequenceTarget, Trainer, Verdict, order::shuffle,
    },
};

use crate::{Failure, digest::Digest, learning::LLAMA};

/// Tokens of a text, a byte each in flash.
const TOKENS: usize = 8;
/// Texts that are held, of all that come; and bytes of flash for them, and for prefixes.
const HELD: usize = 16;
const SEEN: u32 = 60;
const PLACES: Places = Places { samples: HELD, bytes: TOKENS, kind: 1 };
const TEXTS: u32 = 2048;
const KEPT: u32 = 8 * 1024;
const EPOCHS: u32 = 20;

/// What it learns in.
pub(crate) const PLAN: Plan<'_> =
    Plan::of(&LLAMA).tokens(TOKENS).train(Train::adamw().rank(8).alpha(16).on(Roles::ALL).immediate());

/// What lies in flash.
pub(crate) const FLASH: usize = (TEXTS + KEPT) as usize;

/// Runs it; returns the digest of everything that was learned, measured and kept.
///
/// # Errors
/// Whatever the core refuses, and what does not hold.
pub(crate) fn run(memory: &mut [u8], flash: &mut [u8]) -> Result<u64, Failure> {
    let mut flash = Ram::new(flash);
    let broken = |_| Failure::Check("the flash failed");
    let mut seen = FlashReservoir::open(&mut flash, 0..TEXTS, PLACES, Seed(5)).map_err(broken)?;
    for n in 0..SEEN {
        seen.offer(&mut flash, &text(n)).map_err(broken)?;
    }
    let mut prefixes = Prefixes::open(&mut flash, TEXTS..TEXTS + KEPT).map_err(broken)?;

    let model = Model::open(&LLAMA)?;
    let (mut scratch, learn) = Workspace::new(memory).split(&PLAN)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let head = model.spec().linears - 1;
    learner.choose(|site, _| site >= head).map_err(|_| Failure::Check("nothing learns"))?;
    let mut trainer = Trainer::new(&model, &mut learner, AdamW { lr: q!(6e-3), ..AdamW::DEFAULT })?.seed(Seed(11));
    let mut digest = Digest::new();
    let (mut patience, mut found) = (Patience::new(2), 0);
    let before = held_out(&mut trainer, &mut scratch)?;
    let mut after = before;
    for epoch in 0..EPOCHS {
        let mut order: [u32; HELD] = core::array::from_fn(|i| i as u32);
        shuffle(&mut order, Seed(11), epoch);
        for _ in order {
            let mut bytes = [0; TOKENS];
            seen.replay(&mut flash, &mut bytes).map_err(broken)?;
            let ids = bytes.map(u32::from);
            let (sequence, next) = (Sequence::tokens(&ids), SequenceTarget::Next);
            let known = trainer.recall(&mut prefixes, &mut flash, sequence, next, &mut scratch);
            found += u32::from(known.map_err(|_| Failure::Check("the sample is refused"))?);
            let loss = trainer.step(&mut scratch)?;
            digest.i32s(&[loss.mantissa(), loss.exponent()]);
            let _ = trainer.keep(&mut prefixes, &mut flash).map_err(broken)?;
        }
        after = held_out(&mut trainer, &mut scratch)?;
        digest.i32s(&[after.mantissa(), after.exponent()]);
        if patience.look(after) == Verdict::Over {
            break;
        }
    }
    digest.i32s(&[found as i32]);
    digest.i16s(learner.high());
    digest.i16s(learner.low());
    if found < HELD as u32 {
        return Err(Failure::Check("what was kept was not found again"));
    }
    if !patience.best().unwrap_or(after).less_than(before.mul(q!(0.85))) {
        return Err(Failure::Check("nothing was learned"));
    }
    Ok(digest.value())
}

/// Text `n`: every token tells the next.
fn text(n: u32) -> [u8; TOKENS] {
    let mut id = (Stream::new(Seed(3), Purpose::Shuffle, n, 0).at(0) % 32) as u8;
    [(); TOKENS].map(|()| {
        let now = id;
        id = (id * 5 + 11) % 32;
        now
    })
}

/// The mean loss of a token of texts that are not learned from.
fn held_out(trainer: &mut Trainer<'_, '_, '_, AdamW>, scratch: &mut Scratch<'_>) -> Result<Real, Failure> {
    let mut score = Score::default();
    for n in SEEN..SEEN + 4 {
        let ids = text(n).map(u32::from);
        trainer.measure().sequence(Sequence::tokens(&ids), SequenceTarget::Next, scratch)?;
        let loss = trainer.step(scratch)?;
        score.add(loss, trainer.answers());
    }
    score.loss().ok_or(Failure::Check("nothing was measured"))
}
