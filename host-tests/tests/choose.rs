//! What learns can be chosen: by layer and by matrix, at run time; and B alone by plan.

use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::spec::{Stack, Transformer};
use ranklet::model::{Model, Plan, Roles, Scratch, Sequence, Train, Workspace};
use ranklet::train::{AdamW, ChooseError, Half, Learner, SequenceTarget, Sgd, Trainer};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::AdapterFixture;
use ranklet_host_tests::fixture::transformer::{bert, image, llama, sensor, t5};

const ADAMW: AdamW = AdamW { lr: Real::ratio(1, 50), ..AdamW::DEFAULT };
/// Gradients that add up and never become a step.
const GATHER: Sgd = Sgd { lr: Real::ZERO, momentum: Real::ZERO, weight_decay: Real::ZERO };
const IDS: [u32; 10] = [3, 17, 42, 5, 9, 30, 21, 8, 1, 44];

fn plan(file: &ImageFile, train: Train) -> Plan<'_> {
    Plan::new(file.bytes()).expect("a plan").tokens(10).source(10).train(train)
}

type Pairs = Vec<[Vec<i16>; 4]>;

/// Both planes of A and of B, by record.
fn planes(l: &Learner<'_>) -> Pairs {
    let of = |r: &ranklet::image::LoraRecord| {
        [r.a_of(l.high()), r.a_of(l.low()), r.b_of(l.high()), r.b_of(l.low())].map(<[i16]>::to_vec)
    };
    l.records().iter().map(of).collect()
}

type Gradients = Vec<[(Vec<i32>, i32); 2]>;

fn gradients(l: &Learner<'_>) -> Gradients {
    (0..l.records().len()).map(|i| l.gradient(i).expect("a record").map(|(v, e)| (v.to_vec(), e))).collect()
}

/// Gives a sample of whatever the model takes, and runs its units; how many there were.
fn lesson<O: ranklet::train::Optimizer>(
    t: &mut Trainer<'_, '_, '_, O>,
    model: &Model<'_>,
    scratch: &mut Scratch<'_>,
) -> u32 {
    let ids = Sequence::tokens(&IDS);
    let has_cross = model.spec().transformer().expect("a transformer").has_cross();
    let target = SequenceTarget::Pooled(ranklet::train::Target::Class(1));
    let given = if has_cross { t.pair(ids, ids, target, scratch) } else { t.sequence(ids, target, scratch) };
    given.expect("a sample");
    let mut units = 1;
    while t.advance(scratch).expect("a unit").more() {
        units += 1;
    }
    units
}

/// One sample's gradients with a choice, and how many units it took.
fn gathered(file: &ImageFile, train: Train, learns: impl Fn(u16, Half) -> bool) -> (Gradients, u32) {
    let model = file.model().expect("a model");
    let adapter = AdapterFixture::random(&model, 3, 0.2, 1.0, 5);
    let plan = plan(file, train.rank(3));
    let mut memory = vec![0xA5; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.resume(&model, &adapter.open(&model)).expect("a learner");
    learner.choose(learns).expect("something learns");
    let mut trainer = Trainer::new(&model, &mut learner, GATHER).expect("a trainer").accumulate(9);
    let units = lesson(&mut trainer, &model, &mut scratch);
    (gradients(&learner), units)
}

/// What is chosen has the gradients that it has where everything learns, all others have none; the higher the lowest, the less
/// there is to do.
#[test]
fn the_chosen_have_the_same_gradients() {
    for (spec, t) in [llama(), bert(), t5()] {
        let file = image(spec, t, WeightType::I8, 7);
        let sites = file.model().expect("a model").spec().linears;
        let (all, most) = gathered(&file, Train::sgd(), |_, _| true);
        let mut last = most;
        for lowest in [1, sites / 3, sites / 2, sites - 2, sites - 1] {
            for half in [None, Some(Half::A), Some(Half::B)] {
                let learns = |site, of| site >= lowest && half.is_none_or(|h| h == of);
                let (found, units) = gathered(&file, Train::sgd(), learns);
                for (site, (found, all)) in found.iter().zip(&all).enumerate() {
                    for (of, (found, all)) in [Half::A, Half::B].into_iter().zip(found.iter().zip(all)) {
                        if learns(site as u16, of) {
                            assert_eq!(found, all, "layer {site} of those from {lowest} on");
                        } else {
                            assert!(found.0.iter().all(|&v| v == 0));
                        }
                    }
                }
                assert!(units <= last, "{units} units from layer {lowest} on");
                last = units;
            }
        }
        assert!(last < most);
    }
}

/// What is not chosen keeps its bits, in training with AdamW; and learns when it is chosen again.
#[test]
fn what_is_not_chosen_stays() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let model = file.model().expect("a model");
    let plan = plan(&file, Train::adamw().rank(3));
    let mut memory = vec![0xA5; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    let steps = |learner: &mut Learner<'_>, scratch: &mut Scratch<'_>| {
        for _ in 0..3 {
            let mut trainer = Trainer::new(&model, learner, ADAMW).expect("a trainer").clip(Real::ONE);
            trainer.sequence(Sequence::tokens(&IDS), SequenceTarget::Next, scratch).expect("a sample");
            trainer.step(scratch).expect("its units");
        }
    };
    for learns in [
        (|site, _| site % 7 == 2) as fn(u16, Half) -> bool,
        |_, half| half == Half::B,
        |site, half| site > 6 && half == Half::A,
        |_, _| true,
    ] {
        learner.choose(learns).expect("something learns");
        let before = planes(&learner);
        steps(&mut learner, &mut scratch);
        for (r, (before, after)) in learner.records().iter().zip(before.iter().zip(&planes(&learner))) {
            let changed = [before[..2] != after[..2], before[2..] != after[2..]];
            assert_eq!(changed, [learns(r.site, Half::A), learns(r.site, Half::B)], "layer {}", r.site);
        }
    }
}

/// By plan: less memory, no gradient of A, and of B the one there is otherwise.
#[test]
fn b_alone_takes_less() {
    for (spec, t) in [llama(), t5()] {
        let file = image(spec, t, WeightType::I8, 7);
        let (all, _) = gathered(&file, Train::sgd(), |_, _| true);
        let (found, _) = gathered(&file, Train::sgd().only_b(), |_, _| true);
        for ([a, b], [_, expected]) in found.iter().zip(&all) {
            assert!(a.0.is_empty() && b == expected);
        }
        let bytes = |train: Train| plan(&file, train).learn_bytes();
        let a: usize = file
            .model()
            .map_or(0, |m| (0..m.spec().linears).filter_map(|s| m.linear_spec(s)).map(|l| 8 * l.inputs).sum());
        let (with, without) = (bytes(Train::adamw().rank(8)), bytes(Train::adamw().rank(8).only_b()));
        // Gradient and two moments, 8 bytes an element, but for alignment.
        assert!(with - without <= 8 * a && with - without + 48 >= 8 * a, "{with} {without} {a}");

        let model = file.model().expect("a model");
        let plan = plan(&file, Train::adamw().rank(4).only_b());
        let mut memory = vec![0xA5; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
        let before = planes(&learner);
        let mut losses = vec![];
        let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
        for _ in 0..25 {
            let (ids, class) = (Sequence::tokens(&IDS), ranklet::train::Target::Class(1));
            let target = if t.has_cross() { SequenceTarget::Pooled(class) } else { SequenceTarget::Next };
            if t.has_cross() {
                trainer.pair(ids, ids, target, &mut scratch).expect("a sample");
            } else {
                trainer.sequence(ids, target, &mut scratch).expect("a sample");
            }
            losses.push(trainer.step(&mut scratch).expect("its units").to_f64());
        }
        assert!(losses[24] < 0.5 * losses[0], "{losses:?}");
        for (before, after) in before.iter().zip(&planes(&learner)) {
            assert!(before[..2] == after[..2] && before[2..] != after[2..]);
        }
    }
}

#[test]
fn nothing_is_no_choice() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let model = file.model().expect("a model");
    for (train, learns) in [
        (Train::sgd().rank(2), (|_, _| false) as fn(u16, Half) -> bool),
        (Train::sgd().rank(2).only_b(), |_, half| half == Half::A),
    ] {
        let plan = plan(&file, train);
        let mut memory = vec![0; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
        assert_eq!(learner.choose(learns), Err(ChooseError::Nothing));
        let mut trainer = Trainer::new(&model, &mut learner, GATHER).expect("a trainer");
        trainer.sequence(Sequence::tokens(&IDS), SequenceTarget::Next, &mut scratch).expect("a sample");
        let _ = trainer.advance(&mut scratch).expect("a unit");
        assert_eq!(learner.choose(|_, _| true), Err(ChooseError::Busy));
    }
}

/// With accumulators for one block alone: the same A and B to the bit, whatever learns; and what needs all gradients is refused.
#[test]
fn a_step_block_by_block_is_the_same_step() {
    for (spec, t) in [llama(), bert(), t5(), sensor()] {
        let file = image(spec, t, WeightType::I8, 7);
        let model = file.model().expect("a model");
        for choice in
            [(|_, _| true) as fn(u16, Half) -> bool, |site, _| site > 5, |site, half| site % 3 == 0 && half == Half::B]
        {
            let run = |train: Train| {
                let plan = plan(&file, train.rank(3).dropout());
                let mut memory = vec![0xA5; plan.bytes() + 15];
                let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
                let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
                learner.choose(choice).expect("something learns");
                for _ in 0..6 {
                    let trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").seed(Seed(8));
                    let mut trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned for it");
                    if t.vocab > 0 {
                        lesson(&mut trainer, &model, &mut scratch);
                    } else {
                        let samples: Vec<i16> = (0..50).map(|i| (i * 37 % 101) * 300 - 15_000).collect();
                        let window = Sequence::features(
                            ranklet::layer::normalize::Input::i16(&samples, ranklet::fixed::Exp(-14)),
                            10,
                        );
                        let target = SequenceTarget::Pooled(ranklet::train::Target::Class(1));
                        trainer.sequence(window, target, &mut scratch).expect("a sample");
                        trainer.step(&mut scratch).expect("its units");
                    }
                }
                assert_eq!(learner.steps(), 6);
                (planes(&learner), plan.learn_bytes())
            };
            let (together, more) = run(Train::adamw());
            let (apart, less) = run(Train::adamw().immediate());
            assert!(together == apart, "{:?}", t.position);
            assert!(less < more, "{less} {more}");
            let (b, least) = run(Train::adamw().immediate().only_b());
            let (expected, _) = run(Train::adamw().only_b());
            assert!(b == expected && least < less);
        }
    }
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let model = file.model().expect("a model");
    let plan = plan(&file, Train::adamw().rank(3).immediate());
    let mut memory = vec![0; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    for together in [true, false] {
        let trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
        let mut trainer = if together { trainer.accumulate(2) } else { trainer.clip(Real::ONE) };
        let given = trainer.sequence(Sequence::tokens(&IDS), SequenceTarget::Next, &mut scratch);
        assert_eq!(given, Err(ranklet::train::TrainError::Immediate));
    }
    // An adapter whose pairs are in one block needs more accumulators than its plan has.
    let few =
        Plan::new(file.bytes()).expect("a plan").tokens(10).train(Train::adamw().rank(3).on(Roles::Q).immediate());
    let pairs = AdapterFixture::random(&model, 1, 0.2, 1.0, 5);
    let mut memory = vec![0; few.bytes() + 15];
    let (_, learn) = Workspace::new(&mut memory).split(&few).expect("planned");
    assert!(learn.resume(&model, &pairs.open(&model)).is_err());
}

/// Where the upper blocks alone learn, what the lower ones give is kept from the first time on: the same A and B to the bit, in
/// fewer units; and a prefix of another block or length is refused.
#[test]
fn a_prefix_that_is_kept_changes_no_bit() {
    type Kept = (Vec<i16>, Vec<ranklet::fixed::Exp>, u16);
    for (spec, t) in [llama(), bert(), sensor()] {
        let file = image(spec, t, WeightType::I8, 7);
        let model = file.model().expect("a model");
        let sites = model.spec().linears;
        let samples: Vec<Vec<i16>> =
            (0..3).map(|n| (0..50).map(|i| ((i + 11 * n) * 37 % 101) * 300 - 15_000).collect()).collect();
        let texts: Vec<Vec<u32>> = (0..3).map(|n| (0..10).map(|i| (i * 7 + n * 3 + 1) % 40).collect()).collect();
        let sequence = |n: usize| {
            if t.vocab > 0 {
                Sequence::tokens(&texts[n])
            } else {
                Sequence::features(ranklet::layer::normalize::Input::i16(&samples[n], ranklet::fixed::Exp(-14)), 10)
            }
        };
        for lowest in [sites / 2, sites - 1] {
            let run = |keep: bool| {
                let plan = plan(&file, Train::adamw().rank(3).dropout().immediate());
                let mut memory = vec![0xA5; plan.bytes() + 15];
                let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
                // Pairs that do something, above and below.
                let pairs = AdapterFixture::random(&model, 3, 0.2, 1.0, 5);
                let mut learner = learn.resume(&model, &pairs.open(&model)).expect("a learner");
                learner.choose(|site, _| site >= lowest).expect("something learns");
                let trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").seed(Seed(8));
                let mut trainer = trainer;
                let mut kept: Vec<Option<Kept>> = vec![None; 3];
                let (mut units, mut losses) = (0, vec![]);
                for n in [0, 1, 2, 1, 0, 2, 2, 0] {
                    let target = SequenceTarget::Pooled(ranklet::train::Target::Class(n % 2));
                    match &kept[n] {
                        Some((mantissas, exponents, block)) => {
                            let prefix = ranklet::train::Prefix { mantissas, exponents, block: *block };
                            trainer.behind(prefix, sequence(n), target, &mut scratch).expect("its prefix");
                            let short = ranklet::train::Prefix { exponents: &exponents[1..], ..prefix };
                            assert_eq!(
                                trainer.behind(short, sequence(n), target, &mut scratch),
                                Err(ranklet::train::TrainError::Busy)
                            );
                        }
                        None => trainer.sequence(sequence(n), target, &mut scratch).expect("a sample"),
                    }
                    assert!(trainer.prefix().is_none(), "in the middle of a sample");
                    loop {
                        let progress = trainer.advance(&mut scratch).expect("a unit");
                        units += 1;
                        losses.extend(progress.loss.map(Real::to_f64));
                        if !progress.more() {
                            break;
                        }
                    }
                    let prefix = trainer.prefix().expect("a network with one stack");
                    let now = (prefix.mantissas.to_vec(), prefix.exponents.to_vec(), prefix.block);
                    assert!(kept[n].as_ref().is_none_or(|k| *k == now), "it is kept as it was given");
                    if keep {
                        kept[n] = Some(now);
                    }
                }
                if let Some((mantissas, exponents, block)) = &kept[0] {
                    let target = SequenceTarget::Pooled(ranklet::train::Target::Class(0));
                    for (wrong, of) in [(1, *block), (0, block + 1)] {
                        let (mantissas, exponents) = (&mantissas[wrong * t.dim..], &exponents[wrong..]);
                        let prefix = ranklet::train::Prefix { mantissas, exponents, block: of };
                        let refused = trainer.behind(prefix, sequence(0), target, &mut scratch);
                        assert!(matches!(refused, Err(ranklet::train::TrainError::Prefix { .. })), "{refused:?}");
                    }
                }
                learner.choose(|_, _| true).expect("something learns");
                let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
                assert!(trainer.prefix().is_none(), "of another lowest layer");
                // Nor where the first block learns, nor with dropout, which masks what is below anew.
                let target = SequenceTarget::Pooled(ranklet::train::Target::Class(0));
                trainer.sequence(sequence(0), target, &mut scratch).expect("a sample");
                trainer.step(&mut scratch).expect("its units");
                assert!(trainer.prefix().is_none());
                learner.choose(|site, _| site >= lowest).expect("something learns");
                let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
                trainer.sequence(sequence(0), target, &mut scratch).expect("a sample");
                trainer.step(&mut scratch).expect("its units");
                assert!(trainer.prefix().is_some());
                let mut trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned for it");
                assert!(trainer.prefix().is_none());
                (planes(&learner), losses, units)
            };
            let (expected, losses, all) = run(false);
            let (found, same, fewer) = run(true);
            assert!(found == expected && losses == same, "{:?}", t.position);
            assert!(fewer < all, "{fewer} {all}");
        }
    }
}

/// A lean plan, which keeps the inputs of every second block: less memory, more units, the same bits; whatever learns, and with
/// every number of blocks.
#[test]
fn a_lean_plan_changes_no_bit() {
    for (spec, t) in [llama(), bert(), t5(), sensor()] {
        for blocks in 1..6 {
            let end = |t: &Transformer| match t.decoder.checked_sub(1) {
                Some(last) => t.block(Stack::Decoder, last).down + 1,
                None => t.block(Stack::Encoder, t.encoder - 1).down + 1,
            };
            let behind = spec.linears - end(&t);
            let mut t = t;
            (t.encoder, t.decoder) = (blocks * u16::from(t.encoder > 0), blocks * u16::from(t.decoder > 0));
            let spec = ranklet::model::Spec { linears: end(&t) + behind, ..spec };
            let file = image(spec, t, WeightType::I8, 7);
            let model = file.model().expect("a model");
            let samples: Vec<i16> = (0..50).map(|i| (i * 37 % 101) * 300 - 15_000).collect();
            for lowest in (0..spec.linears).step_by(3) {
                let run = |lean: bool| {
                    let train = Train::adamw().rank(3).immediate().dropout();
                    let plan = plan(&file, if lean { train.lean() } else { train });
                    let mut memory = vec![0xA5; plan.bytes() + 15];
                    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
                    let pairs = AdapterFixture::random(&model, 3, 0.2, 1.0, 5);
                    let mut learner = learn.resume(&model, &pairs.open(&model)).expect("a learner");
                    learner.choose(|site, _| site >= lowest).expect("something learns");
                    let trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
                    let mut trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned").seed(Seed(5));
                    let mut units = 0;
                    for class in [1, 0] {
                        let target = SequenceTarget::Pooled(ranklet::train::Target::Class(class));
                        let sequence = match t.vocab {
                            0 => Sequence::features(
                                ranklet::layer::normalize::Input::i16(&samples, ranklet::fixed::Exp(-14)),
                                10,
                            ),
                            _ => Sequence::tokens(&IDS),
                        };
                        let given = if t.has_cross() {
                            trainer.pair(sequence, sequence, target, &mut scratch)
                        } else {
                            trainer.sequence(sequence, target, &mut scratch)
                        };
                        given.expect("a sample");
                        while trainer.advance(&mut scratch).expect("a unit").more() {
                            units += 1;
                        }
                    }
                    assert!(!lean || trainer.prefix().is_none());
                    (planes(&learner), units, plan.bytes())
                };
                let ((found, more, less), (expected, units, bytes)) = (run(true), run(false));
                assert!(found == expected, "{blocks} blocks, from layer {lowest} on");
                assert!(more >= units && less <= bytes);
                assert!(blocks < 3 || less < bytes, "{less} {bytes}");
            }
        }
    }
}
