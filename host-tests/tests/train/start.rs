//! What it starts from.

use super::{ADAMW, How, PLAIN, SGD, by_oracle, data, fixture, pairs, state, train};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::train::{Sgd, Trainer};
use ranklet_host_tests::fixture::{Desk, infer, relative_l2};
use ranklet_host_tests::tolerance::LEARNED_SGD;

#[test]
fn it_starts_from_nothing_and_comes_alive() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(2, 1);
    let [first, second] = &samples[..] else { panic!() };
    let mut desk = Desk::new(&model, Some(Train::sgd().rank(4)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let start = pairs(&learner);
    for p in &start {
        assert!(p.b.iter().all(|&b| b == 0.0));
        let bound = 1.0 / (p.a.len() as f64 / p.rank as f64).sqrt();
        assert!(p.a.iter().all(|a| a.abs() <= bound * 1.0001) && p.a.iter().any(|a| a.abs() > bound / 2.0));
    }
    assert_eq!(
        infer(&model, first, &[learner.view()]),
        infer(&model, first, &[]),
        "a fresh adapter changes nothing, bit for bit"
    );
    // Collected, not stepped: A's gradient is nothing while B is, and B's is not.
    let plain = Sgd { momentum: Real::ZERO, ..SGD };
    {
        let mut t = Trainer::new(&model, &mut learner, plain).expect("a trainer").accumulate(100);
        t.sample(first.input(), first.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    for index in 0..2 {
        let [(a, _), (b, _)] = learner.gradient(index).expect("a record");
        assert!(a.iter().all(|&g| g == 0) && b.iter().any(|&g| g != 0), "record {index}");
    }
    let mut t = Trainer::new(&model, &mut learner, plain).expect("a trainer");
    for x in [first, second] {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    for (p, q) in start.iter().zip(pairs(&learner)) {
        assert!(p.a != q.a && q.b.iter().any(|&b| b != 0.0), "after two steps both are alive");
    }
}

#[test]
fn tiny_learning_rates_do_not_vanish() {
    // 2^-40 of the usual rate: far below one step of the 16 bits that inference reads, but not of the 32-bit masters
    // of a B that starts at zero.
    let fixture = fixture();
    let lr = SGD.lr.scale(-40);
    let how = PLAIN;
    let samples = data(20, 2);
    let fixed = train(&fixture.model(), Sgd { lr, ..SGD }, how, &samples, |l, _| pairs(l));
    let by = by_oracle(&fixture, Sgd { lr, ..SGD }.into(), how, &samples);
    let b: Vec<f64> = fixed.iter().flat_map(|p| p.b.iter().copied()).collect();
    let start = train(&fixture.model(), SGD, how, &[], |l, _| pairs(l));
    let mut at = 0;
    let mut expected = vec![];
    for p in &start {
        expected.extend(&by[at + p.a.len()..at + p.a.len() + p.b.len()]);
        at += p.a.len() + p.b.len();
    }
    assert!(b.iter().any(|&b| b != 0.0));
    LEARNED_SGD.check(relative_l2(&b, &expected), "B at a tiny rate");
}

#[test]
fn the_seed_fixes_everything() {
    let fixture = fixture();
    let model = fixture.model();
    let how = How { dropout: 0.2, accumulate: 4, ..PLAIN };
    let run = |how| train(&model, ADAMW, how, &data(80, 4), |l, losses| (state(l), losses));
    assert_eq!(run(how), run(how));
    assert_ne!(run(how).0, run(How { seed: 4, ..how }).0);
    // The mask alone: A's initial values have their own stream.
    assert_ne!(run(how).0, run(How { dropout: 0.0, ..how }).0);
}
