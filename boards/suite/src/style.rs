//! The demo of a language model that takes on a style, on the board: it has read the Bible, reads a few pages of Jane Austen,
//! and writes otherwise then; with the adapter switched off it is what it was, bit for bit.
//!
//! The learner and the writer use the same memory, one after the other: the learner is written to an image in RAM in between, as firmware
//! would write it to flash.

use ranklet::{
    fixed::{Real, hash::Seed},
    image::Vocabulary,
    layer::{head::cross_entropy, sample::Sampler},
    model::{Active, Adapter, Arena, Cache, Model, Plan, Roles, Sequence, SequenceScratch, Train, Workspace},
    q,
    train::{AdamW, Schedule, SequenceTarget, Trainer},
};

use crate::{
    Board, Failure, LEAF,
    busy::Busy,
    demo::screen::{History, Thousandths},
    digest::Digest,
    record,
    write::{model::BASE, page::Page},
};

/// Persuasion: the first chapter and a half, and the beginning of the thirteenth, as tokens, little-endian u16.
static TEXT: &[u8] = include_bytes!("../../../models/story/style/train.u16");
static HELD_OUT: &[u8] = include_bytes!("../../../models/story/style/heldout.u16");

/// Tokens of a sample.
const TOKENS: usize = 32;
/// Samples to learn from, each once; and to measure on.
const SAMPLES: usize = 224;
const MEASURED: usize = 16;
/// "It is a truth".
const BEGINNING: [u32; 9] = [0, 42, 85, 342, 261, 317, 83, 86, 258];
/// Tokens of a text, its beginning included.
const LENGTH: usize = 80;
const SAMPLER: Sampler = Sampler { temperature: q!(0.7), min_p: q!(0.05), seed: Seed(4) };

const LEARN: Plan<'_> =
    Plan::of(&BASE).tokens(TOKENS).train(Train::adamw().rank(4).alpha(8).on(Roles::Q.or(Roles::V)).immediate().lean());
const WRITE: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).context(LENGTH);
const BYTES: usize = if LEARN.bytes() > WRITE.bytes() { LEARN.bytes() } else { WRITE.bytes() };
static ARENA: Arena<BYTES> = Arena::new();

/// What takes the place of flash: the adapter as it is written, head, records and both planes.
const IMAGE: usize = 18 * 1024 + 512;
static FLASH: Arena<IMAGE> = Arena::new();

/// Runs the demo.
///
/// # Errors
/// The first failure: whatever the core refuses, and each promise that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let memory = ARENA.take()?.try_carve(BYTES).ok_or(Failure::Check("the arena is shorter than its plan"))?;
    let model = Model::open(&BASE)?;
    let vocabulary = model.vocabulary().ok_or(Failure::Check("the base has no vocabulary"))?;
    let crc = model.payload_crc_now();
    let mut digest = Digest::new();
    writeln!(board, "ranklet on {}, kernel leaf {LEAF}: a language model takes on a style\n", B::NAME)?;
    writeln!(board, "  base     260,032 parameters in {} bytes of flash; it has read the Bible", BASE.len())?;
    writeln!(board, "  memory   {} bytes to learn in, {} to write in, the same ones", LEARN.bytes(), WRITE.bytes())?;
    writeln!(board, "  text     {SAMPLES} pieces of {TOKENS} tokens of Jane Austen, each read once\n")?;

    let before = measure(&model, memory, &[], &mut digest)?;
    writeln!(board, "before, {} nats a token on pages it does not learn from:\n", Thousandths(before))?;
    write(board, &model, &vocabulary, memory, &[], &mut digest)?;

    let flash = FLASH.take()?.try_carve(IMAGE).ok_or(Failure::Check("the flash is shorter than it says"))?;
    let mut image = Written { bytes: flash, len: 0 };
    learn(board, &model, memory, &mut image)?;
    if model.payload_crc_now() != crc {
        return Err(Failure::Check("training wrote to the base"));
    }
    let bytes = image.bytes.get(..image.len).unwrap_or(&[]);
    after(board, &model, &vocabulary, memory, bytes, before, &mut digest)?;
    record::digest(board, LEAF, "style", digest.value())?;
    record::stack(board)
}

/// What it writes with what it has learned, and without.
#[inline(never)] // So that the adapter's view is not on the stack while it learns.
fn after<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    vocabulary: &Vocabulary<'_>,
    memory: &mut [u8],
    bytes: &[u8],
    before: i32,
    digest: &mut Digest,
) -> Result<(), Failure> {
    let adapter = Adapter::open(model, bytes)?;
    digest.bytes(bytes);

    let after = measure(model, memory, &[adapter.view()], digest)?;
    writeln!(board, "\nafter, {} nats a token:\n", Thousandths(after))?;
    write(board, model, vocabulary, memory, &[adapter.view()], digest)?;
    let off = measure(model, memory, &[adapter.scaled(Real::ZERO)], digest)?;
    writeln!(board, "\nadapter switched off: {} nats a token", Thousandths(off))?;
    let mut file = board.create(c"style.rkl").map_err(|e| Failure::File(embedded_io::Error::kind(&e)))?;
    embedded_io::Write::write_all(&mut file, bytes).map_err(|e| Failure::File(embedded_io::Error::kind(&e)))?;
    drop(file);
    writeln!(board, "wrote style.rkl: {} bytes", bytes.len())?;
    if off != before {
        return Err(Failure::Check("an adapter that is switched off leaves a trace"));
    }
    if after + 200 > before {
        return Err(Failure::Check("nothing was learned"));
    }
    Ok(())
}

/// Tokens of piece `index` of a text.
fn piece(text: &[u8], index: usize) -> [u32; TOKENS] {
    let mut ids = [0; TOKENS];
    let bytes = text.chunks_exact(2).skip(index * TOKENS);
    ids.iter_mut()
        .zip(bytes)
        .for_each(|(id, b)| *id = b.first_chunk().map_or(0, |b| u32::from(u16::from_le_bytes(*b))));
    ids
}

/// Reads the text once, a step a piece.
fn learn<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    memory: &mut [u8],
    image: &mut Written<'_>,
) -> Result<(), Failure> {
    let (mut scratch, learn) = Workspace::new(memory).split(&LEARN)?;
    let mut learner = learn.fresh(model, Seed(7))?;
    let mut trainer = Trainer::new(model, &mut learner, AdamW { lr: q!(6e-3), ..AdamW::DEFAULT })?
        .schedule(Schedule::Linear { warmup: 8, total: SAMPLES as u32 });
    let mut history = History::new();
    let (mut sum, mut units) = (0, 0_u32);
    for index in 0..SAMPLES {
        let ids = piece(TEXT, index);
        trainer.sequence(Sequence::tokens(&ids), SequenceTarget::Next, &mut scratch)?;
        let mut light = Busy::new(board.light()).map_err(|_| Failure::Check("the light"))?;
        loop {
            let progress = trainer.advance(&mut scratch)?;
            units += 1;
            light.unit().map_err(|_| Failure::Check("the light"))?;
            sum += progress.loss.map_or(0, thousandths);
            if !progress.more() {
                break;
            }
        }
        light.done().map_err(|_| Failure::Check("the light"))?;
        if index % 16 == 15 {
            history.push(sum / 16);
            writeln!(board, "  after {:3} pieces: {} nats a token", index + 1, Thousandths(sum / 16))?;
            sum = 0;
        }
    }
    writeln!(board, "\n  {units} units of work; losses {history}")?;
    learner.write_to(image, br#"{"name":"style"}"#).map_err(|_| Failure::Check("the image does not fit its memory"))
}

/// Nats a token, in thousandths.
fn measure(model: &Model<'_>, memory: &mut [u8], adapters: &[Active<'_>], digest: &mut Digest) -> Result<i32, Failure> {
    let (mut scratch, mut cache) = Workspace::new(memory).sequence(&WRITE)?;
    let mut sum = Real::ZERO;
    for index in 0..MEASURED {
        let ids = piece(HELD_OUT, index);
        cache.clear();
        model.decode(&mut scratch, &mut cache, Sequence::tokens(&ids), adapters)?;
        for (at, &next) in ids.iter().skip(1).enumerate() {
            sum = sum.add(cross_entropy(model.logits(&mut scratch, at, adapters)?, next as usize));
        }
    }
    digest.i32s(&[sum.mantissa(), sum.exponent()]);
    Ok(thousandths(sum.mul(Real::ratio(1, (MEASURED * (TOKENS - 1)) as u32))))
}

fn thousandths(loss: Real) -> i32 {
    loss.mul(Real::int(1000)).to_q(0)
}

/// Writes a text.
fn write<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    vocabulary: &Vocabulary<'_>,
    memory: &mut [u8],
    adapters: &[Active<'_>],
    digest: &mut Digest,
) -> Result<(), Failure> {
    let (mut scratch, mut cache): (SequenceScratch<'_>, Cache<'_>) = Workspace::new(memory).sequence(&WRITE)?;
    let mut page = Page::new();
    BEGINNING.iter().try_for_each(|&id| page.put(board, vocabulary.bytes_of(id)))?;
    model.decode(&mut scratch, &mut cache, Sequence::tokens(&BEGINNING), adapters)?;
    while cache.len() < LENGTH {
        let last = scratch.len() - 1;
        let id = SAMPLER.choose(model.logits(&mut scratch, last, adapters)?, cache.len() as u32) as u32;
        digest.bytes(&id.to_le_bytes());
        if vocabulary.is_end(id) {
            break;
        }
        page.put(board, vocabulary.bytes_of(id))?;
        model.decode(&mut scratch, &mut cache, Sequence::tokens(&[id]), adapters)?;
    }
    page.end(board)?;
    Ok(())
}

/// Bytes, written one after the other.
struct Written<'f> {
    bytes: &'f mut [u8],
    len: usize,
}

impl embedded_io::ErrorType for Written<'_> {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Write for Written<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let end = self.len + bytes.len();
        let to = self.bytes.get_mut(self.len..end).ok_or(embedded_io::ErrorKind::OutOfMemory)?;
        to.copy_from_slice(bytes);
        self.len = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
