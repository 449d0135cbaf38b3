//! `ranklet train --base base.rkl --data train.safetensors … -o new.rkl`: the device's own arithmetic, on the host.

use crate::adapter::{check_alpha, trainable_line};
use crate::atomic::identity;
use crate::dataset;
use crate::image::adapter::Parts;
use crate::image::{ImageFile, metadata, parameters, sites};
use crate::infer;
use crate::progress;
use crate::report::{Report, decimal};
use crate::tensor::name_list;
use crate::training::{self, Recipe, StepLog};
use anyhow::{Context, Result, bail, ensure};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::image::MAX_RANK;
use ranklet::model::{Model, Roles};
use ranklet::train::{AdamW, LearnError, LossKind, Rule, Schedule, Sgd};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Steps of one run.
const MAX_STEPS: u32 = 10_000_000;

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OptimizerName {
    /// SGD with momentum, as torch.optim.SGD.
    Sgd,
    /// AdamW, as torch.optim.AdamW.
    Adamw,
}

/// The learning rate over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScheduleName {
    /// The same throughout (after --warmup).
    Constant,
    /// Down to 0 at the last step (after --warmup).
    Linear,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loss {
    /// For exclusive classes: `labels`.
    CrossEntropy,
    /// For yes/no logits: `labels` or `targets` of 0 and 1.
    Bce,
    /// For values: `targets`.
    Mse,
}

impl Loss {
    /// As the core knows it.
    #[must_use]
    pub const fn kind(self) -> LossKind {
        match self {
            Loss::CrossEntropy => LossKind::CrossEntropy,
            Loss::Bce => LossKind::BinaryCrossEntropy,
            Loss::Mse => LossKind::MeanSquaredError,
        }
    }
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// The base image. It is only read.
    #[arg(long)]
    pub base: PathBuf,
    /// `inputs` F32 (N, features), and `labels` I64 (N) or `targets` F32 (N, outputs).
    #[arg(long)]
    pub data: PathBuf,
    /// Rank of the new adapter, 1 to 64 [default: 8].
    #[arg(long)]
    pub rank: Option<u16>,
    /// alpha of the new adapter; its scaling is alpha / rank [default: 8].
    #[arg(long)]
    pub alpha: Option<f64>,
    /// Layers that get a pair: all, hidden, head, or module names, separated by commas [default: all].
    #[arg(long, value_delimiter = ',')]
    pub on: Vec<String>,
    /// Go on from this adapter, with its rank, alpha and layers.
    #[arg(long, conflicts_with_all = ["rank", "alpha", "on"])]
    pub init: Option<PathBuf>,
    /// The rule.
    #[arg(long, value_enum, default_value = "adamw")]
    pub optimizer: OptimizerName,
    /// Learning rate [default: 0.001 for adamw, 0.01 for sgd].
    #[arg(long)]
    pub lr: Option<f64>,
    /// For sgd.
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f64,
    /// Decoupled for adamw, L2 for sgd, as in PyTorch.
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Samples a step: their gradients are averaged.
    #[arg(long, default_value_t = 1)]
    pub batch: u32,
    /// Passes over the data [default: 1].
    #[arg(long, conflicts_with = "steps")]
    pub epochs: Option<u32>,
    /// Optimizer steps, instead of epochs.
    #[arg(long)]
    pub steps: Option<u32>,
    /// The learning rate over time.
    #[arg(long, value_enum, default_value = "constant")]
    pub schedule: ScheduleName,
    /// Steps until the full learning rate.
    #[arg(long, default_value_t = 0)]
    pub warmup: u32,
    /// Clip the gradient of all pairs together to this L2 norm.
    #[arg(long)]
    pub clip: Option<f64>,
    /// Dropout on the pairs' inputs, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
    /// Fixes everything random; the result is the same on every machine.
    #[arg(long, default_value_t = 0)]
    pub seed: u32,
    /// Take the samples in the file's order in every epoch.
    #[arg(long)]
    pub no_shuffle: bool,
    /// The loss; by default that of the base's head.
    #[arg(long, value_enum)]
    pub loss: Option<Loss>,
    /// Write a line for every step: step,epoch,samples,loss,lr.
    #[arg(long, value_name = "FILE.csv")]
    pub log: Option<PathBuf>,
    /// The adapter image to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Trains.
///
/// # Errors
/// What is wrong with the files or the options; nothing is written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    check(args)?;
    let mut read = vec![args.base.as_path(), &args.data];
    read.extend(args.init.as_deref());
    super::check_output(&args.output, &read)?;
    if let Some(log) = &args.log {
        super::check_output(log, &read)?;
        ensure!(identity(log) != identity(&args.output), "--log and --output are the same file, {}", log.display());
    }
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    super::perceptron(&model, "train")?;
    let loss = args.loss.map_or_else(|| dataset::loss_of(model.spec().head), |l| Ok(l.kind()))?;
    let data = dataset::open(&args.data)?;
    let inputs = dataset::inputs(&data, model.spec().features)?;
    let rows = inputs.rows();
    ensure!(rows > 0, "{}: `inputs` has no rows", args.data.display());
    let targets = dataset::targets(&data, loss, rows, model.spec().outputs)?;
    let (start, mut meta) = start(args, &model)?;
    let recipe = recipe(args, rows, loss);

    ensure!(
        recipe.steps <= MAX_STEPS,
        "{} steps; at most {MAX_STEPS} at a time, for the loss of each is kept: go on with --init",
        recipe.steps
    );
    let samples = u64::from(recipe.steps) * u64::from(recipe.batch).min(rows as u64);
    let cost = samples.saturating_mul(3).saturating_mul(infer::macs(&model));
    let bar = progress::bar(recipe.steps.into(), cost, json, "steps");
    let mut log: Vec<StepLog> = Vec::new();
    let mut smooth = None;
    let parts = training::train(&model, &start, &inputs, &targets, &recipe, |step| {
        let s = smooth.map_or(step.loss, |s: f64| 0.95 * s + 0.05 * step.loss);
        smooth = Some(s);
        bar.set_message(format!("loss {}", decimal(s, 4)));
        bar.inc(1);
        log.push(step);
    })?;
    bar.finish_and_clear();

    let (first, last) = ends(&log);
    let seen: u64 = log.iter().map(|s| u64::from(s.samples)).sum();
    let name = if args.optimizer == OptimizerName::Sgd { "sgd" } else { "adamw" };
    let notes = json!({
        "optimizer": name,
        "lr": short(recipe.optimizer_lr()),
        "steps": recipe.steps,
        "samples": seen,
        "batch": recipe.batch,
        "seed": args.seed,
        "final_loss": short(last),
    });
    meta.insert("base_parameters".to_owned(), parameters(&model).into());
    meta.insert("training".to_owned(), notes);
    let bytes = parts.emit(model.source(), model.head().image, &meta)?;
    // Both outputs are complete in memory; the log goes first, so that an adapter never stands without it.
    if let Some(path) = &args.log {
        super::save(path, csv(&log).as_bytes())?;
    }
    let size = super::save(&args.output, &bytes)?;

    let trainable = parts.records.iter().map(|r| (r.a_len() + r.b_len()) as u64).sum();
    let human = format!(
        "{}: {size}, {} steps, {seen} samples\n{}\nloss {} → {}  {}",
        args.output.display(),
        log.len(),
        trainable_line(trainable, parameters(&model)),
        decimal(first, 4),
        decimal(last, 4),
        sparkline(&log),
    );
    let json = json!({
        "output": super::shown(&args.output),
        "log": args.log.as_deref().map(super::shown),
        "steps": log.len(),
        "samples": seen,
        "first_loss": first,
        "final_loss": last,
        "losses": log.iter().map(|s| s.loss).collect::<Vec<_>>(),
        "trainable_params": trainable,
        "all_params": trainable + parameters(&model),
        "source": model.source().to_string(),
    });
    Ok(Report::new(human, json))
}

fn check(args: &Args) -> Result<()> {
    let finite = |name: &str, x: f64, ok: bool, expected: &str| {
        ensure!(x.is_finite() && ok, "--{name} {x:?}: expected {expected}");
        Ok(())
    };
    args.lr.map_or(Ok(()), |x| finite("lr", x, x > 0.0, "a number above 0"))?;
    args.alpha.map_or(Ok(()), |x| {
        finite("alpha", x, x != 0.0, "a number other than 0")?;
        check_alpha(x).with_context(|| format!("--alpha {x:?}"))
    })?;
    args.clip.map_or(Ok(()), |x| finite("clip", x, x > 0.0, "a norm above 0"))?;
    finite("momentum", args.momentum, (0.0..1.0).contains(&args.momentum), "0 or more, below 1")?;
    finite("weight-decay", args.weight_decay, args.weight_decay >= 0.0, "0 or more")?;
    finite("dropout", args.dropout, (0.0..1.0).contains(&args.dropout), "0 or more, below 1")?;
    ensure!(args.batch > 0, "--batch 0: expected 1 or more samples a step");
    ensure!(args.epochs != Some(0) && args.steps != Some(0), "0 epochs or steps: there is nothing to train");
    if let Some(rank) = args.rank {
        ensure!((1..=MAX_RANK).contains(&usize::from(rank)), "--rank {rank}: expected 1 to {MAX_RANK}");
    }
    Ok(())
}

fn recipe(args: &Args, rows: usize, loss: LossKind) -> Recipe {
    let real = Real::from_f64;
    let optimizer = match args.optimizer {
        OptimizerName::Sgd => Rule::Sgd(Sgd {
            lr: args.lr.map_or(Sgd::DEFAULT.lr, real),
            momentum: real(args.momentum),
            weight_decay: real(args.weight_decay),
        }),
        OptimizerName::Adamw => Rule::AdamW(AdamW {
            lr: args.lr.map_or(AdamW::DEFAULT.lr, real),
            weight_decay: real(args.weight_decay),
            ..AdamW::DEFAULT
        }),
    };
    let per_epoch = training::steps_per_epoch(rows, args.batch);
    let steps = args.steps.unwrap_or_else(|| args.epochs.unwrap_or(1).saturating_mul(per_epoch));
    let warmup = args.warmup;
    let schedule = match args.schedule {
        ScheduleName::Constant if warmup == 0 => Schedule::Constant,
        ScheduleName::Constant => Schedule::Warmup { warmup },
        ScheduleName::Linear => Schedule::Linear { warmup, total: steps },
    };
    Recipe {
        optimizer,
        schedule,
        batch: args.batch,
        steps,
        clip: args.clip.map(real),
        dropout: real(args.dropout),
        seed: Seed(args.seed),
        loss,
        shuffle: !args.no_shuffle,
    }
}

impl Recipe {
    fn optimizer_lr(&self) -> f64 {
        use ranklet::train::Optimizer;
        self.optimizer.lr().to_f64()
    }
}

/// What training starts from, and the metadata that stay with it.
fn start(args: &Args, model: &Model<'_>) -> Result<(Parts, Map<String, Value>)> {
    if let Some(path) = &args.init {
        let file = ImageFile::open(path)?;
        let adapter = file.adapter(model)?;
        if adapter.low().is_empty() {
            // As a device would: below the 16 bits of the high plane nothing is known of where training had come.
            bail!("--init {}: {}; convert it without --inference-only", path.display(), LearnError::NoLowPlane);
        }
        let mut meta = metadata::parse(adapter.metadata());
        meta.retain(|k, _| k == "peft_config");
        let parts = Parts::copy(&adapter);
        let idle = parts.records.iter().all(|r| r.scaling().is_zero());
        ensure!(!idle, "{}: nothing to train: it holds no pair with a scaling other than 0", path.display());
        return Ok((parts, meta));
    }
    let rank = args.rank.unwrap_or(8);
    let scaling = args.alpha.unwrap_or(8.0) / f64::from(rank);
    let chosen = chosen(&args.on, model)?;
    Ok((training::fresh(model, rank, scaling, &chosen, Seed(args.seed))?, Map::new()))
}

/// The sites that `--on` names.
pub(crate) fn chosen(on: &[String], model: &Model<'_>) -> Result<Vec<u16>> {
    let sites = sites(model);
    let role = |site: u16| model.linear_spec(site).map_or(Roles(0), |l| l.role);
    let mut chosen = Vec::new();
    let all: Vec<String> = vec!["all".to_owned()];
    for word in if on.is_empty() { &all } else { on } {
        // A module's own name comes first, should one be called like a role.
        let by_name = sites.iter().position(|s| s.module == *word);
        let matching: Vec<u16> = match (by_name, word.as_str()) {
            (Some(site), _) => vec![site as u16],
            (None, "all") => (0..sites.len() as u16).collect(),
            (None, "hidden") => (0..sites.len() as u16).filter(|&s| role(s).meets(Roles::HIDDEN)).collect(),
            (None, "head") => (0..sites.len() as u16).filter(|&s| role(s).meets(Roles::HEAD)).collect(),
            (None, other) => {
                let names = name_list(sites.iter().map(|s| s.module.as_str()), 12);
                bail!("--on {other}: expected all, hidden, head, or a module of the base, which has {names}")
            }
        };
        if matching.is_empty() {
            bail!("--on {word}: this base has no such layer");
        }
        chosen.extend(matching);
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// Six digits: for people, and to keep an image small.
fn short(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// The mean loss of the first and of the last tenth.
fn ends(log: &[StepLog]) -> (f64, f64) {
    let n = log.len().div_ceil(10);
    let mean = |part: &[StepLog]| part.iter().map(|s| s.loss).sum::<f64>() / part.len().max(1) as f64;
    (mean(&log[..n]), mean(&log[log.len() - n..]))
}

/// The losses in at most 40 steps of eight heights.
fn sparkline(log: &[StepLog]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let means: Vec<f64> = log
        .chunks(log.len().div_ceil(40).max(1))
        .map(|c| c.iter().map(|s| s.loss).sum::<f64>() / c.len() as f64)
        .collect();
    let top = means.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    means.iter().map(|m| BARS[((m / top * 7.99).max(0.0) as usize).min(7)]).collect()
}

fn csv(log: &[StepLog]) -> String {
    let mut out = "step,epoch,samples,loss,lr\n".to_owned();
    for s in log {
        out += &format!("{},{},{},{},{}\n", s.step, s.epoch, s.samples, s.loss, s.lr);
    }
    out
}
