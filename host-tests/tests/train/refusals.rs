//! What is refused, and that nothing has changed then.

use super::{ADAMW, How, PLAIN, SGD, data, fixture, gradients, state, train};
use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::layer::normalize::Input;
use ranklet::model::Train;
use ranklet::q;
use ranklet::train::{Learner, Sgd, Target, TrainError, Trainer};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::{Desk, Fixture};

#[test]
fn refusals_leave_the_adapter_as_it_was() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(30, 6);
    let undisturbed = train(&model, ADAMW, How { accumulate: 2, ..PLAIN }, &samples, |l, _| state(l));
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(2).seed(Seed(3));
    let short = [1_i16; 11];
    for x in &samples {
        let before = state(t.learner());
        let refused = t.sample(Input::i16(&short, Exp(0)), Target::Class(0), &mut scratch);
        assert_eq!(refused, Err(TrainError::Input { expected: 12, found: 11 }));
        let refused = t.sample(x.input(), Target::Class(4), &mut scratch);
        assert_eq!(refused, Err(TrainError::Class { found: 4, classes: 4 }));
        let refused = t.sample(x.input(), Target::Labels(&[true; 4]), &mut scratch);
        assert!(matches!(refused, Err(TrainError::TargetKind { .. })), "{refused:?}");
        let refused = t.sample(x.input(), Target::Cotangent(&[1; 3], Exp(0)), &mut scratch);
        assert_eq!(refused, Err(TrainError::TargetLength { expected: 4, found: 3 }));
        assert_eq!(state(t.learner()), before);
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        assert_eq!(t.sample(x.input(), x.target(), &mut scratch), Err(TrainError::Busy));
        assert_eq!(t.flush(), Err(TrainError::Busy));
        t.step(&mut scratch).expect("its units");
    }
    assert_eq!(state(&learner), undisturbed, "and what follows is what it would have been");

    let other = Fixture::random(&[12, 20, 4], WeightType::I8, 82);
    assert!(matches!(Trainer::new(&other.model(), &mut learner, ADAMW), Err(TrainError::Base { .. })));
    let mut desk = Desk::new(&model, Some(Train::sgd().rank(4)));
    let (_, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let refused = Trainer::new(&model, &mut learner, ADAMW).map(|_| ());
    assert_eq!(refused, Err(TrainError::Moments { needed: 2, planned: 0 }));
    let sgd = Trainer::new(&model, &mut learner, Sgd { momentum: Real::ZERO, ..SGD }).expect("no moments");
    assert!(matches!(sgd.dropout(q!(0.1)), Err(TrainError::DropoutNotPlanned)));
}

/// As `refusals_leave_the_adapter_as_it_was`, with gradients half collected, and scratch of another network.
#[test]
fn refusals_leave_gradients_and_counters() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(3, 16);
    let small = Fixture::random(&[2, 2], WeightType::I8, 1);
    let small_model = small.model();
    let mut small_desk = Desk::new(&small_model, Some(Train::adamw().rank(1)));
    let (mut wrong, _) = small_desk.split();
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let everything = |l: &Learner<'_>| (state(l), gradients(l), l.samples(), l.steps());
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(100);
    for x in &samples {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    let before = everything(t.learner());
    assert!(before.1.iter().any(|&g| g != 0.0) && before.2 == 3 && before.3 == 0);
    let x = &samples[0];
    let short = [1_i16; 11];
    assert!(t.sample(Input::i16(&short, Exp(0)), Target::Class(0), &mut scratch).is_err());
    assert!(t.sample(x.input(), Target::Class(usize::MAX), &mut scratch).is_err());
    assert!(t.sample(x.input(), Target::Values(&[1; 4], Exp(0)), &mut scratch).is_err());
    assert!(t.sample(x.input(), Target::Cotangent(&[], Exp(0)), &mut scratch).is_err());
    let refused = t.sample(x.input(), x.target(), &mut wrong);
    assert!(matches!(refused, Err(TrainError::Shape(_))), "{refused:?}");
    assert_eq!(everything(t.learner()), before);

    // Taken with the right scratch, run with the wrong one: nothing is done, and the same unit runs with the right one.
    t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
    let before = everything(t.learner());
    assert!(matches!(t.step(&mut wrong), Err(TrainError::Shape(_))));
    assert_eq!(everything(t.learner()), before);
    assert_eq!(t.sample(x.input(), x.target(), &mut scratch), Err(TrainError::Busy));
    t.step(&mut scratch).expect("its units");
    let collected = gradients(t.learner());

    // As if nothing had been refused.
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(100);
    for x in samples.iter().chain([x]) {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    assert_eq!(gradients(&learner), collected);
}
