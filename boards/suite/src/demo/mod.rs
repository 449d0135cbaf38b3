//! The demo, the application that a person looks at: the camera was mounted sideways.
//!
//! A frozen base reads upright digits well and turned ones badly. The device trains an adapter from a few hundred
//! labelled images of its own, reads the turned ones well, and with the adapter switched off is what it was, bit for bit.
//!
//! - [`digits`]: the images in flash, and the turn
//! - [`screen`]: how things are drawn with text
//! - here: what happens, in order

pub mod digits;
pub mod screen;

use core::fmt::{self, Write as _};

use ranklet::{
    fixed::{
        Block, Exp, Real,
        hash::{Purpose, Seed, Stream},
    },
    float::likelihood,
    image::Image,
    include_image,
    layer::{
        head::{argmax, probability_permille},
        normalize::Input,
    },
    model::{Active, Arena, Model, Plan, Scratch, Train},
    q,
    train::{AdamW, Learner, Schedule, Target, Trainer},
};

use self::{
    digits::{DEVICE, Digit, TEST, View},
    screen::{History, Percent, Thousandths},
};
use crate::{
    Board, Failure, LEAF,
    busy::Busy,
    counter::Counter,
    digest::Digest,
    record::{self, Readings},
};

static BASE: Image = include_image!("../../../../models/digits/digits.rkl");
const PLAN: Plan = Plan::of(&BASE).train(Train::adamw().rank(RANK).alpha(2 * RANK));
static ARENA: Arena<{ PLAN.bytes() }> = Arena::new();

/// The adapter's rank; `cargo xtask demo --rank N` sets it.
pub const RANK: u16 = parse(option_env!("RANKLET_DEMO_RANK"), 8);
/// Times that every image is seen.
const EPOCHS: u32 = 16;
/// Samples a step.
const ACCUMULATE: u32 = 8;
/// Images drawn at the start and at the end.
const SHOWN: [usize; 4] = [3, 41, 97, 120];

/// What a pass over the test images brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    right: usize,
    /// Of all output vectors.
    digest: u64,
}

/// Runs the demo.
///
/// # Errors
/// The first failure: whatever the core refuses, and each promise that does not hold.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let counter = Counter::calibrate(board).ok();
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = ARENA.take()?.split(&PLAN)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let crc = model.payload_crc_now();

    writeln!(board, "ranklet on {}, kernel leaf {LEAF}: the camera was mounted sideways", B::NAME)?;
    let widths = (0..model.spec().linears).filter_map(|s| model.linear_spec(s)).map(|l| l.outputs);
    write!(board, "\n  base     {}", model.spec().features)?;
    widths.clone().try_for_each(|w| write!(board, "-{w}"))?;
    writeln!(board, ", 8-bit weights, {} bytes in flash, source {}", BASE.len(), model.source())?;
    let parameters = learner.high().len();
    writeln!(board, "  adapter  rank {RANK} on every layer: {parameters} parameters in RAM, B = 0")?;
    writeln!(board, "  data     {} labelled images to learn from, {} to test on\n", DEVICE.len(), TEST.len())?;

    draw(board, &model, &mut scratch, None)?;
    let upright = read(&model, &mut scratch, View::Upright, &[])?;
    let turned = read(&model, &mut scratch, View::Turned, &[])?;
    writeln!(board, "  before   upright {}   turned {}\n", accuracy(upright), accuracy(turned))?;

    let cost = train(board, &model, &mut learner, &mut scratch, counter.as_ref())?;

    writeln!(board)?;
    draw(board, &model, &mut scratch, Some(&learner))?;
    let after = read(&model, &mut scratch, View::Turned, &[learner.view()])?;
    let off = read(&model, &mut scratch, View::Upright, &[])?;
    let unchanged = model.payload_crc_now() == crc;
    writeln!(board, "                              upright   turned")?;
    writeln!(board, "  base alone                   {}    {}", accuracy(upright), accuracy(turned))?;
    let on = read(&model, &mut scratch, View::Upright, &[learner.view()])?;
    writeln!(board, "  with the adapter             {}    {}", accuracy(on), accuracy(after))?;
    let same = if off == upright { "the same bits as before" } else { "CHANGED" };
    writeln!(board, "  adapter switched off         {}    {same}", accuracy(off))?;
    writeln!(board, "  base fingerprint             {}", if unchanged { "unchanged" } else { "CHANGED" })?;

    costs(board, &model, &mut scratch, &learner, counter.as_ref(), cost)?;
    let mut file = board.create(c"turned.rkl").map_err(|e| Failure::File(embedded_io::Error::kind(&e)))?;
    let metadata = metadata::<B>(cost)?;
    learner.write_to(&mut file, metadata.as_bytes())?;
    drop(file);
    writeln!(board, "\n  wrote turned.rkl: the adapter as it lies in RAM, with both planes")?;

    let mut digest = Digest::new();
    digest.i16s(learner.high());
    digest.i16s(learner.low());
    [upright, turned, after, off, on].iter().for_each(|reading| digest.bytes(&reading.digest.to_le_bytes()));
    record::digest(board, LEAF, "demo", digest.value())?;
    let (images, adapted) = (TEST.len(), after.right);
    let readings = Readings { images, upright: upright.right, turned: turned.right, adapted, off: off.right };
    record::demo(board, &readings)?;
    record::stack(board)?;

    if off != upright || !unchanged {
        return Err(Failure::Check("the base is not what it was"));
    }
    if after.right * 10 < TEST.len() * 9 && RANK >= 8 {
        return Err(Failure::Check("fewer than 90 % of the turned images are read"));
    }
    Ok(())
}

/// What training cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    samples: u32,
    steps: u32,
    instructions: u64,
}

/// Trains the adapter on the device's images, turned; a line an epoch.
fn train<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    learner: &mut Learner<'_>,
    scratch: &mut Scratch<'_>,
    counter: Option<&Counter>,
) -> Result<Cost, Failure> {
    let samples = EPOCHS * DEVICE.len() as u32;
    let total = samples.div_ceil(ACCUMULATE);
    let adamw = AdamW { lr: q!(6e-3), ..AdamW::DEFAULT };
    let mut trainer = Trainer::new(model, learner, adamw)?
        .accumulate(ACCUMULATE)
        .schedule(Schedule::Linear { warmup: 10, total })
        .seed(Seed(1));
    let mut history = History::new();
    writeln!(board, "  training on the device: {EPOCHS} times {} turned images, {ACCUMULATE} a step", DEVICE.len())?;
    writeln!(
        board,
        "  (of each epoch: mean loss, and how probable the right digit was held; one bar less is half the loss)"
    )?;
    let mut cost = Cost { samples, ..Cost::default() };
    for epoch in 0..EPOCHS {
        let mut sum = Real::ZERO;
        for n in 0..DEVICE.len() as u32 {
            let digit = DEVICE.get(shuffled(epoch, n, DEVICE.len() as u32));
            let mut work = |board: &mut B| one(board, &mut trainer, scratch, digit);
            let loss = match counter {
                Some(counter) => {
                    let (loss, instructions) = counter.count(board, work)?;
                    cost.instructions += instructions;
                    loss?
                }
                None => work(board)?,
            };
            sum = sum.add(loss);
        }
        let mean = sum.mul(Real::ratio(1, DEVICE.len() as u32));
        let thousandths = mean.mul(Real::int(1000)).to_q(0);
        history.push(thousandths);
        let step = trainer.learner().steps();
        // The one float of the demo, and back to an integer: printing floats costs flash.
        let right = Percent((likelihood(mean) * 1000.0) as usize, 1000);
        writeln!(
            board,
            "  epoch {:2}  step {step:4}  loss {}  {right}  {history}",
            epoch + 1,
            Thousandths(thousandths)
        )?;
    }
    cost.steps = trainer.learner().steps();
    Ok(cost)
}

/// One sample, unit by unit: between units a firmware feeds its watchdog and its radio; here it toggles a light.
fn one<B: Board>(
    board: &mut B,
    trainer: &mut Trainer<'_, '_, '_, AdamW>,
    scratch: &mut Scratch<'_>,
    digit: Digit<'_>,
) -> Result<Real, Failure> {
    let dark = |_| Failure::Check("the light does not answer");
    let mut busy = Busy::new(board.light()).map_err(dark)?;
    let pixels = View::Turned.of(digit);
    trainer.sample(Input::u8(&pixels, Exp(0)), Target::Class(digit.label), scratch)?;
    let mut loss = Real::ZERO;
    loop {
        let progress = trainer.advance(scratch)?;
        loss = progress.loss.unwrap_or(loss);
        busy.unit().map_err(dark)?;
        if !progress.more() {
            break;
        }
    }
    busy.done().map_err(dark)?;
    Ok(loss)
}

/// Reads all test images.
fn read(model: &Model<'_>, scratch: &mut Scratch<'_>, view: View, adapters: &[Active<'_>]) -> Result<Reading, Failure> {
    let (mut right, mut digest) = (0, Digest::new());
    for n in 0..TEST.len() {
        let digit = TEST.get(n);
        let y = infer(model, scratch, &view.of(digit), adapters)?;
        right += usize::from(argmax(y.mantissas) == digit.label);
        digest.i16s(y.mantissas);
        digest.i16s(&[y.exponent.0]);
    }
    Ok(Reading { right, digest: digest.value() })
}

fn infer<'s>(
    model: &Model<'_>,
    scratch: &'s mut Scratch<'_>,
    pixels: &[u8],
    adapters: &[Active<'_>],
) -> Result<Block<'s>, Failure> {
    Ok(model.infer(scratch, Input::u8(pixels, Exp(0)), adapters)?)
}

/// A few turned test images, and what they are read as.
fn draw<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    scratch: &mut Scratch<'_>,
    learner: Option<&Learner<'_>>,
) -> Result<(), Failure> {
    let images = SHOWN.map(|n| View::Turned.of(TEST.get(n)));
    screen::digits(board, &images)?;
    write!(board, "  ")?;
    for (n, pixels) in SHOWN.iter().zip(&images) {
        let label = TEST.get(*n).label;
        let view = learner.map(Learner::view);
        let y = infer(model, scratch, pixels, view.as_slice())?;
        let class = argmax(y.mantissas);
        let mark = if class == label { "✓" } else { "✗" };
        let percent = (probability_permille(y, class) + 5) / 10;
        write!(board, "a {label}, read as {class} {mark}{percent:3}% ")?;
    }
    writeln!(board, "\n")?;
    Ok(())
}

/// What it all costs: RAM and instructions.
fn costs<B: Board>(
    board: &mut B,
    model: &Model<'_>,
    scratch: &mut Scratch<'_>,
    learner: &Learner<'_>,
    counter: Option<&Counter>,
    cost: Cost,
) -> Result<(), Failure> {
    let arena = PLAN.bytes();
    writeln!(
        board,
        "\n  RAM           arena {arena} bytes ({} to compute in, {} to learn in)",
        PLAN.scratch_bytes(),
        PLAN.learn_bytes()
    )?;
    if let Some(stack) = board.stack_used() {
        writeln!(board, "                stack {stack} bytes at its deepest")?;
    }
    if let Some(counter) = counter {
        let pixels = View::Turned.of(TEST.get(0));
        let (alone, base) = counter.count(board, |_| infer(model, scratch, &pixels, &[]).map(|_| ()))?;
        alone?;
        let (with, adapted) =
            counter.count(board, |_| infer(model, scratch, &pixels, &[learner.view()]).map(|_| ()))?;
        with?;
        writeln!(board, "  instructions  {base} an inference, {adapted} with the adapter")?;
        let step = cost.instructions / u64::from(cost.steps.max(1));
        writeln!(board, "                {step} a training step of {ACCUMULATE} samples (forward, backward, AdamW)")?;
        writeln!(board, "                {} in all, for {} steps", cost.instructions, cost.steps)?;
    }
    Ok(())
}

fn accuracy(reading: Reading) -> Percent {
    Percent(reading.right, TEST.len())
}

/// A permutation of `0..len`, another one each epoch: a step by an odd stride that shares no factor with `len`, from a drawn
/// start.
fn shuffled(epoch: u32, n: u32, len: u32) -> usize {
    let stream = Stream::new(Seed(1), Purpose::Shuffle, epoch, 0);
    let stride = (1..).map(|i| stream.at(i) % len).find(|&s| gcd(s, len) == 1).unwrap_or(1);
    ((u64::from(n) * u64::from(stride) + u64::from(stream.at(0) % len)) % u64::from(len)) as usize
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What the export's model card says of where the adapter comes from: a JSON object.
fn metadata<B: Board>(cost: Cost) -> Result<heapless::String<192>, fmt::Error> {
    let mut out = heapless::String::new();
    write!(
        out,
        "{{\"training\":{{\"device\":\"{} (emulated)\",\"optimizer\":\"AdamW\",\"steps\":{},\"samples\":{}}}}}",
        B::NAME,
        cost.steps,
        cost.samples
    )?;
    Ok(out)
}

/// A decimal number of an environment variable, at compile time.
const fn parse(text: Option<&str>, default: u16) -> u16 {
    let Some(text) = text else {
        return default;
    };
    match u16::from_str_radix(text, 10) {
        Ok(n) => n,
        Err(_) => default,
    }
}
