//! What training promises: from B = 0, by the seed alone, bit for bit; and beside the float oracle.

use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::layer::normalize::Input;
use ranklet::model::{Model, Train};
use ranklet::q;
use ranklet::train::{AdamW, Learner, Optimizer, Rule, Schedule, Sgd, Target, TrainError, Trainer};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::{AdapterFixture, Desk, Fixture, Sample, infer, pairs_of, relative_l2, save};
use ranklet_host_tests::oracle::{self, Pair};
use ranklet_host_tests::tolerance::{LEARNED_ADAMW, LEARNED_SGD, MERGED};

fn fixture() -> Fixture {
    Fixture::random(&[12, 20, 4], WeightType::I8, 81)
}

fn data(n: usize, seed: u64) -> Vec<Sample> {
    let mut d = Draw::new(seed);
    (0..n).map(|_| Sample::random(12, 4, &mut d)).collect()
}

/// Everything that a learner has learned, to be compared bit for bit.
fn state(l: &Learner<'_>) -> (Vec<ranklet::image::LoraRecord>, Vec<i16>, Vec<i16>) {
    (l.records().to_vec(), l.high().to_vec(), l.low().to_vec())
}

fn pairs(l: &Learner<'_>) -> Vec<Pair<f64>> {
    pairs_of(l.records(), l.high(), l.low())
}

fn parameters(pairs: &[Pair<f64>]) -> Vec<f64> {
    pairs.iter().flat_map(|p| p.a.iter().chain(&p.b).copied()).collect()
}

/// How a training is set up, for both sides.
#[derive(Clone, Copy)]
struct How {
    rank: u16,
    accumulate: u32,
    clip: Option<f64>,
    schedule: (Schedule, oracle::Schedule),
    dropout: f64,
    seed: u32,
}

const PLAIN: How = How {
    rank: 4,
    accumulate: 1,
    clip: None,
    schedule: (Schedule::Constant, oracle::Schedule::Constant),
    dropout: 0.0,
    seed: 3,
};

const ADAMW: AdamW = AdamW { lr: Real::ratio(1, 500), ..AdamW::DEFAULT };
const SGD: Sgd = Sgd { lr: Real::ratio(1, 200), ..Sgd::DEFAULT };

/// Trains on `samples`; hands the learner and the losses to `then`.
fn train<O: Optimizer, R>(
    model: &Model<'_>,
    optimizer: O,
    how: How,
    samples: &[Sample],
    then: impl FnOnce(&mut Learner<'_>, Vec<f64>) -> R,
) -> R {
    let mut desk = Desk::new(model, Some(Train::adamw().rank(how.rank).alpha(8).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(model, Seed(how.seed)).expect("planned for it");
    let mut t = Trainer::new(model, &mut learner, optimizer).expect("planned for it");
    t = t.accumulate(how.accumulate).schedule(how.schedule.0).seed(Seed(how.seed));
    t = t.clip(how.clip.map_or(Real::ZERO, Real::from_f64));
    t = t.dropout(Real::from_f64(how.dropout)).expect("planned for it");
    let losses = samples.iter().map(|x| {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units").to_f64()
    });
    let losses = losses.collect();
    then(&mut learner, losses)
}

/// The same by the oracle, from the same start.
fn by_oracle(fixture: &Fixture, optimizer: oracle::Optimizer, how: How, samples: &[Sample]) -> Vec<f64> {
    let start = train(&fixture.model(), SGD, how, &[], |l, _| pairs(l));
    let mut t = oracle::Trainer::new(fixture.dequantized(), start, optimizer);
    (t.accumulate, t.clip, t.schedule) = (how.accumulate as usize, how.clip, how.schedule.1);
    t.dropout = (how.dropout > 0.0).then_some((how.dropout, Seed(how.seed)));
    for x in samples {
        t.sample(&x.values(), &oracle::Target::Class(x.class));
    }
    parameters(&t.pairs)
}

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

#[test]
fn what_is_saved_comes_back() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(40, 10);
    let (saved, trained) = train(&model, ADAMW, PLAIN, &samples, |l, _| (save(l), state(l)));
    let adapter = ranklet::model::Adapter::open(&model, saved.bytes()).expect("a sound image");
    assert!(adapter.same_image());
    assert_eq!((adapter.records().to_vec(), adapter.high().to_vec(), adapter.low().to_vec()), trained);
    let live = train(&model, ADAMW, PLAIN, &samples, |l, _| infer(&model, &samples[0], &[l.view()]));
    assert_eq!(infer(&model, &samples[0], &[adapter.view()]), live, "in flash as in RAM");

    let mut desk = Desk::new(&model, Some(Train::adamw().rank(6)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.resume(&model, &adapter).expect("planned for more");
    assert_eq!(state(&learner), trained, "resumed: the same A and B");
    assert_eq!(save(&learner).bytes(), saved.bytes(), "and the same image again");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
    t.sample(samples[0].input(), samples[0].target(), &mut scratch).expect("a sample");
    t.step(&mut scratch).expect("its units");
    assert_ne!(state(&learner), trained, "and it goes on");
}

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
fn adapters_switch_as_separately_merged_models_would() {
    let fixture = fixture();
    let model = fixture.model();
    let net = fixture.dequantized();
    let (one, two) = (data(150, 12), data(150, 13));
    let learn =
        |samples: &[Sample], seed| train(&model, ADAMW, How { seed, ..PLAIN }, samples, |l, _| (save(l), pairs(l)));
    let (first, first_pairs) = learn(&one, 1);
    let (second, second_pairs) = learn(&two, 2);
    let open = |file: &'_ ranklet_cli::image::ImageFile| -> Vec<f64> {
        let a = ranklet::model::Adapter::open(&model, file.bytes()).expect("a sound image");
        one.iter().flat_map(|x| infer(&model, x, &[a.view()])).collect()
    };
    let merged = |pairs: &[Pair<f64>]| -> Vec<f64> {
        let net = net.merged(pairs);
        one.iter().flat_map(|x| net.run(&x.values(), &[])).collect()
    };
    let (a, b, again) = (open(&first), open(&second), open(&first));
    assert_eq!(a, again, "back to the first, bit for bit");
    let none: Vec<f64> = one.iter().flat_map(|x| infer(&model, x, &[])).collect();
    assert!(relative_l2(&a, &b) > 0.05 && relative_l2(&a, &none) > 0.05, "they do differ");
    MERGED.check(relative_l2(&a, &merged(&first_pairs)), "the first");
    MERGED.check(relative_l2(&b, &merged(&second_pairs)), "the second");
    MERGED.check(relative_l2(&none, &merged(&[])), "none");
}

#[test]
fn an_adapter_without_its_low_plane_is_not_resumed() {
    let fixture = fixture();
    let model = fixture.model();
    let adapter = AdapterFixture::random(&model, 4, 0.5, 2.0, 91);
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(2)));
    let (_, learn) = desk.split();
    let refused = learn.resume(&model, &adapter.open(&model)).map(|_| ());
    assert!(matches!(refused, Err(ranklet::train::LearnError::Rank { found: 4, limit: 2 })), "{refused:?}");
    let bytes = adapter.high_only(&model);
    let image = ranklet::model::Adapter::open(&model, bytes.bytes()).expect("usable");
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4)));
    let (_, learn) = desk.split();
    let refused = learn.resume(&model, &image).map(|_| ());
    assert_eq!(refused, Err(ranklet::train::LearnError::NoLowPlane));
}

#[test]
fn a_scaling_that_no_image_holds_is_refused() {
    use ranklet::image::record::RecordProblem;
    use ranklet::model::AdapterError;
    use ranklet::train::LearnError;
    let fixture = fixture();
    let model = fixture.model();
    for (by, refused) in [(0, false), (1000, false), (1100, true), (-900, false), (-1100, true)] {
        let mut desk = Desk::new(&model, Some(Train::sgd().rank(4).scaling(Real::ONE.scale(by))));
        let (_, learn) = desk.split();
        match learn.fresh(&model, Seed(1)) {
            Ok(l) => {
                assert!(!refused, "2^{by}");
                let saved = save(&l);
                assert!(ranklet::model::Adapter::open(&model, saved.bytes()).is_ok(), "2^{by}");
            }
            Err(e) => {
                let problem = RecordProblem::Exponent;
                assert_eq!((e, refused), (LearnError::Adapter(AdapterError::Record { index: 0, problem }), true));
            }
        }
    }
}

/// One sample's gradients, as the learner holds them: A and B of every record, in floats.
fn gradients(l: &Learner<'_>) -> Vec<f64> {
    let wide = |(g, e): (&[i32], i32)| -> Vec<f64> {
        g.iter().map(|&g| if g == 0 { 0.0 } else { f64::from(g) * f64::from(e).exp2() }).collect()
    };
    (0..l.records().len()).flat_map(|i| l.gradient(i).expect("a record").into_iter().flat_map(wide)).collect()
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

/// Several adapters add up; factors scale, subtract and switch off, as the same changes to merged weights would.
#[test]
fn adapters_sum_and_scale_as_merged_models_would() {
    let fixture = fixture();
    let model = fixture.model();
    let net = fixture.dequantized();
    let samples = data(150, 18);
    let images = [93, 94].map(|seed| AdapterFixture::random(&model, 4, 0.5, 2.0, seed));
    let [first, second] = images.each_ref().map(|i| i.open(&model));
    let scaled = |a: &ranklet::model::Adapter<'_>, by: f64| -> Vec<Pair<f64>> {
        let mut pairs = ranklet_host_tests::fixture::adapter::high_pairs(a);
        pairs.iter_mut().for_each(|p| p.scaling *= by);
        pairs
    };
    let run = |active: &[ranklet::model::Active<'_>]| -> Vec<f64> {
        samples.iter().flat_map(|x| infer(&model, x, active)).collect()
    };
    for (f, s) in [(1.0, 1.0), (0.5, 1.0), (-1.0, 0.25), (0.0, 2.0), (0.0, 0.0)] {
        let found = run(&[first.scaled(Real::from_f64(f)), second.scaled(Real::from_f64(s))]);
        let merged = net.merged(&scaled(&first, f)).merged(&scaled(&second, s));
        let expected: Vec<f64> = samples.iter().flat_map(|x| merged.run(&x.values(), &[])).collect();
        MERGED.check(relative_l2(&found, &expected), &format!("{f} of the first and {s} of the second"));
    }
    let off = Real::ZERO;
    assert_eq!(run(&[first.scaled(off), second.scaled(off)]), run(&[]), "switched off is absent, bit for bit");
    assert_eq!(run(&[first.view(), second.scaled(off)]), run(&[first.view()]));
}
