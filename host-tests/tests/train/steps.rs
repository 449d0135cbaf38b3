//! Options, batches and clipping, beside the float oracle.

use super::{ADAMW, How, PLAIN, SGD, by_oracle, data, fixture, gradients, pairs, parameters, state, train};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::{Model, Train};
use ranklet::q;
use ranklet::train::{AdamW, Schedule, Sgd, Trainer};
use ranklet_host_tests::fixture::{AdapterFixture, Desk, Sample, relative_l2};
use ranklet_host_tests::oracle::{self};
use ranklet_host_tests::tolerance::{LEARNED_ADAMW, LEARNED_SGD};

/// Core and oracle after a few steps: every option, alone and together, with both optimizers.
#[test]
fn options_are_the_oracles() {
    let fixture = fixture();
    let model = fixture.model();
    let linear = (Schedule::Linear { warmup: 3, total: 9 }, oracle::Schedule::Linear(3, 9));
    let options = [
        ("plain", PLAIN),
        ("accumulated", How { accumulate: 5, ..PLAIN }),
        ("clipped", How { clip: Some(0.5), ..PLAIN }),
        ("hardly clipped", How { clip: Some(1e6), ..PLAIN }),
        ("warmed up", How { schedule: (Schedule::Warmup { warmup: 6 }, oracle::Schedule::Warmup(6)), ..PLAIN }),
        ("linear", How { schedule: linear, ..PLAIN }),
        ("dropout", How { dropout: 0.3, ..PLAIN }),
        ("rank 1", How { rank: 1, ..PLAIN }),
        ("rank beyond the dimensions", How { rank: 64, ..PLAIN }),
        ("all", How { accumulate: 4, clip: Some(0.3), schedule: linear, dropout: 0.1, ..PLAIN }),
    ];
    for (what, how) in options {
        let samples = data(10 * how.accumulate as usize, 7);
        let start = train(&model, SGD, how, &[], |l, _| parameters(&pairs(l)));
        let moved = |after: &[f64]| -> Vec<f64> { after.iter().zip(&start).map(|(a, b)| a - b).collect() };
        let decayed = AdamW { weight_decay: q!(0.1), ..ADAMW };
        let sgd_decayed = Sgd { weight_decay: q!(0.1), ..SGD };
        let cases: [(&str, Vec<f64>, oracle::Optimizer); 4] = [
            ("SGD", train(&model, SGD, how, &samples, |l, _| parameters(&pairs(l))), SGD.into()),
            (
                "SGD, decayed",
                train(&model, sgd_decayed, how, &samples, |l, _| parameters(&pairs(l))),
                sgd_decayed.into(),
            ),
            ("AdamW", train(&model, ADAMW, how, &samples, |l, _| parameters(&pairs(l))), ADAMW.into()),
            ("AdamW, decayed", train(&model, decayed, how, &samples, |l, _| parameters(&pairs(l))), decayed.into()),
        ];
        for (name, fixed, rule) in cases {
            // What was learned, not where it started.
            let error = relative_l2(&moved(&fixed), &moved(&by_oracle(&fixture, rule, how, &samples)));
            println!("{name}, {what}: {error:.2e}");
            let tolerance = if name.starts_with("SGD") { LEARNED_SGD } else { LEARNED_ADAMW };
            tolerance.check(error, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn accumulating_is_a_bigger_batch_whatever_the_order() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(8, 8);
    let mut turned = samples.clone();
    turned.reverse();
    let how = How { accumulate: 8, ..PLAIN };
    let run = |s: &[Sample]| train(&model, SGD, how, s, |l, _| parameters(&pairs(l)));
    let start = run(&[]);
    let moved = |after: Vec<f64>| -> Vec<f64> { after.iter().zip(&start).map(|(a, b)| a - b).collect() };
    let (a, b) = (moved(run(&samples)), moved(run(&turned)));
    assert!(relative_l2(&a, &b) < 1e-6, "{}", relative_l2(&a, &b));
    // And twice the same sample is that sample once.
    let twice =
        moved(train(&model, SGD, How { accumulate: 2, ..PLAIN }, &[samples[0].clone(), samples[0].clone()], |l, _| {
            parameters(&pairs(l))
        }));
    let once = moved(train(&model, SGD, PLAIN, &samples[..1], |l, _| parameters(&pairs(l))));
    assert!(relative_l2(&twice, &once) < 1e-6, "{}", relative_l2(&twice, &once));
}

#[test]
fn flush_steps_with_what_there_is() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(5, 9);
    let full = train(&model, ADAMW, How { accumulate: 5, ..PLAIN }, &samples, |l, _| state(l));
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4).alpha(8).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(3)).expect("planned for it");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(8).seed(Seed(3));
    for x in &samples {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    t.flush().expect("idle");
    t.step(&mut scratch).expect("its units");
    t.flush().expect("idle");
    t.step(&mut scratch).expect("nothing to do");
    assert_eq!((learner.steps(), state(&learner)), (1, full));
}

/// Collects the gradients of `samples` without a step, from a start where both A and B are alive.
fn collected(model: &Model<'_>, start: &AdapterFixture, samples: &[Sample]) -> Vec<f64> {
    let mut desk = Desk::new(model, Some(Train::adamw().rank(4)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.resume(model, &start.open(model)).expect("of the planned rank");
    let mut t = Trainer::new(model, &mut learner, SGD).expect("a trainer").accumulate(1000);
    for x in samples {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    gradients(&learner)
}

#[test]
fn accumulated_gradients_are_the_sum() {
    let fixture = fixture();
    let model = fixture.model();
    let start = AdapterFixture::random(&model, 4, 0.5, 2.0, 92);
    let samples = data(7, 14);
    let mut sum = vec![];
    for x in &samples {
        let one = collected(&model, &start, std::slice::from_ref(x));
        sum.resize(one.len(), 0.0);
        sum.iter_mut().zip(one).for_each(|(s, g): (&mut f64, f64)| *s += g);
    }
    assert!(sum.iter().any(|&g| g != 0.0));
    let error = relative_l2(&collected(&model, &start, &samples), &sum);
    assert!(error < 1e-6, "32-bit accumulators lose next to nothing: {error:.2e}");
}

#[test]
fn clipping_limits_the_update() {
    let fixture = fixture();
    let model = fixture.model();
    let plain = Sgd { momentum: Real::ZERO, ..SGD };
    let moved = |clip| -> Vec<f64> {
        let how = How { clip, ..PLAIN };
        let start = train(&model, plain, how, &[], |l, _| parameters(&pairs(l)));
        let after = train(&model, plain, how, &data(1, 15), |l, _| parameters(&pairs(l)));
        after.iter().zip(&start).map(|(a, b)| a - b).collect()
    };
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let free = moved(None);
    let gradient = norm(&free) / plain.lr.to_f64();
    for part in [0.5, 0.01, 1e-4] {
        let clipped = moved(Some(part * gradient));
        assert!((norm(&clipped) / norm(&free) / part - 1.0).abs() < 1e-3, "{part} of the norm");
        let turned: Vec<f64> = clipped.iter().map(|v| v / part).collect();
        assert!(relative_l2(&turned, &free) < 1e-3, "shorter, not turned");
    }
    assert_eq!(moved(Some(2.0 * gradient)), free, "what is within the limit is left alone");
}
