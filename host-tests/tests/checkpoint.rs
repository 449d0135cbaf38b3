//! Checkpoints: training that stops anywhere goes on bit for bit; what is damaged, or another's, is refused.

use embedded_io::ErrorType;
use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::layer::normalize::Input;
use ranklet::model::{Model, Plan, Roles, Scratch, Sequence, Train, Workspace};
use ranklet::train::{
    AdamW, CheckpointError, LearnError, Learner, RestoreError, Rule, Schedule, SequenceTarget, Sgd, Target, Trainer,
};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::transformer::{image, llama};
use std::convert::Infallible;

/// A vector as the core's writer.
struct Sink(Vec<u8>);

impl ErrorType for Sink {
    type Error = Infallible;
}

impl embedded_io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn written(learner: &Learner<'_>) -> Vec<u8> {
    let mut sink = Sink(vec![]);
    learner.checkpoint(&mut sink).expect("between two samples");
    assert_eq!(sink.0.len(), learner.checkpoint_len());
    sink.0
}

fn file() -> ImageFile {
    let (spec, t) = llama();
    image(spec, t, WeightType::I8, 7)
}

fn plan(file: &ImageFile, train: Train) -> Plan<'_> {
    Plan::new(file.bytes()).expect("a plan").tokens(8).train(train)
}

fn memory(plan: &Plan<'_>) -> Vec<u8> {
    vec![0xA5; plan.bytes() + 15] // As others left it.
}

/// Samples `from..to`, and then the checkpoint; every third makes a step.
fn train(
    model: &Model<'_>,
    learner: &mut Learner<'_>,
    scratch: &mut Scratch<'_>,
    rule: Rule,
    from: u32,
    to: u32,
) -> Vec<u8> {
    let trainer = Trainer::new(model, learner, rule).expect("a trainer").accumulate(3).seed(Seed(9)).clip(Real::ONE);
    let trainer = trainer.schedule(Schedule::Linear { warmup: 2, total: 12 });
    let mut trainer = trainer.dropout(Real::ratio(1, 8)).expect("planned for it");
    for n in from..to {
        let ids: [u32; 8] = std::array::from_fn(|i| (n * 7 + i as u32 * 11) % 50);
        trainer.sequence(Sequence::tokens(&ids), SequenceTarget::Next, scratch).expect("a sample");
        trainer.step(scratch).expect("its units");
    }
    written(learner)
}

#[test]
fn training_goes_on_bit_for_bit_from_anywhere() {
    let adamw = Rule::AdamW(AdamW { lr: Real::ratio(1, 50), weight_decay: Real::ratio(1, 100), ..AdamW::DEFAULT });
    let sgd = Rule::Sgd(Sgd { lr: Real::ratio(1, 50), ..Sgd::DEFAULT });
    let file = file();
    let model = file.model().expect("a model");
    for (rule, room) in [(adamw, Train::adamw()), (sgd, Train::momentum())] {
        let plan = plan(&file, room.rank(3).dropout());
        let mut first = memory(&plan);
        let (mut scratch, learn) = Workspace::new(&mut first).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
        let expected = train(&model, &mut learner, &mut scratch, rule, 0, 12);
        for stop in 0..12 {
            let mut first = memory(&plan);
            let (mut scratch, learn) = Workspace::new(&mut first).split(&plan).expect("planned");
            let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
            let half = train(&model, &mut learner, &mut scratch, rule, 0, stop);
            // At any address, into memory of others.
            let moved = [&[0; 3][..], &half].concat();
            let mut second = memory(&plan);
            let (mut scratch, learn) = Workspace::new(&mut second).split(&plan).expect("planned");
            let mut learner = learn.restore(&model, &moved[3..]).expect("a checkpoint");
            assert_eq!((learner.samples(), learner.steps()), (stop, stop / 3));
            assert_eq!(written(&learner), half, "read and written again");
            assert!(train(&model, &mut learner, &mut scratch, rule, stop, 12) == expected, "stopped after {stop}");
        }
    }
}

/// Behind a step there is nothing accumulated to be written: whoever goes on may do so in another plan, and what it comes to is the same
/// to the bit. In the middle of a batch there is, and a plan that takes no batches refuses it; as one where A learns, one where it did not.
#[test]
fn a_checkpoint_goes_from_plan_to_plan() {
    let file = file();
    let model = file.model().expect("a model");
    let run = |plan: &Plan<'_>, from: Option<&[u8]>, samples: std::ops::Range<u32>| {
        let mut bytes = memory(plan);
        let (mut scratch, learn) = Workspace::new(&mut bytes).split(plan).expect("planned");
        let learner = match from {
            Some(saved) => learn.restore(&model, saved).expect("a checkpoint"),
            None => learn.fresh(&model, Seed(3)).expect("a learner"),
        };
        let mut learner = learner;
        let mut trainer = Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("a trainer");
        for n in samples {
            let ids: [u32; 8] = std::array::from_fn(|i| (n * 7 + i as u32 * 11) % 50);
            trainer.sequence(Sequence::tokens(&ids), SequenceTarget::Next, &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
        }
        written(&learner)
    };
    let room = Train::adamw().rank(3);
    let plans = [room, room.immediate(), room.lean(), room.immediate().lean()].map(|room| plan(&file, room));
    let expected = run(&plans[0], None, 0..6);
    let half = run(&plans[0], None, 0..2);
    for first in &plans {
        assert!(run(first, None, 0..2) == half);
        for then in &plans {
            assert!(run(then, Some(&run(first, None, 0..2)), 2..6) == expected);
        }
    }
    let refused = |room: Train, bytes: &[u8]| {
        let plan = plan(&file, room);
        let mut memory = memory(&plan);
        let (_, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        learn.restore(&model, bytes).map(|_| ()).expect_err("of another plan")
    };
    let mut bytes = memory(&plans[0]);
    let (mut scratch, learn) = Workspace::new(&mut bytes).split(&plans[0]).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    let mut trainer = Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("a trainer").accumulate(3);
    trainer.sequence(Sequence::tokens(&[1, 2, 3]), SequenceTarget::Next, &mut scratch).expect("a sample");
    trainer.step(&mut scratch).expect("its units");
    let pending = written(&learner);
    assert!(pending.len() > half.len());
    assert_eq!(refused(room.immediate(), &pending), RestoreError::Batch { pending: 1 });
    let only_b = run(&plan(&file, room.only_b()), None, 0..2);
    assert!(matches!(refused(room, &only_b), RestoreError::Matrices { .. }));
    assert!(matches!(refused(room.only_b(), &half), RestoreError::Moments { .. }));
    let sgd = {
        let plan = plan(&file, Train::sgd().rank(3).only_b());
        let mut memory = memory(&plan);
        let (_, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        written(&learn.fresh(&model, Seed(3)).expect("a learner"))
    };
    assert!(matches!(refused(Train::sgd().rank(3), &sgd), RestoreError::Matrices { .. }));
}

#[test]
fn nothing_is_written_in_the_middle_of_a_sample() {
    let file = file();
    let model = file.model().expect("a model");
    let plan = plan(&file, Train::sgd().rank(2));
    let mut bytes = memory(&plan);
    let (mut scratch, learn) = Workspace::new(&mut bytes).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(3)).expect("a learner");
    let mut trainer =
        Trainer::new(&model, &mut learner, Sgd { momentum: Real::ZERO, ..Sgd::DEFAULT }).expect("a trainer");
    trainer.sequence(Sequence::tokens(&[1, 2, 3]), SequenceTarget::Next, &mut scratch).expect("a sample");
    assert!(trainer.advance(&mut scratch).expect("a unit").more());
    let mut sink = Sink(vec![]);
    assert_eq!(trainer.learner().checkpoint(&mut sink), Err(CheckpointError::Busy));
    assert!(sink.0.is_empty());
}

#[test]
fn what_is_damaged_or_anothers_is_refused() {
    let file = file();
    let model = file.model().expect("a model");
    let planned = plan(&file, Train::adamw().rank(3));
    let restore_with = |plan: &Plan<'_>, bytes: &[u8]| -> Result<(), RestoreError> {
        let mut memory = memory(plan);
        let (_, learn) = Workspace::new(&mut memory).split(plan).expect("planned");
        learn.restore(&model, bytes).map(|_| ())
    };
    let restore = |bytes: &[u8]| restore_with(&planned, bytes);
    let mut bytes = memory(&planned);
    let (_, learn) = Workspace::new(&mut bytes).split(&planned).expect("planned");
    let good = written(&learn.fresh(&model, Seed(3)).expect("a learner"));
    assert_eq!(restore(&good), Ok(()));
    for cut in (0..good.len()).step_by(61).chain([good.len() - 1]) {
        let error = restore(&good[..cut]).expect_err("truncated");
        assert!(
            matches!(error, RestoreError::Length { .. } | RestoreError::Magic | RestoreError::Version { .. }),
            "{error}"
        );
    }
    assert!(matches!(restore(&[&good[..], &[0]].concat()), Err(RestoreError::Length { .. })));
    let mut draw = Draw::new(5);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    for _ in 0..400 {
        let mut bad = good.clone();
        let at = draw.below(bad.len());
        bad[at] ^= 1 << draw.below(8);
        assert!(restore(&bad).is_err(), "byte {at}");
        // With a checksum that fits, whatever it says is refused or can be trained on: nothing panics.
        let end = bad.len() - 4;
        let sum = crc.checksum(&bad[..end]).to_le_bytes();
        bad[end..].copy_from_slice(&sum);
        let mut memory = memory(&planned);
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&planned).expect("planned");
        if let Ok(mut learner) = learn.restore(&model, &bad) {
            let mut trainer = Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("a trainer");
            trainer.sequence(Sequence::tokens(&[1, 2, 3]), SequenceTarget::Next, &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
        }
    }
    let mut foreign = good.clone();
    foreign[44] ^= 1;
    let end = foreign.len() - 4;
    let sum = crc.checksum(&foreign[..end]).to_le_bytes();
    foreign[end..].copy_from_slice(&sum);
    assert!(matches!(restore(&foreign), Err(RestoreError::Base { .. })));
    let too_large = restore_with(&plan(&file, Train::adamw().rank(2)), &good);
    assert!(matches!(too_large, Err(RestoreError::Learn(LearnError::TooLarge { .. }))), "{too_large:?}");
    let moments = restore_with(&plan(&file, Train::momentum().rank(3)), &good);
    assert!(matches!(moments, Err(RestoreError::Moments { .. })), "{moments:?}");
}

/// Gradients of any size, and moments that are given nothing for ever: what a learner writes it takes up again.
#[test]
fn every_learner_takes_its_own_checkpoint() {
    static BASE: ranklet::Image = ranklet::include_image!("../../models/digits/digits.rkl");
    let model = Model::open(&BASE).expect("a model");
    let plan = Plan::new(&BASE).expect("a plan").train(Train::adamw().rank(1).on(Roles::HEAD));
    let pixels = [9_i16; 64];
    let run = |exponents: &[i16], steps: u32| {
        let mut memory = vec![0; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(1)).expect("a learner");
        let mut trainer = Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("a trainer");
        let given = [20_000, -20_000, 0, 0, 1, 2, 3, 4, 5, 6];
        for &e in exponents {
            let target = Target::Cotangent(&given, Exp(e));
            trainer.sample(Input::i16(&pixels, Exp(0)), target, &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
        }
        for _ in 0..steps {
            let target = Target::Cotangent(&[0; 10], Exp(0));
            trainer.sample(Input::i16(&pixels, Exp(0)), target, &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
        }
        let mut out = Sink(vec![]);
        learner.checkpoint(&mut out).expect("between two samples");
        let mut memory = vec![0; plan.bytes() + 15];
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut again = learn.restore(&model, &out.0).expect("its own checkpoint");
        // And both go on alike.
        for learner in [&mut learner, &mut again] {
            let mut trainer = Trainer::new(&model, learner, AdamW::DEFAULT).expect("a trainer");
            trainer.sample(Input::i16(&pixels, Exp(0)), Target::Class(3), &mut scratch).expect("a sample");
            trainer.step(&mut scratch).expect("its units");
        }
        assert!(learner.high() == again.high() && learner.low() == again.low());
    };
    for e in [i16::MIN + 1, -20_000, -9000, -4100, 4200, 9000, 20_000, i16::MAX] {
        run(&[0, e], 0);
        run(&[e], 3);
    }
    // 0.152 octaves a step: beyond 2^-8192, where checkpoints were once refused.
    run(&[0], 60_000);
}
