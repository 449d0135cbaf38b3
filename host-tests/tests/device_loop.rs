//! What a device needs around its training: measuring, kept prefixes in flash, packed texts; the host's measure is the judge.

use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::image::LoraRecord;
use ranklet::layer::normalize::Input;
use ranklet::model::{Model, Plan, Scratch, Sequence, Train, Workspace};
use ranklet::store::{Ram, StoreError};
use ranklet::train::{
    AdamW, Answers, IGNORE, Keep, Learner, Optimizer, Pack, Prefixes, RecallError, Score, SequenceTarget, Target,
    TrainError, Trainer,
};
use ranklet_cli::image::ImageFile;
use ranklet_cli::lessons::{Answer, Lesson, measure};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::sequences::Batch;
use ranklet_host_tests::fixture::AdapterFixture;
use ranklet_host_tests::fixture::transformer::{bert, image, llama, sensor, t5};

const ADAMW: AdamW = AdamW { lr: Real::ratio(1, 50), ..AdamW::DEFAULT };
const TOKENS: usize = 10;

fn plan(file: &ImageFile, train: Train) -> Plan<'_> {
    Plan::new(file.bytes()).expect("a plan").tokens(TOKENS).source(TOKENS).train(train.rank(3))
}

fn text(n: usize) -> [u32; TOKENS] {
    std::array::from_fn(|i| (i * 7 + n * 3 + 1) as u32 % 40)
}

/// Both planes.
fn planes(l: &Learner<'_>) -> (Vec<i16>, Vec<i16>, Vec<LoraRecord>) {
    (l.high().to_vec(), l.low().to_vec(), l.records().to_vec())
}

/// A learner whose pairs do something.
fn learns<T>(
    file: &ImageFile,
    train: Train,
    work: impl FnOnce(&Model<'_>, &mut Learner<'_>, &mut Scratch<'_>) -> T,
) -> T {
    let model = file.model().expect("a model");
    let plan = plan(file, train);
    let mut memory = vec![0xA5; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let pairs = AdapterFixture::random(&model, 3, 0.2, 1.0, 5);
    let mut learner = learn.resume(&model, &pairs.open(&model)).expect("a learner");
    work(&model, &mut learner, &mut scratch)
}

fn steps<O: Optimizer>(trainer: &mut Trainer<'_, '_, '_, O>, scratch: &mut Scratch<'_>) -> (u32, Real) {
    let (mut units, mut loss) = (0, Real::ZERO);
    loop {
        let progress = trainer.advance(scratch).expect("a unit");
        units += 1;
        loss = progress.loss.unwrap_or(loss);
        if !progress.more() {
            return (units, loss);
        }
    }
}

/// Measuring in the memory of training, in the midst of a batch and with dropout: what it finds is what inference finds; what is
/// learned is what would have been learned without.
#[test]
fn measuring_leaves_no_trace_and_finds_what_inference_finds() {
    for (language, (spec, t)) in [(true, llama()), (false, bert()), (false, t5())] {
        let file = image(spec, t, WeightType::I8, 7);
        let train = Train::adamw().dropout();
        for train in if t.has_cross() { vec![train] } else { vec![train, train.immediate()] } {
            let batch = if train == Train::adamw().dropout() { 2 } else { 1 };
            let run = |look: bool| {
                learns(&file, train, |model, learner, scratch| {
                    let trainer = Trainer::new(model, learner, ADAMW).expect("a trainer").accumulate(batch);
                    let mut trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned").seed(Seed(9));
                    for n in 0..5 {
                        let ids = text(n);
                        let (sequence, pooled) = (Sequence::tokens(&ids), SequenceTarget::Pooled(Target::Class(n % 2)));
                        let target = if language { SequenceTarget::Next } else { pooled };
                        let given = if t.has_cross() {
                            trainer.pair(sequence, sequence, target, scratch)
                        } else {
                            trainer.sequence(sequence, target, scratch)
                        };
                        given.expect("a sample");
                        trainer.step(scratch).expect("its units");
                        if !look {
                            continue;
                        }
                        let mut score = Score::default();
                        let mut lessons = vec![];
                        for other in 20..24 {
                            let ids = text(other);
                            let sequence = Sequence::tokens(&ids);
                            let class = other % 2;
                            let target = if language {
                                SequenceTarget::Next
                            } else {
                                SequenceTarget::Pooled(Target::Class(class))
                            };
                            let measured = trainer.measure();
                            let given = if t.has_cross() {
                                measured.pair(sequence, sequence, target, scratch)
                            } else {
                                measured.sequence(sequence, target, scratch)
                            };
                            given.expect("a sample");
                            let (_, loss) = steps(&mut trainer, scratch);
                            assert!(trainer.prefix().is_none(), "nothing is kept of what is only measured");
                            score.add(loss, trainer.answers());
                            let batch = Batch::text(&t, &ids, vec![]);
                            let labels = ids.iter().copied().skip(1).chain([IGNORE]).collect();
                            let answer = if language { Answer::Tokens(labels) } else { Answer::Class(class) };
                            lessons.push(Lesson { batch, answer });
                        }
                        if t.has_cross() {
                            assert_eq!(score.answers().given, 4);
                            continue;
                        }
                        let view = trainer.learner().view();
                        let judge = measure(model, &t, &[view], &lessons, || ()).expect("inference");
                        let (found, Answers { given, right }) =
                            (score.loss().expect("answers").to_f64(), score.answers());
                        assert!((found - judge.loss).abs() < 1e-6, "{found} {}", judge.loss);
                        assert_eq!((u64::from(given), Some(u64::from(right))), (judge.answers, judge.right));
                    }
                    (planes(learner), learner.samples(), learner.steps())
                })
            };
            assert!(run(true) == run(false));
        }
    }
}

/// The loss of a pair that is measured is that of one that is learned from.
#[test]
fn a_measured_pair_costs_what_it_costs_in_training() {
    let (spec, t) = t5();
    let file = image(spec, t, WeightType::I8, 7);
    learns(&file, Train::adamw(), |model, learner, scratch| {
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        for n in 0..4 {
            let ids = text(n);
            let sequence = Sequence::tokens(&ids);
            let target = SequenceTarget::Pooled(Target::Class(n % 2));
            trainer.measure().pair(sequence, sequence, target, scratch).expect("a sample");
            let (few, measured) = steps(&mut trainer, scratch);
            trainer.pair(sequence, sequence, target, scratch).expect("a sample");
            let (more, loss) = steps(&mut trainer, scratch);
            assert!(measured == loss && !loss.is_zero() && few < more);
        }
    });
}

/// The same for a perceptron.
#[test]
fn a_perceptron_is_measured() {
    static BASE: ranklet::Image = ranklet::include_image!("../../models/digits/digits.rkl");
    let model = Model::open(&BASE).expect("a model");
    let plan = Plan::new(&BASE).expect("a plan").train(Train::adamw().rank(4));
    let samples: Vec<[i16; 64]> = (0..6).map(|n| std::array::from_fn(|i| ((i * 5 + n * 13) % 17) as i16)).collect();
    let run = |look: bool| {
        let mut memory = vec![0; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(1)).expect("a learner");
        let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer").accumulate(3);
        for (n, sample) in samples.iter().enumerate() {
            trainer.sample(Input::i16(sample, Exp(0)), Target::Class(n % 10), &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
            if !look {
                continue;
            }
            for class in 0..10 {
                let input = Input::i16(sample, Exp(0));
                trainer.measure().sample(input, Target::Class(class), &mut scratch).expect("a sample");
                let (units, loss) = steps(&mut trainer, &mut scratch);
                let y = model.infer(&mut scratch, input, &[trainer.learner().view()]).expect("outputs");
                assert_eq!(loss, ranklet::layer::head::cross_entropy(y, class));
                let right = u32::from(ranklet::layer::head::argmax(y.mantissas) == class);
                assert_eq!(
                    (trainer.answers(), units),
                    (Answers { given: 1, right }, u32::from(model.spec().linears) + 1)
                );
            }
        }
        (planes(&learner), learner.samples(), learner.steps())
    };
    assert!(run(true) == run(false));
}

/// A sample that has been kept goes on at the lowest block that learns: the same bits, fewer units; and what has changed is not
/// found again.
#[test]
fn kept_prefixes_change_no_bit() {
    for (spec, t) in [llama(), bert(), sensor()] {
        let file = image(spec, t, WeightType::I8, 7);
        let features: Vec<Vec<i16>> =
            (0..3).map(|n| (0..50).map(|i| ((i + 11 * n) * 37 % 101) * 300 - 15_000).collect()).collect();
        let texts = [0, 1, 2].map(text);
        let sequence = |n: usize| match t.vocab {
            0 => Sequence::features(Input::i16(&features[n], Exp(-14)), TOKENS),
            _ => Sequence::tokens(&texts[n]),
        };
        // Of three samples one finds no room: it is computed every time.
        let record = 2 * TOKENS * (t.dim + 1) + 24 + 8;
        for (bytes, holds) in [(0, 0), (4 * record, 3), (2 * record + 64, 2)] {
            let run = || {
                learns(&file, Train::adamw().immediate(), |model, learner, scratch| {
                    let middle = model.spec().linears / 2;
                    learner.choose(|site, _| site >= middle).expect("something learns");
                    let mut flash = vec![0; bytes.max(64)];
                    let mut ram = Ram::new(&mut flash);
                    let end = (bytes.max(64) / 64 * 64) as u32;
                    let mut kept = Prefixes::open(&mut ram, 0..end).expect("a stretch");
                    let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
                    let (mut units, mut found, mut losses) = (0, 0, vec![]);
                    for n in [0, 1, 2, 1, 0, 2, 2, 0] {
                        let target = SequenceTarget::Pooled(Target::Class(n % 2));
                        let known =
                            trainer.recall(&mut kept, &mut ram, sequence(n), target, scratch).expect("a sample");
                        found += usize::from(known);
                        let (more, loss) = steps(&mut trainer, scratch);
                        units += more;
                        losses.push(loss);
                        let now = trainer.keep(&mut kept, &mut ram).expect("flash");
                        let there = |n: usize| if n < holds { Keep::Kept } else { Keep::Full };
                        assert_eq!(now, if known { Keep::Nothing } else { there(n) });
                        assert_eq!(trainer.keep(&mut kept, &mut ram), Ok(Keep::Nothing), "once");
                    }
                    (units, found, losses, planes(learner))
                })
            };
            let (units, found, losses, planes) = run();
            assert_eq!(found, [0, 0, 3, 5][holds]);
            let plain = learns(&file, Train::adamw().immediate(), |model, learner, scratch| {
                let middle = model.spec().linears / 2;
                learner.choose(|site, _| site >= middle).expect("something learns");
                let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
                let (mut units, mut losses) = (0, vec![]);
                for n in [0, 1, 2, 1, 0, 2, 2, 0] {
                    let target = SequenceTarget::Pooled(Target::Class(n % 2));
                    trainer.sequence(sequence(n), target, scratch).expect("a sample");
                    let (more, loss) = steps(&mut trainer, scratch);
                    units += more;
                    losses.push(loss);
                }
                (units, losses, self::planes(learner))
            });
            assert!(losses == plain.1 && planes == plain.2);
            assert_eq!(units < plain.0, holds > 0, "{units} {}", plain.0);
        }
    }
}

/// After a change below, of what learns, or of the sample, the kept one is not used; nor one that was damaged.
#[test]
fn a_prefix_that_no_longer_holds_is_not_found() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let mut flash = vec![0; 16 * 1024];
    learns(&file, Train::adamw().dropout(), |model, learner, scratch| {
        let middle = model.spec().linears / 2;
        let ids = text(0);
        let mut asked = |learner: &mut Learner<'_>, ids: &[u32], flash: &mut Vec<u8>, dropout: bool| {
            let mut ram = Ram::new(flash);
            let mut kept = Prefixes::open(&mut ram, 0..16 * 1024).expect("a stretch");
            let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
            if dropout {
                trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned");
            }
            let found = trainer
                .recall(&mut kept, &mut ram, Sequence::tokens(ids), SequenceTarget::Next, scratch)
                .expect("a sample");
            assert_eq!(trainer.keep(&mut kept, &mut ram), Ok(Keep::Nothing), "in the middle of the sample");
            steps(&mut trainer, scratch);
            (found, trainer.keep(&mut kept, &mut ram).expect("flash") == Keep::Kept)
        };
        learner.choose(|site, _| site >= middle).expect("something learns");
        assert_eq!(asked(learner, &ids, &mut flash, false), (false, true));
        assert_eq!(asked(learner, &ids, &mut flash, false), (true, false));
        assert_eq!(asked(learner, &ids, &mut flash, true), (false, false), "dropout masks what is below");
        assert_eq!(asked(learner, &ids[..9], &mut flash, false), (false, true), "another length");
        assert_eq!(asked(learner, &ids, &mut flash, false), (true, false), "both are there");
        let upper = model.spec().linears - 1;
        learner.choose(|site, _| site >= upper).expect("something learns");
        assert_eq!(asked(learner, &ids, &mut flash, false), (false, true), "of another block");
        learner.choose(|_, _| true).expect("something learns");
        assert_eq!(asked(learner, &ids, &mut flash, false), (false, false), "there is nothing below");
        // Everything has learned now.
        learner.choose(|site, _| site >= middle).expect("something learns");
        assert_eq!(asked(learner, &ids, &mut flash, false), (false, true), "the adapter below has changed");
        assert_eq!(asked(learner, &ids, &mut flash, false), (true, false));
        // A bit of every record.
        (0..flash.len()).step_by(400).skip(1).for_each(|at| flash[at] &= 0xEF);
        assert!(!asked(learner, &ids, &mut flash, false).0, "it is damaged");
    });
}

/// What is kept is of the sample that was asked for, whatever came between; of one that another trainer finished, of one whose pairs were set
/// meanwhile, or that was masked, nothing is.
#[test]
fn nothing_is_kept_under_another_samples_name() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    let mut memory = vec![0; 16 * 1024];
    let mut flash = Ram::new(&mut memory);
    let mut kept = Prefixes::open(&mut flash, 0..16 * 1024).expect("a stretch");
    let next = SequenceTarget::Next;
    let (first, second) = (text(0), text(1));
    let (first, second) = (Sequence::tokens(&first), Sequence::tokens(&second));
    learns(&file, Train::adamw().dropout(), |model, learner, scratch| {
        let middle = model.spec().linears / 2;
        learner.choose(|site, _| site >= middle).expect("something learns");
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        assert_eq!(trainer.recall(&mut kept, &mut flash, first, next, scratch), Ok(false));
        steps(&mut trainer, scratch);
        // Another learner, at its first sample too.
        learns(&file, Train::adamw(), |model, other, scratch| {
            other.choose(|site, _| site >= middle).expect("something learns");
            let mut trainer = Trainer::new(model, other, ADAMW).expect("a trainer");
            trainer.sequence(second, next, scratch).expect("a sample");
            steps(&mut trainer, scratch);
            assert_eq!(trainer.keep(&mut kept, &mut flash), Ok(Keep::Nothing));
        });
        // One that goes on with another trainer, perhaps beside other adapters.
        assert_eq!(trainer.recall(&mut kept, &mut flash, first, next, scratch), Ok(false));
        let _ = trainer.advance(scratch).expect("a unit");
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        steps(&mut trainer, scratch);
        assert_eq!(trainer.prefix(), None);
        assert_eq!(trainer.keep(&mut kept, &mut flash), Ok(Keep::Nothing));
        // Or with other pairs.
        assert_eq!(trainer.recall(&mut kept, &mut flash, first, next, scratch), Ok(false));
        let _ = trainer.advance(scratch).expect("a unit");
        let (r, below) = (learner.records()[0], learner.records()[0].site < middle);
        assert!(below);
        learner.set(0, (&vec![7; r.a_len()], -3), (&vec![9; r.b_len()], -3)).expect("its shape");
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        steps(&mut trainer, scratch);
        assert_eq!(trainer.keep(&mut kept, &mut flash), Ok(Keep::Nothing));
        // A masked one, asked for without.
        let mut trainer = trainer.dropout(Real::ratio(1, 2)).expect("planned");
        trainer.sequence(first, next, scratch).expect("a sample");
        steps(&mut trainer, scratch);
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        assert_eq!(trainer.prefix(), None);
        // And at last an honest one.
        assert_eq!(trainer.recall(&mut kept, &mut flash, first, next, scratch), Ok(false));
        steps(&mut trainer, scratch);
        assert_eq!(trainer.keep(&mut kept, &mut flash), Ok(Keep::Kept));
        assert_eq!(trainer.recall(&mut kept, &mut flash, first, next, scratch), Ok(true));
    });
}

/// A flash that fails: the sample is not begun, and nothing is counted.
#[test]
fn a_failing_flash_leaves_the_learner_as_it_was() {
    use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
    struct Failing(bool);
    impl ErrorType for Failing {
        type Error = NorFlashErrorKind;
    }
    impl ReadNorFlash for Failing {
        const READ_SIZE: usize = 1;
        fn read(&mut self, _: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            bytes.fill(0xFF);
            if self.0 { Err(NorFlashErrorKind::Other) } else { Ok(()) }
        }
        fn capacity(&self) -> usize {
            4096
        }
    }
    impl NorFlash for Failing {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 256;
        fn erase(&mut self, _: u32, _: u32) -> Result<(), NorFlashErrorKind> {
            Ok(())
        }
        fn write(&mut self, _: u32, _: &[u8]) -> Result<(), NorFlashErrorKind> {
            self.0 = true;
            Ok(())
        }
    }
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 7);
    learns(&file, Train::adamw(), |model, learner, scratch| {
        let middle = model.spec().linears / 2;
        learner.choose(|site, _| site >= middle).expect("something learns");
        let mut flash = Failing(false);
        let mut kept = Prefixes::open(&mut flash, 0..4096).expect("a stretch");
        let (ids, next) = (text(0), SequenceTarget::Next);
        let mut trainer = Trainer::new(model, learner, ADAMW).expect("a trainer");
        assert_eq!(trainer.recall(&mut kept, &mut flash, Sequence::tokens(&ids), next, scratch), Ok(false));
        steps(&mut trainer, scratch);
        // What is written is lost, and reading fails from now on.
        assert_eq!(trainer.keep(&mut kept, &mut flash), Ok(Keep::Kept), "it says that it has written");
        let before = (planes(trainer.learner()), trainer.learner().samples());
        let failed = trainer.recall(&mut kept, &mut flash, Sequence::tokens(&ids), next, scratch);
        assert_eq!(failed, Err(RecallError::Store(StoreError::Flash(NorFlashErrorKind::Other))));
        assert!((planes(trainer.learner()), trainer.learner().samples()) == before);
        assert_eq!((trainer.next_part(), trainer.prefix()), (None, None));
        let wrong = trainer.recall(&mut kept, &mut flash, Sequence::tokens(&[]), next, scratch);
        assert!(matches!(wrong, Err(RecallError::Train(TrainError::Sequence(_)))));
        trainer.sequence(Sequence::tokens(&ids), next, scratch).expect("a sample");
    });
}

/// Texts of any length, packed: every token comes once, each with the label it would have alone.
#[test]
fn packing_loses_no_token() {
    let texts: Vec<Vec<u32>> =
        [3, 1, 17, 8, 0, 2, 8, 25].iter().map(|&n| (0..n).map(|i| i * 10 + n).collect()).collect();
    let mut pack: Pack<8> = Pack::new();
    let (mut tokens, mut labels) = (vec![], vec![]);
    let mut drain = |pack: &mut Pack<8>| {
        tokens.extend_from_slice(pack.tokens());
        labels.extend_from_slice(pack.labels());
        pack.clear();
    };
    for text in &texts {
        let mut rest = &text[..];
        loop {
            rest = pack.fill(rest);
            if !pack.is_full() {
                break;
            }
            drain(&mut pack);
        }
        assert!(rest.is_empty());
    }
    drain(&mut pack);
    assert_eq!(tokens, texts.concat());
    let expected: Vec<u32> =
        texts.iter().filter(|t| !t.is_empty()).flat_map(|t| t.iter().copied().skip(1).chain([IGNORE])).collect();
    assert_eq!(labels, expected);
}
