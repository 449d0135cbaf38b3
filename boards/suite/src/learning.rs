//! A transformer that learns: hundreds of steps through attention, whose digest must be that of every other machine.

use ranklet::{
    fixed::{
        Real,
        hash::{Purpose, Seed, Stream},
    },
    image::Image,
    include_image,
    memory::Workspace,
    model::{Arena, Model, Plan, Roles, Sequence, Train},
    q,
    train::{AdamW, Learner, Schedule, SequenceTarget, Target, Trainer},
};

use crate::{Board, Failure, LEAF, digest::Digest, record, rehearsing};

pub(crate) static LLAMA: Image = include_image!("../../../models/tiny/llama/base.rkl");
static T5: Image = include_image!("../../../models/tiny/t5/base.rkl");

/// Tokens of a text, and of the encoder's.
const TOKENS: usize = 8;
const TEXT: Plan<'_> = Plan::of(&LLAMA).tokens(TOKENS).train(Train::adamw().rank(4).alpha(8).on(Roles::ALL).dropout());
const PAIR: Plan<'_> = Plan::of(&T5).tokens(5).source(TOKENS).train(Train::adamw().rank(4).alpha(8).on(Roles::ALL));
const LARGER: usize = if TEXT.bytes() > PAIR.bytes() { TEXT.bytes() } else { PAIR.bytes() };
const REHEARSING: usize = rehearsing::PLAN.bytes() + rehearsing::FLASH;
const BYTES: usize = if LARGER > REHEARSING { LARGER } else { REHEARSING };
static ARENA: Arena<BYTES> = Arena::new();

/// Optimizer steps of each.
const STEPS: (u32, u32) = (300, 40);

/// Runs everything and prints the records.
///
/// # Errors
/// Whatever the core refuses, and every self-check that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "transformers that learn on {}, kernel leaf {LEAF}, in an arena of {BYTES} bytes", B::NAME)?;
    let memory = ARENA.take()?.try_carve(BYTES).ok_or(Failure::Check("the arena is shorter than it says"))?;
    record::digest(board, LEAF, "llama", text(memory)?)?;
    record::digest(board, LEAF, "t5", pair(memory)?)?;
    let (flash, memory) =
        memory.split_at_mut_checked(rehearsing::FLASH).ok_or(Failure::Check("the arena is too short"))?;
    record::digest(board, LEAF, "rehearsing", rehearsing::run(memory, flash)?)?;
    record::stack(board)
}

/// A language model that learns a text in which every token tells the next.
fn text(memory: &mut [u8]) -> Result<u64, Failure> {
    let model = Model::open(&LLAMA)?;
    let (mut scratch, learn) = Workspace::new(memory).split(&TEXT)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let crc = model.payload_crc_now();
    let schedule = Schedule::Linear { warmup: 10, total: STEPS.0 };
    let mut trainer = Trainer::new(&model, &mut learner, AdamW { lr: q!(1e-2), ..AdamW::DEFAULT })?
        .clip(q!(1.0))
        .schedule(schedule)
        .dropout(q!(0.05))?
        .seed(Seed(11));
    let mut digest = Digest::new();
    let (mut early, mut late) = (Real::ZERO, Real::ZERO);
    for n in 0..STEPS.0 {
        let mut ids = [0; TOKENS];
        let mut id = Stream::new(Seed(3), Purpose::Shuffle, n, 0).at(0) % 32;
        for to in &mut ids {
            *to = id;
            id = (id * 5 + 11) % 32;
        }
        trainer.sequence(Sequence::tokens(&ids), SequenceTarget::Next, &mut scratch)?;
        let loss = trainer.step(&mut scratch)?;
        digest.i32s(&[loss.mantissa(), loss.exponent()]);
        if n < 16 {
            early = early.add(loss);
        }
        if n + 16 >= STEPS.0 {
            late = late.add(loss);
        }
        if n % 20 == 19 {
            take(&mut digest, trainer.learner());
        }
    }
    if model.payload_crc_now() != crc {
        return Err(Failure::Check("training wrote to the base"));
    }
    if early.less_than(late.scale(1)) {
        return Err(Failure::Check("the loss did not fall to a half"));
    }
    Ok(digest.value())
}

/// A classifier of texts, encoder and decoder.
fn pair(memory: &mut [u8]) -> Result<u64, Failure> {
    let model = Model::open(&T5)?;
    let classes = PAIR.spec().outputs as u32;
    let (mut scratch, learn) = Workspace::new(memory).split(&PAIR)?;
    let mut learner = learn.fresh(&model, Seed(5))?;
    let mut trainer =
        Trainer::new(&model, &mut learner, AdamW { lr: q!(3e-3), ..AdamW::DEFAULT })?.accumulate(2).seed(Seed(12));
    let mut digest = Digest::new();
    for n in 0..2 * STEPS.1 {
        let stream = Stream::new(Seed(4), Purpose::Shuffle, n, 0);
        let mut ids = [0; TOKENS];
        ids.iter_mut().enumerate().for_each(|(i, id)| *id = 2 + stream.at(i as u32) % 20);
        let class = (stream.at(99) % classes) as usize;
        let [a, b, c, d, ..] = ids;
        let target = SequenceTarget::At(4, Target::Class(class));
        trainer.pair(Sequence::tokens(&ids), Sequence::tokens(&[0, a, b, c, d]), target, &mut scratch)?;
        let loss = trainer.step(&mut scratch)?;
        digest.i32s(&[loss.mantissa(), loss.exponent()]);
    }
    // The classes are drawn: there is nothing to learn but how often each comes. What must be is that every pair has moved.
    let learner = trainer.learner();
    let moved = learner.records().iter().all(|r| r.b_of(learner.high()).iter().any(|&b| b != 0));
    if learner.steps() != STEPS.1 || !moved {
        return Err(Failure::Check("a pair did not learn"));
    }
    take(&mut digest, learner);
    Ok(digest.value())
}

/// A and B, both planes.
fn take(digest: &mut Digest, learner: &Learner<'_>) {
    digest.i16s(learner.high());
    digest.i16s(learner.low());
    for r in learner.records() {
        digest.i16s(&[r.a_exponent, r.b_exponent]);
    }
}
