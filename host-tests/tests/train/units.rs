//! Units: in whatever parts it is run, the bits are the same.

use super::{ADAMW, How, PLAIN, SGD, data, fixture, pairs, parameters, state, train};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::q;
use ranklet::train::{AdamW, Rule, Trainer};
use ranklet_host_tests::fixture::Desk;

#[test]
fn advancing_in_units_is_stepping() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(12, 5);
    let stepped = train(&model, ADAMW, How { accumulate: 3, ..PLAIN }, &samples, |l, _| state(l));
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(3).seed(Seed(3));
    let mut steps = 0;
    for x in &samples {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        loop {
            let progress = t.advance(&mut scratch).expect("a unit");
            steps += u32::from(progress.stepped);
            // Between units the scratch may serve an inference, with the adapter as it stands.
            let _ = model.infer(&mut scratch, samples[0].input(), &[t.learner().view()]).expect("inference");
            if !progress.more() {
                break;
            }
        }
    }
    assert_eq!((steps, state(&learner)), (4, stepped));
}

/// However few elements an update takes in a unit, the same bits come out, and nobody sees a tensor half done.
#[test]
fn updates_in_parts_are_updates() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(5, 23);
    let decayed = AdamW { weight_decay: q!(0.1), ..ADAMW };
    for rule in [Rule::AdamW(decayed), Rule::Sgd(SGD)] {
        let whole = train(&model, rule, PLAIN, &samples, |l, _| state(l));
        // Of 4 tensors the largest has 80 elements.
        for (elements, least_units) in [(1, 2 * 224), (7, 64), (79, 8), (usize::MAX, 4)] {
            let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).update_elements(elements)));
            let (mut scratch, learn) = desk.split();
            let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
            let mut t = Trainer::new(&model, &mut learner, rule).expect("a trainer").accumulate(100).seed(Seed(3));
            for x in &samples {
                t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
                t.step(&mut scratch).expect("its units");
                t.flush().expect("idle");
                let (mut units, mut changes, mut before) = (0, 0, state(t.learner()));
                loop {
                    let progress = t.advance(&mut scratch).expect("a unit");
                    let after = state(t.learner());
                    changes += u32::from(before != after);
                    before = after;
                    units += 1;
                    if !progress.more() {
                        break;
                    }
                }
                // The norm is a unit as well, though nothing is clipped. Without B, A has no gradient in the first step.
                assert!(units > least_units || t.learner().steps() == 1, "{units} units of {elements} elements");
                assert!(changes <= 4, "every tensor changes at once, and once");
            }
            assert_eq!(state(&learner), whole, "{elements} elements a unit");
        }
    }
}

/// Another optimizer in the middle of a tensor: what the first one has half done to it is dropped, the rest goes on.
#[test]
fn another_optimizer_in_the_middle_of_an_update() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(3, 24);
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).update_elements(7)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    for at in 0..120 {
        let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
        t.sample(samples[0].input(), samples[0].target(), &mut scratch).expect("a sample");
        for _ in 0..at {
            if !t.advance(&mut scratch).expect("a unit").more() {
                break;
            }
        }
        let mut t = Trainer::new(&model, &mut learner, SGD).expect("a trainer");
        t.step(&mut scratch).expect("its units");
    }
    assert!(parameters(&pairs(&learner)).iter().all(|v| v.abs() < 10.0));
}

/// Every unit by a trainer of its own: a sample keeps the mask that it began with.
#[test]
fn a_trainer_may_be_dropped_between_units() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(6, 22);
    let how = How { dropout: 0.3, ..PLAIN };
    let expected = train(&model, SGD, how, &samples, |l, _| state(l));
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).dropout().update_elements(7)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    for x in &samples {
        let t = Trainer::new(&model, &mut learner, SGD).expect("a trainer");
        let mut t = t.seed(Seed(3)).dropout(Real::from_f64(0.3)).expect("planned for it");
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        loop {
            // It knows neither of dropout nor of the seed.
            let mut t = Trainer::new(&model, &mut learner, SGD).expect("a trainer");
            if !t.advance(&mut scratch).expect("a unit").more() {
                break;
            }
        }
    }
    assert_eq!(state(&learner), expected);
}
