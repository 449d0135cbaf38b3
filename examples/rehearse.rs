//! A language model that takes on a style, as a device would do it: `cargo run --release --example rehearse`.
//!
//! Pages come once. What is read is packed into sequences of 32 tokens, and some of them are held in flash. What is held is learned from
//! again and again, by the upper blocks alone, with the lower blocks' outputs kept in flash as well; between, pages that it does not
//! learn from are measured, until that brings nothing any more. The best adapter and a checkpoint are written down.
//!
//! The flash is memory that behaves as one: on a board it is the board's driver.

use ranklet::layer::head::argmax;
use ranklet::store::Ram;
use ranklet::train::{FlashReservoir, Keep, Pack, Patience, Places, Prefixes, Score, Verdict};
use ranklet::{
    AdamW, Adapter, Arena, Image, Learner, Model, Plan, Roles, Scratch, Seed, Sequence, SequenceTarget, Train, Trainer,
    include_image, must_fit, q,
};
use std::error::Error;

static BASE: Image = include_image!("../models/story/story.rkl");
/// Persuasion, as tokens, little-endian u16: pages to learn from, and others.
static PAGES: &[u8] = include_bytes!("../models/story/style/train.u16");
static OTHERS: &[u8] = include_bytes!("../models/story/style/heldout.u16");

const TOKENS: usize = 32;
const PLAN: Plan =
    Plan::of(&BASE).tokens(TOKENS).train(Train::adamw().rank(4).alpha(8).on(Roles::Q.or(Roles::V)).immediate());
static ARENA: Arena<{ PLAN.bytes() }> = Arena::new();
must_fit!(PLAN.bytes(), 96 * 1024);

/// Sequences that are held: two bytes a token, and two a label.
const PLACES: Places = Places { samples: 24, bytes: 4 * TOKENS, kind: 1 };
/// Where they lie, and where prefixes do.
const HELD: core::ops::Range<u32> = 0..0x4000;
const KEPT: core::ops::Range<u32> = 0x4000..0x2_0000;

fn tokens(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]).into()).collect()
}

/// A packed sequence as it lies in flash: tokens, then labels (0xFFFF: none).
fn written(pack: &Pack<TOKENS>) -> Vec<u8> {
    pack.tokens().iter().chain(pack.labels()).flat_map(|&id| (id as u16).to_le_bytes()).collect()
}

fn read(bytes: &[u8]) -> (Vec<u32>, Vec<u32>) {
    let mut ids = tokens(bytes);
    let labels = ids.split_off(ids.len() / 2);
    (ids, labels.into_iter().map(|l| if l == 0xFFFF { ranklet::train::IGNORE } else { l }).collect())
}

/// How good the next tokens of pages are that are not learned from.
fn measured(
    trainer: &mut Trainer<'_, '_, '_, AdamW>,
    pages: &[u32],
    scratch: &mut Scratch<'_>,
) -> Result<Score, Box<dyn Error>> {
    let mut score = Score::default();
    for page in pages.chunks_exact(TOKENS) {
        trainer.measure().sequence(Sequence::tokens(page), SequenceTarget::Next, scratch)?;
        let loss = trainer.step(scratch)?;
        score.add(loss, trainer.answers());
    }
    Ok(score)
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::open(&BASE)?;
    let others = &tokens(OTHERS)[..12 * TOKENS];
    let mut memory = vec![0; KEPT.end as usize];
    let mut flash = Ram::new(&mut memory);

    // Pages come, a paragraph at a time (token 12 ends a line), and some of what they are packed to is held.
    let mut seen = FlashReservoir::open(&mut flash, HELD, PLACES, Seed(5))?;
    let mut pack: Pack<TOKENS> = Pack::new();
    for paragraph in tokens(PAGES).split_inclusive(|&id| id == 12) {
        let mut rest = paragraph;
        while !rest.is_empty() {
            rest = pack.fill(rest);
            if pack.is_full() {
                seen.offer(&mut flash, &written(&pack))?;
                pack.clear();
            }
        }
    }
    println!("{} sequences came, {} are held in flash", seen.offered(), seen.len());

    // Seven layers a block (`ranklet inspect models/story/story.rkl`): the upper two of five learn.
    let (mut scratch, learn) = ARENA.take()?.split(&PLAN)?;
    let mut learner: Learner<'_> = learn.fresh(&model, Seed(7))?;
    learner.choose(|site, _| site >= 21)?;
    let mut prefixes = Prefixes::open(&mut flash, KEPT)?;
    let mut trainer = Trainer::new(&model, &mut learner, AdamW { lr: q!(4e-3), ..AdamW::DEFAULT })?;
    assert!(trainer.keeps_prefixes());
    let before = measured(&mut trainer, others, &mut scratch)?;
    let told = |score: &Score| (score.loss().map_or(0.0, |loss| loss.to_f64()), score.right_permille());
    println!("before: {:.3} nats a token, {} of 1000 right", told(&before).0, told(&before).1);

    let (mut patience, mut image, mut checkpoint) = (Patience::new(2), vec![], vec![]);
    for round in 1..=8 {
        let mut found = 0;
        for _ in 0..PLACES.samples {
            let mut bytes = [0; PLACES.bytes];
            let Some(len) = seen.replay(&mut flash, &mut bytes)? else { break };
            let (ids, labels) = read(&bytes[..len]);
            let (sequence, target) = (Sequence::tokens(&ids), SequenceTarget::Tokens(&labels));
            found += u32::from(trainer.recall(&mut prefixes, &mut flash, sequence, target, &mut scratch)?);
            while trainer.advance(&mut scratch)?.more() {
                // A device does here whatever else it has to do.
            }
            if trainer.keep(&mut prefixes, &mut flash)? == Keep::Full {
                prefixes.clear(&mut flash)?;
            }
        }
        let score = measured(&mut trainer, others, &mut scratch)?;
        let Some(loss) = score.loss() else { break };
        println!(
            "round {round}: {:.3} nats, {} of 1000 right; {found} of {} samples began at block 3",
            told(&score).0,
            told(&score).1,
            PLACES.samples
        );
        match patience.look(loss) {
            // Where flash is the writer, `write_to` and `checkpoint` write to it.
            Verdict::Better => {
                (image, checkpoint) = (vec![], vec![]);
                trainer.learner().write_to(&mut image, br#"{"name":"persuasion"}"#)?;
                trainer.learner().checkpoint(&mut checkpoint)?;
            }
            Verdict::Wait => {}
            Verdict::Over => break,
        }
    }

    // After a restart: the adapter in use, and training that could go on.
    let adapter = Adapter::open(&model, &image)?;
    let writing = Plan::of(&BASE).tokens(TOKENS);
    let mut memory = vec![0; writing.bytes() + 15];
    let (mut scratch, mut cache) = ranklet::model::Workspace::new(&mut memory).sequence(&writing)?;
    model.decode(&mut scratch, &mut cache, Sequence::tokens(&others[..8]), &[adapter.view()])?;
    let next = argmax(model.logits(&mut scratch, 7, &[adapter.view()])?.mantissas);
    let best = patience.best().map_or(0.0, |loss| loss.to_f64());
    println!(
        "best: {best:.3}; {} bytes of adapter, {} of checkpoint; the next token: {next}",
        image.len(),
        checkpoint.len()
    );
    println!("{} bytes to learn in", PLAN.bytes());
    assert!(best + 0.1 < told(&before).0, "nothing was learned");
    Ok(())
}
