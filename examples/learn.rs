//! What firmware does, on a laptop: `cargo run --example learn`.
//!
//! A frozen base is built in, an arena of exactly the planned size is set aside, an adapter learns, is saved as an image, and
//! is used again where that image lies. Nothing here allocates but the `Vec` that stands for flash.

use ranklet::layer::head::argmax;
use ranklet::{
    AdamW, Adapter, Arena, Exp, Image, Input, Model, Plan, Real, Seed, Target, Train, Trainer, include_image, must_fit,
    q,
};

static BASE: Image = include_image!("../models/tiny/tiny.rkl");
const PLAN: Plan = Plan::of(&BASE).train(Train::adamw().rank(4).alpha(8));
static ARENA: Arena<{ PLAN.bytes() }> = Arena::new();
must_fit!(PLAN.bytes(), 4 * 1024); // or the build fails, and says by how much

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = ARENA.take()?.split(&PLAN)?;
    let mut mine = learn.fresh(&model, Seed(7))?;

    // A sensor's window: 16 samples of 12 bits under an exponent, and what it meant.
    let window: [i16; 16] = std::array::from_fn(|i| ((i as i16 * 997) % 4096) - 2048);
    let input = Input::i16(&window, Exp(-11));
    let before = argmax(model.infer(&mut scratch, input, &[])?.mantissas);
    let wanted = (before + 1) % model.spec().outputs;

    let mut trainer = Trainer::new(&model, &mut mine, AdamW { lr: q!(1e-2), ..AdamW::DEFAULT })?;
    let mut loss = Real::ZERO;
    for _ in 0..50 {
        trainer.sample(input, Target::Class(wanted), &mut scratch)?;
        loss = trainer.step(&mut scratch)?; // or advance(), unit by unit
    }
    println!("the base said {before}; after 50 steps the loss is {:.4}", loss.to_f64());

    // Save, and use what was saved in place. Flash stands at a multiple of 16; this buffer is moved to one.
    let mut image = Vec::new();
    mine.write_to(&mut image, b"")?;
    let mut flash = vec![0; image.len() + 16];
    let at = flash.as_ptr().align_offset(16);
    flash[at..at + image.len()].copy_from_slice(&image);
    let adapter = Adapter::open(&model, &flash[at..at + image.len()])?;

    let with = argmax(model.infer(&mut scratch, input, &[adapter.view()])?.mantissas);
    let without = argmax(model.infer(&mut scratch, input, &[])?.mantissas);
    println!(
        "with the adapter {with}, switched off {without}; {} bytes of RAM, {} of flash",
        PLAN.bytes(),
        image.len()
    );
    assert_eq!((with, without), (wanted, before));
    Ok(())
}
