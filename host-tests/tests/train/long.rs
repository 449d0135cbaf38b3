//! Hundreds of steps and thousands.

use super::{ADAMW, How, PLAIN, SGD, by_oracle, data, fixture, pairs, parameters, train};
use ranklet::fixed::Real;
use ranklet::train::{Learner, Sgd};
use ranklet_host_tests::fixture::{Sample, relative_l2};
use ranklet_host_tests::tolerance::LEARNED_SGD;

#[test]
fn five_hundred_steps_learn_and_nothing_saturates() {
    let fixture = fixture();
    let model = fixture.model();
    let before = fixture.bytes().to_vec();
    let crc = model.payload_crc_now();
    // A task that an adapter can learn: the class is the largest of the first four features.
    let mut samples = data(120, 11);
    for s in &mut samples {
        s.class = (0..4).fold(0, |b, i| if s.raw[i] > s.raw[b] { i } else { b });
    }
    let long: Vec<Sample> = samples.iter().cycle().take(2400).cloned().collect();
    let check = |name: &str, l: &Learner<'_>, losses: &[f64]| {
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..120]), mean(&losses[losses.len() - 120..]));
        assert!(l.steps() >= 500 && last < 0.5 * first, "{name}: {first} became {last} in {} steps", l.steps());
        for (p, r) in pairs(l).iter().zip(l.records()) {
            for (plane, exponent, values) in
                [(r.a_of(l.high()), r.a_exponent, &p.a), (r.b_of(l.high()), r.b_exponent, &p.b)]
            {
                let peak = plane.iter().map(|h| h.unsigned_abs()).max().unwrap_or(0);
                assert!((1 << 13..=1 << 14).contains(&peak) && exponent > -60, "{name}: {peak} · 2^{exponent}");
                assert!(values.iter().all(|v| v.abs() < 10.0), "{name}");
            }
        }
    };
    let how = How { accumulate: 4, ..PLAIN };
    train(&model, ADAMW, how, &long, |l, losses| check("AdamW", l, &losses));
    train(&model, SGD, how, &long, |l, losses| check("SGD", l, &losses));
    assert_eq!((fixture.bytes(), model.payload_crc_now()), (&before[..], crc), "nothing has written the base");
}

#[test]
fn two_thousand_steps_keep_the_masters_normal() {
    let fixture = fixture();
    let model = fixture.model();
    let mut samples = data(100, 17);
    for s in &mut samples {
        s.class = (0..4).fold(0, |b, i| if s.raw[i] > s.raw[b] { i } else { b });
    }
    let long: Vec<Sample> = samples.iter().cycle().take(2000).cloned().collect();
    let check = |name: &str, l: &Learner<'_>, losses: &[f64]| {
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(l.steps() == 2000 && losses.iter().all(|l| l.is_finite()), "{name}");
        let (first, last) = (mean(&losses[..100]), mean(&losses[1900..]));
        assert!(last < 0.5 * first, "{name}: {first} became {last}");
        let peak = |high: &[i16], low: &[i16]| {
            high.iter().zip(low).map(|(&h, &l)| (i64::from(h) * 65536 + i64::from(l)).abs()).max().unwrap_or(0)
        };
        for r in l.records() {
            for peak in [peak(r.a_of(l.high()), r.a_of(l.low())), peak(r.b_of(l.high()), r.b_of(l.low()))] {
                assert!((1 << 29..1 << 30).contains(&peak), "{name}: a master of {peak}");
            }
        }
    };
    train(&model, ADAMW, PLAIN, &long, |l, losses| check("AdamW", l, &losses));
    // One sample a step: at eight times this rate the float oracle diverges as well, so nothing could be asked.
    let slower = Sgd { lr: Real::ratio(1, 1600), ..SGD };
    train(&model, slower, PLAIN, &long, |l, losses| {
        check("SGD", l, &losses);
        LEARNED_SGD.check(
            relative_l2(&parameters(&pairs(l)), &by_oracle(&fixture, slower.into(), PLAIN, &long)),
            "A and B after 2000 steps",
        );
    });
}
