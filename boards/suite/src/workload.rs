//! The workload behind the digest: inference, gradients, and hundreds of training steps on a net that fits 16 KB of RAM.
//!
//! Everything is an integer and every draw a hash, so one number must come out on every machine. The inputs are drawn, the
//! label is the place of the largest of five of them: something that can be learned, so that the numbers stay alive.

use ranklet::{
    fixed::{
        Exp, Real,
        hash::{Purpose, Seed, Stream},
    },
    image::Image,
    include_image,
    layer::normalize::Input,
    model::{Arena, Model, Plan, Scratch, Train},
    must_fit, q,
    train::{AdamW, Learner, Optimizer, Schedule, Sgd, Target, Trainer},
};

use crate::{Failure, digest::Digest};

static BASE: Image = include_image!("../../../models/tiny/tiny.rkl");
const PLAN: Plan = Plan::of(&BASE).train(Train::adamw().rank(4).alpha(8).dropout());
must_fit!(PLAN.bytes(), 6 * 1024);
static ARENA: Arena<{ PLAN.bytes() }> = Arena::new();

/// Width of the net's input.
const FEATURES: usize = PLAN.spec().features;
/// Classes.
const CLASSES: usize = PLAN.spec().outputs;
/// Samples a step.
const ACCUMULATE: u32 = 2;
/// Optimizer steps with AdamW, then with SGD.
const STEPS: (u32, u32) = (520, 80);

/// What came out.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Of all outputs, gradients, losses, and A and B.
    pub digest: u64,
    /// Optimizer steps.
    pub steps: u32,
    /// Mean loss of the first and of the last 64 samples, in thousandths.
    pub losses: (i32, i32),
    /// Bytes of the arena.
    pub arena: usize,
}

/// Runs it.
///
/// # Errors
/// Whatever the core refuses, and every self-check that does not hold: the base must be unchanged, the adapter switched off
/// must leave no trace, and the loss must have fallen.
pub fn run() -> Result<Outcome, Failure> {
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = ARENA.take()?.split(&PLAN)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let mut digest = Digest::new();

    let crc = model.payload_crc_now();
    let before = outputs(&model, &mut scratch, None)?;
    digest.bytes(&before.to_le_bytes());

    let schedule = Schedule::Linear { warmup: 20, total: STEPS.0 + STEPS.1 };
    let adamw = AdamW { lr: q!(1e-2), weight_decay: q!(1e-2), ..AdamW::DEFAULT };
    let first = train(&model, &mut learner, &mut scratch, adamw, schedule, 0, STEPS.0, &mut digest)?;
    let sgd = Sgd { lr: q!(1e-2), ..Sgd::DEFAULT };
    let last = train(&model, &mut learner, &mut scratch, sgd, schedule, STEPS.0, STEPS.1, &mut digest)?;

    digest.bytes(&outputs(&model, &mut scratch, Some(&learner))?.to_le_bytes());
    if model.payload_crc_now() != crc {
        return Err(Failure::Check("training wrote to the base"));
    }
    if outputs(&model, &mut scratch, None)? != before {
        return Err(Failure::Check("switching the adapter off left a trace"));
    }
    let losses = (first.0, last.1);
    if losses.1 * 2 > losses.0 {
        return Err(Failure::Check("the loss did not fall to a half"));
    }
    Ok(Outcome { digest: digest.value(), steps: STEPS.0 + STEPS.1, losses, arena: PLAN.bytes() })
}

/// Trains `steps` steps; takes losses, some gradients and some parameters into the digest. Returns the mean loss of the
/// first and of the last 64 samples.
#[allow(clippy::too_many_arguments)] // A test's inner loop; each argument is one thing.
fn train<O: Optimizer>(
    model: &Model<'_>,
    learner: &mut Learner<'_>,
    scratch: &mut Scratch<'_>,
    optimizer: O,
    schedule: Schedule,
    from: u32,
    steps: u32,
    digest: &mut Digest,
) -> Result<(i32, i32), Failure> {
    let mut trainer = Trainer::new(model, learner, optimizer)?
        .accumulate(ACCUMULATE)
        .clip(q!(1.0))
        .schedule(schedule)
        .dropout(q!(0.05))?
        .seed(Seed(11));
    let samples = steps * ACCUMULATE;
    let (mut early, mut late) = (Real::ZERO, Real::ZERO);
    for n in 0..samples {
        let (window, class) = sample(from * ACCUMULATE + n);
        trainer.sample(Input::i16(&window, Exp(-14)), Target::Class(class), scratch)?;
        let loss = trainer.step(scratch)?;
        digest.i32s(&[loss.mantissa(), loss.exponent()]);
        if n < 64 {
            early = early.add(loss);
        }
        if n + 64 >= samples {
            late = late.add(loss);
        }
        let learner = trainer.learner();
        if n % 32 == 0 {
            // Between the two samples of a step the gradients can be read.
            for index in 0..learner.records().len() {
                for (values, exponent) in learner.gradient(index).into_iter().flatten() {
                    digest.i32s(values);
                    digest.i32s(&[exponent]);
                }
            }
        }
        if n % 32 == 31 {
            digest.i16s(learner.high());
            digest.i16s(learner.low());
            for r in learner.records() {
                digest.i16s(&[r.a_exponent, r.b_exponent]);
            }
        }
    }
    let thousandths = |sum: Real| sum.mul(Real::ratio(1000, 64)).to_q(0);
    Ok((thousandths(early), thousandths(late)))
}

/// The digest of sixteen outputs, without an adapter or with three views of one: as it is, halved, and subtracted.
fn outputs(model: &Model<'_>, scratch: &mut Scratch<'_>, learner: Option<&Learner<'_>>) -> Result<u64, Failure> {
    let mut digest = Digest::new();
    for n in 0..16 {
        let (window, _) = sample(1_000_000 + n);
        let input = Input::i16(&window, Exp(-14));
        let y = match learner {
            None => model.infer(scratch, input, &[])?,
            Some(l) => {
                let view = l.view();
                model.infer(scratch, input, &[view, view.scaled(q!(0.5)), view.scaled(q!(-0.25))])?
            }
        };
        digest.i16s(y.mantissas);
        digest.i16s(&[y.exponent.0]);
    }
    Ok(digest.value())
}

/// Sample `n`: a drawn window within ±1, and the place of the largest among its first values.
fn sample(n: u32) -> ([i16; FEATURES], usize) {
    let stream = Stream::new(Seed(3), Purpose::Shuffle, n, 0);
    let mut window = [0; FEATURES];
    for (i, w) in window.iter_mut().enumerate() {
        *w = (stream.at(i as u32) >> 17) as i16 - 16384;
    }
    let class = (0..CLASSES).max_by_key(|&c| window.get(c).copied()).unwrap_or(0);
    (window, class)
}
