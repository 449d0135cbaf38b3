//! One optimizer after the other.

use super::{ADAMW, SGD, data, fixture, pairs, parameters};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::train::{AdamW, Learner, Optimizer, Schedule, Sgd, Trainer};
use ranklet_host_tests::fixture::{Desk, Sample, relative_l2};

/// Trains with one optimizer after the other on one learner; `schedule` for both.
fn in_turn<A: Optimizer, B: Optimizer>(first: A, then: B, schedule: Schedule, samples: [&[Sample]; 2]) -> Vec<f64> {
    let fixture = fixture();
    let model = fixture.model();
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    {
        let mut t = Trainer::new(&model, &mut learner, first).expect("a trainer").schedule(schedule);
        for x in samples[0] {
            t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
            t.step(&mut scratch).expect("its units");
        }
    }
    let mut t = Trainer::new(&model, &mut learner, then).expect("a trainer").schedule(schedule);
    for x in samples[1] {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    assert_eq!(learner.steps() as usize, samples[0].len() + samples[1].len());
    parameters(&pairs(&learner))
}

#[test]
fn a_schedule_goes_on_when_the_optimizer_changes() {
    let samples = data(12, 19);
    let (early, late) = samples.split_at(6);
    // Nothing is left of the rate after six steps: the second optimizer must not move anything.
    let ends = Schedule::Linear { warmup: 0, total: 6 };
    assert_eq!(in_turn(ADAMW, SGD, ends, [early, late]), in_turn(ADAMW, SGD, ends, [early, &[]]));
    assert_eq!(in_turn(SGD, ADAMW, ends, [early, late]), in_turn(SGD, ADAMW, ends, [early, &[]]));
    // Nor does the second warm up again: six steps with a rate of 0, then constant ones.
    let late_warmup = Schedule::Warmup { warmup: 6 };
    let still = AdamW { lr: Real::ZERO, ..ADAMW };
    assert_eq!(
        in_turn(still, SGD, late_warmup, [early, late]),
        in_turn(still, SGD, Schedule::Constant, [early, late]),
        "steps seven to twelve are beyond the warm-up"
    );
}

#[test]
fn bias_corrections_start_with_the_moments() {
    // Six steps of nothing, then AdamW: its first steps are those of a fresh one.
    let samples = data(12, 20);
    let (early, late) = samples.split_at(6);
    let still = Sgd { lr: Real::ZERO, ..SGD };
    let constant = Schedule::Constant;
    let (after, alone) = (in_turn(still, ADAMW, constant, [early, late]), in_turn(still, ADAMW, constant, [&[], late]));
    // The dither of the second moment is another: it is drawn by the number of steps in all.
    assert!(relative_l2(&after, &alone) < 1e-3, "{}", relative_l2(&after, &alone));
}

#[test]
fn momentum_starts_from_nothing() {
    let samples = data(12, 21);
    let (early, late) = samples.split_at(6);
    let without = Sgd { momentum: Real::ZERO, ..SGD };
    let trained = in_turn(without, SGD, Schedule::Constant, [early, late]);
    // The same, with the moments certainly forgotten in between.
    let fixture = fixture();
    let model = fixture.model();
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let mut run = |learner: &mut Learner<'_>, sgd: Sgd, samples: &[Sample]| {
        let mut t = Trainer::new(&model, learner, sgd).expect("a trainer");
        for x in samples {
            t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
            t.step(&mut scratch).expect("its units");
        }
    };
    run(&mut learner, without, early);
    learner.reset_optimizer();
    run(&mut learner, SGD, late);
    assert_eq!(parameters(&pairs(&learner)), trained);
}
