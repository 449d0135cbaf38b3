//! What is settled at compile time: the plan of an included image, its arena, and the message where it does not fit.

use ranklet::fixed::hash::Seed;
use ranklet::image::Image;
use ranklet::model::{Arena, ArenaError, Model, Plan, Roles, Train, Workspace};
use ranklet::train::{AdamW, Target, Trainer};
use ranklet::{include_image, must_fit, q};
use ranklet_cli::base::Base;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::convergence::digits::Digits;
use std::path::Path;

static BASE: Image = include_image!("../../models/digits/digits.rkl");
const PLAN: Plan<'_> = Plan::of(&BASE).train(Train::adamw().rank(8).on(Roles::ALL));
const INFERENCE: Plan<'_> = Plan::of(&BASE);
static ARENA: Arena<{ PLAN.bytes() }> = Arena::new();

must_fit!(PLAN.bytes(), 64 * 1024);
must_fit!(INFERENCE.bytes(), 2 * 1024);

const _: () = {
    // Known to the compiler, field by field.
    assert!(PLAN.spec().features == 64 && PLAN.spec().outputs == 10);
    assert!(INFERENCE.training().is_none() && INFERENCE.learn_bytes() == 0);
    assert!(PLAN.bytes() == PLAN.scratch_bytes() + PLAN.learn_bytes());
};

#[test]
fn a_static_arena_trains() {
    let model = Model::open(&BASE).expect("the committed image");
    let workspace = ARENA.take().expect("the first time");
    assert_eq!(ARENA.take().unwrap_err(), ArenaError::Taken);
    let (mut scratch, learn) = workspace.split(&PLAN).expect("an arena of the plan's size");
    let mut learner = learn.fresh(&model, Seed(7)).expect("planned for it");
    let mut t = Trainer::new(&model, &mut learner, AdamW { lr: q!(2e-3), ..AdamW::DEFAULT }).expect("planned for it");
    let task = Digits::turned();
    let mut losses = vec![];
    for s in task.train.iter().cycle().take(800) {
        t.sample(s.input(), Target::Class(s.class), &mut scratch).expect("a sample");
        losses.push(t.step(&mut scratch).expect("its units").to_f64());
    }
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    assert!(mean(&losses[700..]) < 0.3 * mean(&losses[..100]));
}

#[test]
fn the_plan_tells_exactly_what_is_needed() {
    let mut memory = vec![0; PLAN.bytes() + 16];
    let start = memory.as_ptr().align_offset(16);
    let (exact, less) = (start..start + PLAN.bytes(), start..start + PLAN.bytes() - 1);
    assert!(Workspace::new(&mut memory[exact]).split(&PLAN).is_ok());
    let refused = Workspace::new(&mut memory[less]).split(&PLAN).map(|_| ());
    assert_eq!(refused, Err(ArenaError::TooSmall { needed: PLAN.bytes(), available: PLAN.bytes() - 1 }));
    let refused = Workspace::new(&mut memory).split(&INFERENCE).map(|_| ());
    assert_eq!(refused, Err(ArenaError::NotPlanned));
}

#[test]
fn more_training_needs_more() {
    let bytes = |t: Train| INFERENCE.train(t).learn_bytes();
    assert!(bytes(Train::sgd()) < bytes(Train::momentum()) && bytes(Train::momentum()) < bytes(Train::adamw()));
    assert!(bytes(Train::adamw().rank(4)) < bytes(Train::adamw().rank(8)));
    assert!(bytes(Train::adamw().on(Roles::HEAD)) < bytes(Train::adamw().on(Roles::ALL)));
    assert!(PLAN.longest_unit_macs() > INFERENCE.longest_unit_macs());
    // A of the layer 96 to 64, at rank 8.
    let longest = |t: Train| (INFERENCE.train(t).longest_update(), INFERENCE.train(t).largest_tensor());
    assert_eq!((INFERENCE.longest_update(), PLAN.longest_update()), (0, 256));
    assert_eq!(longest(Train::sgd().update_elements(40)), (40, 768));
    assert_eq!(longest(Train::sgd().update_elements(usize::MAX)), (768, 768));
    assert_eq!(longest(Train::sgd().update_elements(0)), (1, 768));
}

#[test]
fn what_does_not_fit_says_by_how_much() {
    // The text that `must_fit!` fails the build with; that it does is a doc test of the macro.
    let text = ranklet::model::must_fit::too_large_message(20_000, 16_384);
    let text = std::str::from_utf8(&text).expect("ASCII").trim_end();
    assert_eq!(text, "the plan needs 20000 bytes of RAM, the limit is 16384: 3616 bytes too many");
}

/// The committed images are what the converter makes of the committed checkpoints.
#[test]
fn committed_images_are_fresh() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    for name in ["digits", "tiny"] {
        let base = Base::open(&models.join(name).join("base")).expect("a checkpoint");
        let made = ranklet_cli::image::base::convert(&base, WeightType::I8, || ()).expect("a base").bytes;
        let committed = std::fs::read(models.join(name).join(format!("{name}.rkl"))).expect("an image");
        assert!(made == committed, "models/{name}/{name}.rkl: convert it again from models/{name}/base");
    }
}
