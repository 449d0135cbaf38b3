//! Long trainings of a transformer: nothing drifts, sticks or overflows (tests are built with checked arithmetic).
//!
//! A thousand steps here; a hundred thousand by `cargo test --release -p ranklet-host-tests --test long -- --ignored --nocapture`, which
//! `cargo xtask test --exhaustive` runs too (in release, without the checks: three minutes).

use ranklet::fixed::hash::{Purpose, Seed, Stream};
use ranklet::fixed::{Exp, Real};
use ranklet::model::{Plan, Sequence, Train, Workspace};
use ranklet::train::{AdamW, Learner, Rule, SequenceTarget, Sgd, Trainer};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::transformer::{image, llama};

const TOKENS: usize = 8;

/// Texts in which a token tells the next, but for one in eight, which nothing tells: there is always something to be wrong about.
fn text(n: u32) -> [u32; TOKENS] {
    let stream = Stream::new(Seed(5), Purpose::Shuffle, n, 0);
    let mut id = stream.at(0) % 50;
    std::array::from_fn(|i| {
        let here = id;
        id = if stream.at(2 * i as u32 + 1) >> 29 == 0 { stream.at(2 * i as u32 + 2) % 50 } else { (id * 7 + 3) % 50 };
        here
    })
}

/// The largest |A| and |B| of all layers.
fn largest(l: &Learner<'_>) -> f64 {
    let value = |plane: &[i16], exponent: i16| {
        let peak = plane.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        f64::from(peak) * 2_f64.powi(i32::from(exponent) + 16)
    };
    let of = |r: &ranklet::image::LoraRecord| {
        let [a, b] = [(r.a_of(l.high()), r.a_exponent), (r.b_of(l.high()), r.b_exponent)];
        [a, b].map(|(plane, e)| if e == Exp::ZERO.0 { 0.0 } else { value(plane, e) }).into_iter().fold(0.0, f64::max)
    };
    l.records().iter().map(of).fold(0.0, f64::max)
}

/// Trains; the mean loss of every tenth of the steps, and the largest parameter at the end of it.
fn run(rule: Rule, steps: u32) -> Vec<(f64, f64)> {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let model = file.model().expect("a model");
    let room = if matches!(rule, Rule::AdamW(_)) { Train::adamw() } else { Train::momentum() };
    let plan = Plan::new(file.bytes()).expect("a plan").tokens(TOKENS).train(room.rank(4));
    let mut memory = vec![0; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    let mut trainer = Trainer::new(&model, &mut learner, rule).expect("a trainer").seed(Seed(4)).clip(Real::ONE);
    let part = steps / 10;
    (0..10)
        .map(|tenth| {
            let mut sum = 0.0;
            for n in tenth * part..(tenth + 1) * part {
                trainer.sequence(Sequence::tokens(&text(n)), SequenceTarget::Next, &mut scratch).expect("a sample");
                sum += trainer.step(&mut scratch).expect("its units").to_f64();
            }
            (sum / f64::from(part), largest(trainer.learner()))
        })
        .collect()
}

fn check(name: &str, told: &[(f64, f64)]) {
    for (tenth, (loss, largest)) in told.iter().enumerate() {
        println!("{name}, tenth {}: loss {loss:.4}, largest parameter {largest:.3}", tenth + 1);
    }
    let losses: Vec<f64> = told.iter().map(|t| t.0).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    // It learns, stays as good as it was, and its parameters do not run away.
    assert!(best < 0.8 * losses[0] || best < 1.2, "{losses:?}");
    assert!(losses[9] < 1.15 * best, "it drifts: {losses:?}");
    assert!(told.iter().all(|t| t.1 < 64.0), "{told:?}");
}

fn rules() -> [(&'static str, Rule); 2] {
    let adamw = AdamW { lr: Real::ratio(1, 500), weight_decay: Real::ratio(1, 100), ..AdamW::DEFAULT };
    let sgd = Sgd { lr: Real::ratio(1, 400), ..Sgd::DEFAULT };
    [("AdamW", Rule::AdamW(adamw)), ("SGD", Rule::Sgd(sgd))]
}

#[test]
fn a_thousand_steps() {
    for (name, rule) in rules() {
        check(name, &run(rule, 1_000));
    }
}

#[test]
#[ignore = "minutes in release"]
fn a_hundred_thousand_steps() {
    for (name, rule) in rules() {
        check(name, &run(rule, 100_000));
    }
}
