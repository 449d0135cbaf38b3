//! Whole networks: inference, what one sample costs in training, and the optimizers, a parameter.

use core::hint::black_box;

use ranklet::{
    fixed::{Exp, hash::Seed},
    image::Image,
    include_image,
    layer::{head::argmax, normalize::Input},
    model::{Active, Model, Plan, RunError, Scratch, Train, Workspace},
    train::{AdamW, Optimizer, Sgd, Target, TrainError, Trainer},
};

use super::{forward::RANK, memory::Memory, meter::Meter, weights::Pool};
use crate::{Board, Failure, record::Work};

/// A committed network.
#[derive(Clone, Copy)]
pub(super) struct Network {
    name: &'static str,
    image: &'static Image,
}

/// The demo's.
pub(super) static DIGITS: Network = {
    static IMAGE: Image = include_image!("../../../../models/digits/digits.rkl");
    Network { name: "digits", image: &IMAGE }
};

/// The suite's: it learns in 16 KB of RAM.
pub(super) static TINY: Network = {
    static IMAGE: Image = include_image!("../../../../models/tiny/tiny.rkl");
    Network { name: "tiny", image: &IMAGE }
};

/// Steps before the one that is counted: then neither B nor a moment is empty.
const WARM: u32 = 3;

/// The base alone.
pub(super) fn infer<B: Board>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    network: &Network,
) -> Result<(), Failure> {
    let (model, plan) = (Model::open(network.image)?, Plan::new(network.image)?);
    let input = input(&model, pool, 0);
    let mut scratch = Workspace::new(memory.take(plan.scratch_bytes() + 15)?).scratch(&plan)?;
    let (done, instructions) = meter.count(|| bench_infer(&model, &mut scratch, input, &[]))?;
    done?;
    meter.print("infer", network.name, instructions, Work::Macs(macs(&model, 0)))
}

/// An adapter on every layer: inference, a sample forth and back, a step of AdamW.
pub(super) fn adamw<B: Board>(
    meter: &mut Meter<'_, B>,
    memory: Memory<'_>,
    pool: &Pool,
    network: &Network,
) -> Result<(), Failure> {
    learn(meter, memory, pool, network, Train::adamw(), AdamW::DEFAULT, "adamw", true)
}

/// A step of SGD with momentum.
pub(super) fn momentum<B: Board>(
    meter: &mut Meter<'_, B>,
    memory: Memory<'_>,
    pool: &Pool,
    network: &Network,
) -> Result<(), Failure> {
    learn(meter, memory, pool, network, Train::momentum(), Sgd::DEFAULT, "sgd-momentum", false)
}

#[allow(clippy::too_many_arguments)] // Two callers above; each argument is one thing.
fn learn<B: Board, O: Optimizer>(
    meter: &mut Meter<'_, B>,
    mut memory: Memory<'_>,
    pool: &Pool,
    network: &Network,
    train: Train,
    optimizer: O,
    rule: &str,
    whole: bool,
) -> Result<(), Failure> {
    let model = Model::open(network.image)?;
    let plan = Plan::new(network.image)?.train(train.rank(RANK as u16).alpha(2 * RANK as u16));
    let (mut scratch, learn) = Workspace::new(memory.take(plan.bytes() + 15)?).split(&plan)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let parameters = learner.high().len() as u64;

    // Steps are made by `flush`, never by the number of samples.
    let mut trainer = Trainer::new(&model, &mut learner, optimizer)?.accumulate(u32::MAX);
    let (mut sample, mut step) = (0, 0);
    for n in 0..=WARM {
        let (input, target) = (input(&model, pool, n as usize), Target::Class(n as usize % model.spec().outputs));
        let done;
        (done, sample) = meter.count(|| bench_sample(&mut trainer, &mut scratch, input, target))?;
        done?;
        let done;
        (done, step) = meter.count(|| bench_step(&mut trainer, &mut scratch))?;
        done?;
    }
    trainer.sample(input(&model, pool, 0), Target::Class(0), &mut scratch)?;
    let longest_of_sample = longest(meter, &mut trainer, &mut scratch)?;
    trainer.flush()?;
    let longest_of_step = longest(meter, &mut trainer, &mut scratch)?;
    drop(trainer);
    if whole {
        let adapters = [learner.view()];
        let input = input(&model, pool, 0);
        let (done, instructions) = meter.count(|| bench_infer(&model, &mut scratch, input, &adapters))?;
        done?;
        meter.print(format_args!("infer+lora{RANK}"), network.name, instructions, Work::Macs(macs(&model, RANK)))?;
        meter.print(format_args!("train-sample+lora{RANK}"), network.name, sample, Work::Units(1, "sample"))?;
        let unit = Work::Units(1, "unit");
        meter.print(format_args!("train-sample+lora{RANK}-longest-unit"), network.name, longest_of_sample, unit)?;
    }
    meter.print(format_args!("{rule}-step"), network.name, step, Work::Units(parameters, "parameter"))?;
    meter.print(format_args!("{rule}-longest-unit"), network.name, longest_of_step, Work::Units(1, "unit"))
}

/// Runs all units, and tells what the longest cost: what lies between two moments in which firmware can do anything else.
fn longest<B: Board, O: Optimizer>(
    meter: &mut Meter<'_, B>,
    trainer: &mut Trainer<'_, '_, '_, O>,
    scratch: &mut Scratch<'_>,
) -> Result<u64, Failure> {
    let mut longest = 0;
    loop {
        let (progress, instructions) = meter.count(|| trainer.advance(scratch))?;
        longest = longest.max(instructions);
        if !progress?.more() {
            return Ok(longest);
        }
    }
}

#[inline(never)]
fn bench_infer(
    model: &Model<'_>,
    scratch: &mut Scratch<'_>,
    input: Input<'_>,
    adapters: &[Active<'_>],
) -> Result<usize, RunError> {
    let y = model.infer(scratch, black_box(input), black_box(adapters))?;
    Ok(argmax(black_box(y.mantissas)))
}

/// A sample, forth and back; no step.
#[inline(never)]
fn bench_sample<O: Optimizer>(
    trainer: &mut Trainer<'_, '_, '_, O>,
    scratch: &mut Scratch<'_>,
    input: Input<'_>,
    target: Target<'_>,
) -> Result<(), TrainError> {
    trainer.sample(black_box(input), black_box(target), scratch)?;
    trainer.step(scratch)?;
    Ok(())
}

/// A step with the gradients that have come together.
#[inline(never)]
fn bench_step<O: Optimizer>(trainer: &mut Trainer<'_, '_, '_, O>, scratch: &mut Scratch<'_>) -> Result<(), TrainError> {
    trainer.flush()?;
    while trainer.advance(scratch)?.more() {}
    Ok(())
}

/// Sample `n`, drawn.
fn input(model: &Model<'_>, pool: &Pool, n: usize) -> Input<'static> {
    let features = model.spec().features;
    Input::i16(pool.i16.get(n * features..(n + 1) * features).unwrap_or(&[]), Exp(-14))
}

/// Multiply-accumulates of an inference, with an adapter of that rank on every layer.
fn macs(model: &Model<'_>, rank: usize) -> u64 {
    let layers = (0..model.spec().linears).filter_map(|site| model.linear_spec(site));
    layers.map(|l| (l.inputs * l.outputs + rank * (l.inputs + l.outputs)) as u64).sum()
}
