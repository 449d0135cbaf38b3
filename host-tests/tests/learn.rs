//! What training a transformer promises whatever its weights: it learns; padding, neighbours and interruptions change no bit;
//! bad samples are refused and leave everything as it was.

use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::layer::normalize::Input;
use ranklet::model::{Active, Model, Plan, RunError, Sequence, Train, Workspace};
use ranklet::train::{AdamW, IGNORE, Learner, LossKind, SequenceTarget, Sgd, Target, TrainError, Trainer};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::AdapterFixture;
use ranklet_host_tests::fixture::transformer::{bert, gpt2, image, llama, sensor, t5};

const ADAMW: AdamW = AdamW { lr: Real::ratio(1, 50), ..AdamW::DEFAULT };

/// Gradients that add up and never become a step.
const GATHER: Sgd = Sgd { lr: Real::ZERO, momentum: Real::ZERO, weight_decay: Real::ZERO };

fn plan<'a>(file: &'a ImageFile, train: Train) -> Plan<'a> {
    Plan::new(file.bytes()).expect("a plan").tokens(12).source(12).train(train)
}

/// Memory as others left it.
fn memory(plan: &Plan<'_>) -> Vec<u8> {
    vec![0xA5; plan.bytes() + 15]
}

/// One sample, as a test gives it.
#[derive(Clone, Copy)]
struct Lesson<'a> {
    source: Option<Sequence<'a>>,
    sequence: Sequence<'a>,
    target: SequenceTarget<'a>,
}

impl Lesson<'_> {
    fn give<O: ranklet::train::Optimizer>(
        &self,
        trainer: &mut Trainer<'_, '_, '_, O>,
        scratch: &mut ranklet::model::Scratch<'_>,
    ) -> Result<(), TrainError> {
        match self.source {
            Some(source) => trainer.pair(source, self.sequence, self.target, scratch),
            None => trainer.sequence(self.sequence, self.target, scratch),
        }
    }
}

/// Values and exponent of A's and B's gradient, of every record.
type Gradients = Vec<[(Vec<i32>, i32); 2]>;

fn gradients(learner: &Learner<'_>) -> Gradients {
    (0..learner.records().len()).map(|i| learner.gradient(i).expect("a record").map(|(v, e)| (v.to_vec(), e))).collect()
}

/// The gradients of one sample, and its loss.
fn gradients_of(file: &ImageFile, adapter: &[u8], beside: &[Active<'_>], lesson: Lesson<'_>) -> (Gradients, f64) {
    let model = file.model().expect("a model");
    let plan = plan(file, Train::sgd().rank(4).cotangents());
    let mut memory = memory(&plan);
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let image = ImageFile::of(std::path::Path::new("adapter"), adapter);
    let mut learner = learn.resume(&model, &image.adapter(&model).expect("an adapter")).expect("a learner");
    let mut trainer = Trainer::new(&model, &mut learner, GATHER).expect("a trainer").accumulate(9);
    trainer = trainer.beside(beside).expect("adapters");
    lesson.give(&mut trainer, &mut scratch).expect("a sample");
    let loss = trainer.step(&mut scratch).expect("units");
    (gradients(&learner), loss.to_f64())
}

#[test]
fn every_kind_of_transformer_learns() {
    let ids: Vec<u32> = (0..12).map(|i| (i * 17 + 5) % 50).collect();
    let source = [3, 9, 27, 31, 1];
    let samples: Vec<i16> = (0..60).map(|i| (i * 37 % 101) * 300 - 15_000).collect();
    let text = Lesson { source: None, sequence: Sequence::tokens(&ids), target: SequenceTarget::Next };
    let class = SequenceTarget::Pooled(Target::Class(2));
    let pair = Lesson {
        source: Some(Sequence::tokens(&source)),
        sequence: Sequence::tokens(&[0, 3, 9, 27, 31]),
        target: class,
    };
    let types = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
    let typed = Lesson { source: None, sequence: Sequence::tokens(&ids).types(&types), target: class };
    let window =
        Lesson { source: None, sequence: Sequence::features(Input::i16(&samples, Exp(-14)), 12), target: class };
    for ((spec, t), lesson) in [(llama(), text), (gpt2(), text), (t5(), pair), (bert(), typed), (sensor(), window)] {
        for to in [WeightType::I16, WeightType::I8] {
            let file = image(spec, t, to, 7);
            let model = file.model().expect("a model");
            let plan = plan(&file, Train::adamw().rank(4));
            let mut memory = memory(&plan);
            let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
            let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
            let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
            let mut losses = vec![];
            for _ in 0..30 {
                lesson.give(&mut trainer, &mut scratch).expect("a sample");
                losses.push(trainer.step(&mut scratch).expect("units").to_f64());
            }
            let (first, last) = (losses[0], losses[29]);
            println!("{:?}, {}: {first:.4} to {last:.4}", t.position, to.name());
            assert!(first > 0.2 && last < 0.3 * first, "{:?}: {losses:.3?}", t.position);
        }
    }
}

fn adapter(model: &Model<'_>, seed: u64) -> AdapterFixture {
    AdapterFixture::random(model, 4, 0.2, 1.0, seed)
}

/// Padding changes no bit of a gradient, in an encoder, a decoder, or both.
#[test]
fn padding_changes_no_gradient() {
    let ids = [4, 8, 15, 16, 23, 42, 1];
    let class = SequenceTarget::Pooled(Target::Class(1));
    for (spec, t) in [bert(), t5(), llama()] {
        let file = image(spec, t, WeightType::I8, 23);
        let model = file.model().expect("a model");
        let pairs = adapter(&model, 5);
        let run = |padding: &[u32]| {
            let padded = [&ids[..], padding].concat();
            let valid: Vec<bool> = (0..padded.len()).map(|i| i < ids.len()).collect();
            let sequence = Sequence::tokens(&padded).valid(&valid);
            let lesson = if t.has_cross() {
                Lesson {
                    source: Some(sequence),
                    sequence: Sequence::tokens(&[0, 4, 8, 15, 16, 23, 42]),
                    target: SequenceTarget::At(6, Target::Class(1)),
                }
            } else if t.decoder > 0 {
                Lesson { source: None, sequence, target: SequenceTarget::Next }
            } else {
                Lesson { source: None, sequence, target: class }
            };
            gradients_of(&file, pairs.bytes(), &[], lesson)
        };
        let alone = run(&[]);
        assert!(alone.0.iter().any(|g| g[0].0.iter().any(|&v| v != 0)), "{:?}: there are gradients", t.position);
        // A tile of tokens may end elsewhere, with the same sums: whole tiles of padding, and parts of one.
        for padding in [&[0; 5][..], &[49, 3, 1, 7, 30], &[2]] {
            assert!(run(padding) == alone, "{:?}, padding {padding:?}", t.position);
        }
    }
}

/// The upper adapters learn the same, to the bit, whether the lower ones learn, too, or are only used.
#[test]
fn what_does_not_learn_changes_no_gradient() {
    let ids: Vec<u32> = (0..11).map(|i| (i * 7 + 3) % 50).collect();
    let text = Lesson { source: None, sequence: Sequence::tokens(&ids), target: SequenceTarget::Next };
    let pair = Lesson {
        source: Some(Sequence::tokens(&ids)),
        sequence: Sequence::tokens(&[0, 3, 9]),
        target: SequenceTarget::At(2, Target::Class(1)),
    };
    for ((spec, t), lesson) in [(llama(), text), (gpt2(), text), (t5(), pair)] {
        let file = image(spec, t, WeightType::I16, 29);
        let model = file.model().expect("a model");
        let pairs = adapter(&model, 5);
        let all = pairs.open(&model);
        let whole = gradients_of(&file, pairs.bytes(), &[], lesson);
        let parts = ranklet_cli::image::adapter::Parts::copy(&all);
        let emit = |p: &ranklet_cli::image::adapter::Parts| {
            p.emit(model.source(), model.head().image, &Default::default()).expect("an image")
        };
        for from in 1..spec.linears {
            let (lower, upper) = parts.apart(|r| r.site >= from);
            let lower = ImageFile::of(std::path::Path::new("lower"), &emit(&lower));
            let beside = [lower.adapter(&model).expect("an adapter").view()];
            let found = gradients_of(&file, &emit(&upper), &beside, lesson);
            let expected = &whole.0[whole.0.len() - found.0.len()..];
            assert!(found.0 == expected && found.1 == whole.1, "{:?} from layer {from}", t.position);
        }
    }
}

/// A trainer may be dropped between any two units, and the scratch used by others meanwhile.
#[test]
fn interruptions_change_no_bit() {
    let ids: Vec<u32> = (0..10).map(|i| (i * 7 + 3) % 50).collect();
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 31);
    let model = file.model().expect("a model");
    let plan = plan(&file, Train::adamw().rank(3).dropout());
    let run = |interrupted: bool| {
        let mut memory = memory(&plan);
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
        let mut losses = vec![];
        fn trainer<'t, 'm, 'a>(model: &'t Model<'m>, learner: &'t mut Learner<'a>) -> Trainer<'t, 'm, 'a, AdamW> {
            let trainer = Trainer::new(model, learner, ADAMW).expect("a trainer").seed(Seed(8));
            trainer.dropout(Real::ratio(1, 4)).expect("planned")
        }
        for _ in 0..4 {
            let sequence = Sequence::tokens(&ids);
            trainer(&model, &mut learner).sequence(sequence, SequenceTarget::Next, &mut scratch).expect("a sample");
            let mut more = true;
            while more {
                let mut trainer = trainer(&model, &mut learner);
                while more {
                    let progress = trainer.advance(&mut scratch).expect("a unit");
                    losses.extend(progress.loss.map(Real::to_f64));
                    more = progress.more();
                    if interrupted {
                        break;
                    }
                }
            }
        }
        (losses, learner.high().to_vec(), learner.low().to_vec())
    };
    let plain = run(false);
    assert_eq!(plain.0.len(), 4);
    assert!(run(true) == plain);
}

/// A residual stream of 32 bits gives the same gradients, within the rounding of one of 16.
#[test]
fn a_wide_stream_gives_the_same_gradients() {
    let ids: Vec<u32> = (0..12).map(|i| (i * 17 + 5) % 50).collect();
    let (spec, t) = llama();
    let wide = ranklet::model::spec::Transformer { flags: t.flags.or(ranklet::model::spec::Flags::WIDE), ..t };
    let wide_spec = ranklet::model::Spec { body: ranklet::model::spec::Body::Transformer(wide), ..spec };
    let lesson = Lesson { source: None, sequence: Sequence::tokens(&ids), target: SequenceTarget::Next };
    let run = |spec, t| {
        let file = image(spec, t, WeightType::I16, 7);
        let pairs = adapter(&file.model().expect("a model"), 5);
        let (gradients, loss) = gradients_of(&file, pairs.bytes(), &[], lesson);
        let value =
            |(v, e): &(Vec<i32>, i32)| -> Vec<f64> { v.iter().map(|&v| f64::from(v) * f64::from(*e).exp2()).collect() };
        (gradients.iter().flatten().flat_map(value).collect::<Vec<f64>>(), loss)
    };
    let (narrow, wide) = (run(spec, t), run(wide_spec, wide));
    let error = ranklet_host_tests::fixture::relative_l2(&narrow.0, &wide.0);
    assert!(error > 0.0 && error < 2e-3, "{error:.2e}");
    assert!((narrow.1 / wide.1 - 1.0).abs() < 1e-3);
}

#[test]
fn bad_samples_are_refused_and_change_nothing() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 31);
    let model = file.model().expect("a model");
    let plan = plan(&file, Train::adamw().rank(2));
    let mut memory = memory(&plan);
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    let before = (learner.high().to_vec(), learner.low().to_vec(), gradients(&learner));
    let mut trainer = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
    let ids = [1, 2, 3];
    let good = Sequence::tokens(&ids);
    let class = Target::Class(1);
    let long = [1; 13];
    let cases: Vec<(Sequence<'_>, SequenceTarget<'_>, TrainError)> = vec![
        (Sequence::tokens(&[]), SequenceTarget::Next, TrainError::Sequence(RunError::Length { found: 0, limit: 12 })),
        (
            Sequence::tokens(&long),
            SequenceTarget::Next,
            TrainError::Sequence(RunError::Length { found: 13, limit: 12 }),
        ),
        (
            Sequence::tokens(&[1, 50]),
            SequenceTarget::Next,
            TrainError::Sequence(RunError::Token { index: 1, found: 50, vocab: 50 }),
        ),
        (Sequence::tokens(&[1]), SequenceTarget::Next, TrainError::NoLabels),
        (good, SequenceTarget::Tokens(&[IGNORE; 3]), TrainError::NoLabels),
        (good, SequenceTarget::Tokens(&[1, 2]), TrainError::Labels { expected: 3, found: 2 }),
        (good, SequenceTarget::Tokens(&[1, 2, 50]), TrainError::Class { found: 50, classes: 50 }),
        (good, SequenceTarget::Pooled(Target::Class(50)), TrainError::Class { found: 50, classes: 50 }),
        (good, SequenceTarget::At(3, class), TrainError::Sequence(RunError::Index { found: 3, len: 3 })),
        (
            good,
            SequenceTarget::Pooled(Target::Labels(&[true])),
            TrainError::TargetKind { loss: LossKind::CrossEntropy },
        ),
        (good, SequenceTarget::Cotangents(&[0; 150], &[Exp::ZERO; 3]), TrainError::CotangentsNotPlanned),
        (good.valid(&[true]), SequenceTarget::Next, TrainError::Sequence(RunError::Input { expected: 3, found: 1 })),
        (
            Sequence::features(Input::i16(&[0; 3], Exp(0)), 3),
            SequenceTarget::Next,
            TrainError::Sequence(RunError::InputKind),
        ),
    ];
    for (sequence, target, error) in cases {
        assert_eq!(trainer.sequence(sequence, target, &mut scratch), Err(error));
    }
    assert_eq!(trainer.pair(good, good, SequenceTarget::Next, &mut scratch), Err(TrainError::Stacks { both: false }));
    let refused = trainer.sample(Input::i16(&[0; 3], Exp(0)), class, &mut scratch);
    assert_eq!(refused, Err(TrainError::Architecture));
    trainer.sequence(good, SequenceTarget::Next, &mut scratch).expect("a sample");
    assert_eq!(trainer.sequence(good, SequenceTarget::Next, &mut scratch), Err(TrainError::Busy));
    assert!((learner.high().to_vec(), learner.low().to_vec(), gradients(&learner)) == before);
}
