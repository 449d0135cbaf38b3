//! What a device forgets, and how it does not: `cargo run --release --example replay`.
//!
//! The camera is mounted sideways, as in the demo, and the digits come in their order: first many zeros, then many ones, and so on. Every
//! image is seen once. What is learned last overwrites what was learned before, unless some of what was seen is shown again:
//! 64 images, 4 KB, in a reservoir; in RAM, or in flash (here memory that behaves as flash), where they outlast a power loss.

use ranklet::layer::head::argmax;
use ranklet::store::Ram;
use ranklet::train::{FlashReservoir, Places, Reservoir, Schedule};
use ranklet::{
    AdamW, Arena, Exp, Image, Input, Learner, Model, Plan, Scratch, Seed, Target, Train, Trainer, include_image,
    must_fit, q,
};

static BASE: Image = include_image!("../models/digits/digits.rkl");
/// `models/digits/README.md` has the layout.
static DIGITS: &[u8] = include_bytes!("../models/digits/digits.bin");

/// Three learners, one after the other.
const PLAN: Plan = Plan::of(&BASE).train(Train::adamw().rank(8).alpha(16));
static ARENAS: [Arena<{ PLAN.bytes() }>; 3] = [const { Arena::new() }; 3];
/// Images that are remembered, and how many of them are shown again behind a new one.
const HELD: usize = 64;
const AGAIN: usize = 4;
must_fit!(PLAN.bytes() + size_of::<Reservoir<Digit, HELD>>(), 48 * 1024);

/// An image as the camera sees it, a quarter turn clockwise, and what it shows.
#[derive(Clone, Copy)]
struct Digit {
    pixels: [u8; 64],
    class: u8,
}

impl Digit {
    /// As it lies in flash.
    fn bytes(&self) -> [u8; size_of::<Digit>()] {
        std::array::from_fn(|i| self.pixels.get(i).copied().unwrap_or(self.class))
    }

    fn of(bytes: &[u8; size_of::<Digit>()]) -> Digit {
        Digit { pixels: std::array::from_fn(|i| bytes[i]), class: bytes[64] }
    }
}

/// Images of a part of `digits.bin`.
fn digits(first: usize, count: usize) -> Vec<Digit> {
    let records = DIGITS[16..].chunks_exact(65).skip(first).take(count);
    let turned = |r: &[u8]| Digit { pixels: std::array::from_fn(|i| r[(7 - i % 8) * 8 + i / 8]), class: r[64] };
    records.map(turned).collect()
}

fn samples(digit: &Digit) -> [i16; 64] {
    digit.pixels.map(i16::from)
}

/// Shows an image once.
fn show(
    trainer: &mut Trainer<'_, '_, '_, AdamW>,
    digit: &Digit,
    scratch: &mut Scratch<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let raw = samples(digit);
    trainer.sample(Input::i16(&raw, Exp(0)), Target::Class(digit.class.into()), scratch)?;
    trainer.step(scratch)?;
    Ok(())
}

/// Right answers in percent, of each digit.
fn right(
    model: &Model<'_>,
    learner: &Learner<'_>,
    test: &[Digit],
    scratch: &mut Scratch<'_>,
) -> Result<[f64; 10], Box<dyn std::error::Error>> {
    let mut counts = [(0, 0); 10];
    for digit in test {
        let y = model.infer(scratch, Input::i16(&samples(digit), Exp(0)), &[learner.view()])?;
        let (right, all) = &mut counts[usize::from(digit.class)];
        *right += u32::from(argmax(y.mantissas) == usize::from(digit.class));
        *all += 1;
    }
    Ok(counts.map(|(right, all)| 100.0 * f64::from(right) / f64::from(all)))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(&BASE)?;
    let (mut stream, test) = (digits(1000, 400), digits(1400, 397));
    stream.sort_by_key(|digit| digit.class);

    println!("right of the turned digits, in percent, after 40 images each of 0, 1, … 9, every one seen once:\n");
    print!("{:18}", "");
    (0..10).for_each(|digit| print!("{digit:6}"));
    println!("   all");
    let mut all = [0.0; 3];
    let kinds = ["each seen once", "with replay", "… from flash"];
    let mut memory = vec![0; 16 * 1024];
    let mut flash: Ram<'_, 1024> = Ram::with_pages(&mut memory);
    for ((arena, kind), mean) in ARENAS.iter().zip(kinds).zip(&mut all) {
        let (mut scratch, learn) = arena.take()?.split(&PLAN)?;
        let mut mine = learn.fresh(&model, Seed(7))?;
        let mut seen: Reservoir<Digit, HELD> = Reservoir::new(Seed(1));
        let places = Places { samples: HELD, bytes: size_of::<Digit>(), kind: 1 };
        let mut kept = FlashReservoir::open(&mut flash, 0..16 * 1024, places, Seed(1))?;
        let mut trainer = Trainer::new(&model, &mut mine, AdamW { lr: q!(2e-3), ..AdamW::DEFAULT })?
            .schedule(Schedule::Warmup { warmup: 20 });
        for digit in &stream {
            show(&mut trainer, digit, &mut scratch)?;
            match kind {
                "with replay" => {
                    for old in seen.replay(AGAIN) {
                        show(&mut trainer, old, &mut scratch)?;
                    }
                    seen.offer(*digit);
                }
                "… from flash" => {
                    let mut bytes = [0; size_of::<Digit>()];
                    for _ in 0..AGAIN {
                        if kept.replay(&mut flash, &mut bytes)?.is_some() {
                            show(&mut trainer, &Digit::of(&bytes), &mut scratch)?;
                        }
                    }
                    kept.offer(&mut flash, &digit.bytes())?;
                }
                _ => {}
            }
        }
        let of = right(&model, &mine, &test, &mut scratch)?;
        *mean = of.iter().sum::<f64>() / 10.0;
        print!("{kind:18}");
        of.iter().for_each(|percent| print!("{percent:6.0}"));
        println!("{mean:6.0}");
    }
    println!(
        "\n{} bytes to learn in, {} for {HELD} images that are shown again, {AGAIN} behind every new one",
        PLAN.bytes(),
        size_of::<Reservoir<Digit, HELD>>()
    );
    let [once, replayed, from_flash] = all;
    assert!(once < 50.0 && replayed > once + 20.0, "it is forgotten without, and not with: {once} {replayed}");
    assert!(from_flash > once + 20.0, "nor with flash: {once} {from_flash}");
    Ok(())
}
