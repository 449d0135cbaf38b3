//! A language model writes, on a microcontroller: text in static buffers, two adapters in flash that take turns, and what each
//! of that costs.
//!
//! The model is the project's own Llama of 260 K parameters (`models/story`). Tokens are drawn at a temperature, in integers, by
//! a hash of a seed: the same text on every machine.

use ranklet::{
    fixed::{
        Block,
        block::requantize_i32,
        hash::{Purpose, Seed, Stream},
    },
    image::{Image, Vocabulary},
    include_image,
    layer::head::softmax_terms,
    memory::Workspace,
    model::{Active, Adapter, Arena, Cache, CacheType, Model, Plan, Roles, Sequence, SequenceScratch, Train},
    q,
    train::{AdamW, Part, SequenceTarget, Trainer},
};

use crate::{
    Board, Failure, LEAF,
    counter::Counter,
    digest::Digest,
    record::{self, Row, Work},
};

static BASE: Image = include_image!("../../../models/story/story.rkl");
static AUSTEN: Image = include_image!("../../../models/story/austen.rkl");
static PSALM: Image = include_image!("../../../models/story/psalm.rkl");

/// "And it came to pass in those days, that there went out a decree from the king, that all the people should be": 40 tokens.
const PROMPT: [u32; 40] = [
    0, 296, 353, 454, 288, 292, 315, 84, 291, 259, 80, 312, 431, 84, 13, 298, 380, 266, 357, 423, 261, 287, 70, 68,
    271, 70, 403, 260, 408, 13, 298, 361, 260, 467, 405, 274, 321, 297, 295, 86,
];
/// "And it came to pass".
const BEGINNING: &[u32] = &[0, 296, 353, 454, 288, 292, 315, 84];
/// "It is a truth".
const TRUTH: &[u32] = &[0, 42, 85, 342, 261, 317, 83, 86, 258];

/// Tokens of a text.
const CONTEXT: usize = 128;
const WIDE: Plan<'_> = Plan::of(&BASE).tokens(32).context(CONTEXT).cache(CacheType::I16);
const NARROW: Plan<'_> = Plan::of(&BASE).tokens(32).context(CONTEXT).cache(CacheType::I8);
/// Learning, on queries and values.
const LEARN: Plan<'_> = Plan::of(&BASE).tokens(32).train(Train::adamw().rank(4).alpha(8).on(Roles::Q.or(Roles::V)));
const BYTES: usize = if WIDE.bytes() > LEARN.bytes() { WIDE.bytes() } else { LEARN.bytes() };
static ARENA: Arena<BYTES> = Arena::new();

/// Tells everything.
///
/// # Errors
/// Whatever the core refuses, and every self-check that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let memory = ARENA.take()?.try_carve(BYTES).ok_or(Failure::Check("the arena is shorter than it says"))?;
    let counter = if board.instructions().is_some() { Some(Counter::calibrate(board)?) } else { None };
    let mut meter = Meter { board, counter };
    writeln!(meter.board, "A language model of 260 K parameters writes on {}, kernel leaf {LEAF}.", B::NAME)?;
    writeln!(
        meter.board,
        "flash: {} bytes of base, {} and {} of adapters; RAM: {} bytes to write {CONTEXT} tokens with keys and values in 16 bits, \
         {} in 8, {} to learn",
        BASE.bytes().len(),
        AUSTEN.bytes().len(),
        PSALM.bytes().len(),
        WIDE.bytes(),
        NARROW.bytes(),
        LEARN.bytes()
    )?;
    let model = Model::open(&BASE)?;
    let vocabulary = model.vocabulary().ok_or(Failure::Check("the image holds no vocabulary"))?;
    let (austen, opening) = meter.count(|| Adapter::open(&model, AUSTEN.bytes()))?;
    let (austen, psalm) = (austen?, Adapter::open(&model, PSALM.bytes())?);
    meter.print("adapter-open", "r4-qv", opening, 1, "adapter")?;
    let ((), switching) = meter.count(|| {
        core::hint::black_box(austen.view());
    })?;
    meter.print("adapter-switch", "r4-qv", switching, 1, "switch")?;

    let mut digest = Digest::new();
    costs(&mut meter, &model, memory, &mut digest)?;
    turns(&model, memory, [austen.view(), psalm.view()], &mut digest)?;
    let texts: [(&str, &[u32], &[Active<'_>]); 3] = [
        ("without an adapter", BEGINNING, &[]),
        ("in the manner of Jane Austen", TRUTH, &[austen.view()]),
        ("of a psalm", BEGINNING, &[psalm.view()]),
    ];
    for (n, (manner, begin, adapters)) in texts.into_iter().enumerate() {
        writeln!(meter.board, "\n{manner}:\n")?;
        let (mut scratch, mut cache) = Workspace::new(&mut *memory).sequence(&WIDE)?;
        write(
            meter.board,
            &model,
            &vocabulary,
            &mut scratch,
            &mut cache,
            begin,
            adapters,
            Seed(n as u32),
            &mut digest,
        )?;
    }
    record::digest(meter.board, LEAF, "story", digest.value())?;
    learn(&mut meter, &model, memory)?;
    record::stack(meter.board)
}

/// Counts where there is a counter, and prints rows then.
struct Meter<'b, B> {
    board: &'b mut B,
    counter: Option<Counter>,
}

impl<B: Board> Meter<'_, B> {
    fn count<R>(&mut self, run: impl FnOnce() -> R) -> Result<(R, u64), Failure> {
        match self.counter {
            Some(counter) => Ok(counter.count(self.board, |_| run())?),
            None => Ok((run(), 0)),
        }
    }

    fn print(
        &mut self,
        op: &str,
        shape: &str,
        instructions: u64,
        units: u64,
        unit: &'static str,
    ) -> Result<(), Failure> {
        if self.counter.is_none() {
            return Ok(());
        }
        let (op, shape) = (format_args!("{op}"), format_args!("{shape}"));
        record::row(self.board, &Row { leaf: LEAF, op, shape, instructions, work: Work::Units(units, unit) })
    }
}

/// A token at a time and a prompt at once: what they cost, and that they come to the same bits.
fn costs<B: Board>(
    meter: &mut Meter<'_, B>,
    model: &Model<'_>,
    memory: &mut [u8],
    digest: &mut Digest,
) -> Result<(), Failure> {
    for (name, plan) in [("i16", &WIDE), ("i8", &NARROW)] {
        let (mut scratch, mut cache) = Workspace::new(&mut *memory).sequence(plan)?;
        let mut alone = Digest::new();
        for (position, id) in PROMPT.iter().enumerate() {
            let (done, instructions) = meter.count(|| -> Result<(), Failure> {
                model.decode(&mut scratch, &mut cache, Sequence::tokens(core::slice::from_ref(id)), &[])?;
                take(&mut alone, model.logits(&mut scratch, 0, &[])?);
                Ok(())
            })?;
            done?;
            let shape = match position {
                0 => "position-0",
                39 => "position-39",
                _ => continue,
            };
            meter.print(
                if name == "i16" { "story-token" } else { "story-token-i8-cache" },
                shape,
                instructions,
                1,
                "token",
            )?;
        }
        cache.clear();
        let mut whole = Digest::new();
        let (prompt, rest) = PROMPT.split_at(32);
        let (done, instructions) =
            meter.count(|| model.decode(&mut scratch, &mut cache, Sequence::tokens(prompt), &[]))?;
        done?;
        meter.print(
            if name == "i16" { "story-prompt" } else { "story-prompt-i8-cache" },
            "32",
            instructions,
            1,
            "prompt",
        )?;
        for index in 0..prompt.len() {
            take(&mut whole, model.logits(&mut scratch, index, &[])?);
        }
        model.decode(&mut scratch, &mut cache, Sequence::tokens(rest), &[])?;
        for index in 0..rest.len() {
            take(&mut whole, model.logits(&mut scratch, index, &[])?);
        }
        if name == "i16" && whole != alone {
            return Err(Failure::Check("a prompt token by token gives other bits than at once"));
        }
        digest.bytes(&alone.value().to_le_bytes());
        digest.bytes(&whole.value().to_le_bytes());
    }
    Ok(())
}

/// Adapters take turns from call to call, and leave nothing behind.
fn turns(model: &Model<'_>, memory: &mut [u8], adapters: [Active<'_>; 2], digest: &mut Digest) -> Result<(), Failure> {
    let [one, two] = adapters;
    let (mut scratch, mut cache) = Workspace::new(&mut *memory).sequence(&WIDE)?;
    let mut run = |active: &[Active<'_>]| -> Result<u64, Failure> {
        let mut logits = Digest::new();
        cache.clear();
        let (prompt, _) = PROMPT.split_at(32);
        model.decode(&mut scratch, &mut cache, Sequence::tokens(prompt), active)?;
        for index in 0..prompt.len() {
            take(&mut logits, model.logits(&mut scratch, index, active)?);
        }
        Ok(logits.value())
    };
    let first = [run(&[])?, run(&[one])?, run(&[two])?, run(&[one, two])?];
    let again = [run(&[])?, run(&[one])?, run(&[two])?, run(&[one, two])?];
    if first != again {
        return Err(Failure::Check("an adapter leaves a trace"));
    }
    let [off, with_one, with_two, both] = first;
    if off == with_one || off == with_two || with_one == with_two || both == with_one {
        return Err(Failure::Check("an adapter changes nothing"));
    }
    first.iter().for_each(|d| digest.bytes(&d.to_le_bytes()));
    Ok(())
}

/// Writes on, token by token.
#[allow(clippy::too_many_arguments)] // What a text needs.
fn write<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    vocabulary: &Vocabulary<'_>,
    scratch: &mut SequenceScratch<'_>,
    cache: &mut Cache<'_>,
    begin: &[u32],
    adapters: &[Active<'_>],
    seed: Seed,
    digest: &mut Digest,
) -> Result<(), Failure> {
    let say = |board: &mut B, id: u32| board.write_str(core::str::from_utf8(vocabulary.bytes_of(id)).unwrap_or("?"));
    cache.clear();
    for &id in begin {
        say(board, id)?;
    }
    model.decode(scratch, cache, Sequence::tokens(begin), adapters)?;
    let mut last = begin.len() - 1;
    while cache.len() < CONTEXT {
        let stream = Stream::new(seed, Purpose::Sample, cache.len() as u32, 0);
        let id = draw(model.logits(scratch, last, adapters)?, stream.at(0));
        digest.bytes(&id.to_le_bytes());
        if vocabulary.is_end(id) {
            break;
        }
        say(board, id)?;
        model.decode(scratch, cache, Sequence::tokens(&[id]), adapters)?;
        last = 0;
    }
    writeln!(board)?;
    Ok(())
}

/// Tokens there are.
const VOCABULARY: usize = PLAN_OUTPUTS;
const PLAN_OUTPUTS: usize = WIDE.spec().outputs;

/// A token by its probability at a temperature of 0.8; `random`: 32 uniform bits.
fn draw(logits: Block<'_>, random: u32) -> u32 {
    // Times 5/4: two bits more of exponent, and rounded again.
    let (mut wide, mut narrow) = ([0; VOCABULARY], [0; VOCABULARY]);
    wide.iter_mut().zip(logits.mantissas).for_each(|(w, &m)| *w = 5 * i32::from(m));
    let exponent = requantize_i32(&wide, logits.exponent.get() - 2, &mut narrow);
    let cooled = Block { mantissas: &narrow, exponent };
    let sum = softmax_terms(cooled, |_, _| ());
    let mut left = (u128::from(sum) * u128::from(random) >> 32) as u64;
    let mut chosen = None;
    softmax_terms(cooled, |index, term| {
        if chosen.is_none() {
            if left < u64::from(term) {
                chosen = Some(index as u32);
            } else {
                left -= u64::from(term);
            }
        }
    });
    chosen.unwrap_or(0)
}

/// One step of learning, and what each part of it costs.
fn learn<B: Board>(meter: &mut Meter<'_, B>, model: &Model<'_>, memory: &mut [u8]) -> Result<(), Failure> {
    let (mut scratch, learn) = Workspace::new(&mut *memory).split(&LEARN)?;
    let mut learner = learn.fresh(model, Seed(1))?;
    let mut trainer = Trainer::new(model, &mut learner, AdamW { lr: q!(1e-3), ..AdamW::DEFAULT })?;
    let (text, _) = PROMPT.split_at(32);
    let mut parts = [0; Part::ALL.len()];
    for step in 0..2 {
        parts = [0; Part::ALL.len()];
        trainer.sequence(Sequence::tokens(text), SequenceTarget::Next, &mut scratch)?;
        while let Some(part) = trainer.next() {
            let (done, instructions) = meter.count(|| trainer.advance(&mut scratch))?;
            let _ = done?;
            // Of the second step: the first finds B zero, and so no gradient of A.
            if step == 1
                && let Some(sum) = parts.get_mut(part as usize)
            {
                *sum += instructions;
            }
        }
    }
    for (part, &sum) in Part::ALL.iter().zip(&parts) {
        meter.print("story-step", part.name(), sum, 1, "step")?;
    }
    meter.print("story-step", "32", parts.iter().sum(), 1, "step")?;
    // Where nothing is counted, the digest says that something was learned; it is the same everywhere.
    let mut digest = Digest::new();
    digest.i16s(learner.high());
    digest.i16s(learner.low());
    record::digest(meter.board, LEAF, "story, two steps", digest.value())
}

fn take(digest: &mut Digest, block: Block<'_>) {
    digest.i16s(block.mantissas);
    digest.i16s(&[block.exponent.0]);
}
