//! `ranklet train --base base.rkl --data train.safetensors … -o new.rkl`: the device's own arithmetic, on the host.

use super::data::{Data, DataArgs};
use crate::adapter::{check_alpha, trainable_line};
use crate::atomic::identity;
use crate::dataset;
use crate::files;
use crate::image::adapter::Parts;
use crate::image::{ImageFile, metadata, parameters, sites};
use crate::infer;
use crate::journal::{Journal, accuracy};
use crate::lessons::{self, Score, longest};
use crate::metrics;
use crate::progress;
use crate::report::{Report, decimal};
use crate::tensor::name_list;
use crate::training::material::{Lessons, Rows};
use crate::training::{self, Best, Checks, Event, Recipe, Start};
use anyhow::{Context, Result, bail, ensure};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::image::MAX_RANK;
use ranklet::model::{Active, Model, Roles};
use ranklet::train::{AdamW, LearnError, LossKind, Rule, Schedule, Sgd};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

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
    /// What to learn from.
    #[command(flatten)]
    pub source: DataArgs,
    /// Rank of the new adapter, 1 to 64 [default: 8].
    #[arg(long)]
    pub rank: Option<u16>,
    /// alpha of the new adapter; its scaling is alpha / rank [default: 8].
    #[arg(long)]
    pub alpha: Option<f64>,
    /// Layers that get a pair, separated by commas: all, head, hidden; of transformers q, k, v, o, up, gate, down, pooler, input;
    /// or module names, or the ends of such, as PEFT's target_modules [default: all].
    #[arg(long, value_delimiter = ',')]
    pub on: Vec<String>,
    /// B alone learns, and A stays as it was drawn: less to remember, a little less to learn.
    #[arg(long)]
    pub only_b: bool,
    /// Go on from this adapter, with its rank, alpha and layers.
    #[arg(long, conflicts_with_all = ["rank", "alpha", "on"])]
    pub init: Option<PathBuf>,
    /// Go on from this checkpoint, as if training had not stopped: with the same data and options, but for --rank, --alpha and --on, which it
    /// holds itself; and with more --steps or --epochs in all. With --patience the best of the same training counts on, if it still stands at
    /// --output; patience itself begins anew.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["init", "rank", "alpha", "on"])]
    pub resume: Option<PathBuf>,
    /// Write a checkpoint at the end: with it --resume goes on bit for bit, on the host or on a device.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
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
    /// Stop after so many steps, of those above, for now: --checkpoint and --resume take up the rest.
    #[arg(long, value_name = "STEPS")]
    pub stop: Option<u32>,
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
    /// Look at these data while training: a file of the same kind.
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// Look after so many steps, and at the end [default: an epoch].
    #[arg(long, value_name = "STEPS", requires = "eval")]
    pub every: Option<u32>,
    /// Stop where so many looks in a row find nothing better, and keep the best.
    #[arg(long, value_name = "LOOKS", requires = "eval")]
    pub patience: Option<u32>,
    /// Write what every step came to: a line each (.csv), or one document (.json).
    #[arg(long, value_name = "FILE.csv|FILE.json")]
    pub log: Option<PathBuf>,
    /// Draw the curves.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
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
    let mut read = args.source.read();
    read.push(&args.base);
    read.extend(args.init.as_deref().into_iter().chain(args.resume.as_deref()).chain(args.eval.as_deref()));
    let outputs = [
        ("--output", Some(&args.output)),
        ("--log", args.log.as_ref()),
        ("--plot", args.plot.as_ref()),
        ("--checkpoint", args.checkpoint.as_ref()),
    ];
    let outputs: Vec<_> = outputs.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
    for (n, (name, path)) in outputs.iter().enumerate() {
        super::check_output(path, &read)?;
        let same = outputs[..n].iter().find(|(_, other)| identity(other) == identity(path));
        if let Some((other, _)) = same {
            bail!("{other} and {name} are the same file, {}", path.display());
        }
    }
    let as_json = args.log.as_ref().is_some_and(|p| p.extension().is_some_and(|e| e == "json"));
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let loss = args.loss.map_or_else(|| dataset::loss_of(model.spec().head), |l| Ok(l.kind()))?;
    let data = args.source.open(args.source.path(), &model, loss)?;
    let other = args.eval.as_ref().map(|path| args.source.open(path, &model, loss)).transpose()?;
    let rows = data.len();
    let saved =
        args.resume.as_ref().map(|path| files::read(path).with_context(|| format!("cannot read {}", path.display())));
    let saved = saved.transpose()?;
    let (fresh, mut meta) = if saved.is_some() { (Parts::default(), Map::new()) } else { start(args, &model)? };
    let start = saved.as_deref().map_or(Start::Adapter(&fresh), Start::Checkpoint);
    let recipe = recipe(args, rows, loss);

    ensure!(
        recipe.steps <= MAX_STEPS,
        "{} steps; at most {MAX_STEPS} at a time, for the loss of each is kept: go on with --init",
        recipe.steps
    );
    let samples = u64::from(recipe.steps) * u64::from(recipe.batch).min(rows as u64);
    let tokens = match &data {
        Data::Rows(..) => 1,
        Data::Lessons(lessons) => longest(lessons).0 as u64,
    };
    let cost = samples.saturating_mul(3 * tokens).saturating_mul(infer::macs(&model));
    let bar = progress::bar(recipe.stop.into(), cost, json, "steps");
    let mut journal = Journal::default();
    let mut smooth = None;
    let each = |event| {
        if let Event::Step(step) = event {
            let s = smooth.map_or(step.loss, |s: f64| 0.95 * s + 0.05 * step.loss);
            smooth = Some(s);
            bar.set_message(format!("loss {}  lr {}", decimal(s, 4), decimal(step.lr, 6)));
            bar.inc(1);
        }
        journal.push(event);
    };
    let every = args.every.unwrap_or(training::steps_per_epoch(rows, args.batch));
    let measure = |view: Active<'_>| match &other {
        Some(data) => measured(&model, &[view], data),
        None => Ok(Score::default()),
    };
    let before = args.resume.as_ref().zip(args.patience).and_then(|_| best_before(&args.output, &model, &measure));
    let checks = other.is_some().then_some(Checks { every, patience: args.patience, measure: &measure, before });
    let outputs = model.spec().outputs;
    let trained = match (&data, model.spec().transformer()) {
        (Data::Lessons(lessons), Some(t)) => {
            training::train(&model, start, &Lessons { t, lessons }, &recipe, checks.as_ref(), each)?
        }
        (Data::Rows(inputs, targets), _) => {
            training::train(&model, start, &Rows { inputs, targets, outputs }, &recipe, checks.as_ref(), each)?
        }
        _ => bail!("these data are for another kind of base"),
    };
    bar.finish_and_clear();
    let (parts, log) = (trained.parts, &journal.steps);
    if log.is_empty() {
        bail!(
            "nothing to do: the checkpoint has made {} steps, and {} were asked for; give more --steps, --epochs or --stop",
            trained.steps,
            recipe.stop.min(recipe.steps)
        );
    }

    let (first, last) = journal.ends();
    let seen: u64 = log.iter().map(|s| u64::from(s.samples)).sum(); // in this run
    let name = if args.optimizer == OptimizerName::Sgd { "sgd" } else { "adamw" };
    let notes = json!({
        "optimizer": name,
        "lr": short(recipe.optimizer_lr()),
        "steps": trained.steps,
        "samples": trained.samples,
        "batch": recipe.batch,
        "seed": args.seed,
        "final_loss": short(last),
    });
    meta.insert("base_parameters".to_owned(), parameters(&model).into());
    meta.insert("training".to_owned(), notes.clone());
    let bytes = parts.emit(model.source(), model.head().image, &meta)?;
    // All outputs are complete in memory; the log goes first, so that an adapter never stands without it.
    if let Some(path) = &args.log {
        super::save(path, if as_json { journal.json(&notes) } else { journal.csv() }.as_bytes())?;
    }
    if let Some(path) = &args.checkpoint {
        super::save(path, &trained.checkpoint)?;
    }
    if let Some(path) = &args.plot {
        super::save(path, journal.svg(&args.base.display().to_string()).as_bytes())?;
    }
    let size = super::save(&args.output, &bytes)?;

    let trainable = parts.records.iter().map(|r| (r.a_len() + r.b_len()) as u64).sum();
    let mut human = format!(
        "{}: {size}, {} steps, {seen} samples\n{}\nloss {} → {}  {}",
        args.output.display(),
        log.len(),
        trainable_line(trainable, parameters(&model)),
        decimal(first, 4),
        decimal(last, 4),
        journal.sparkline(),
    );
    let best = journal.best();
    if let (Some((step, best)), Some((last, score))) = (best, journal.checks.last()) {
        let told = |s: &Score| match accuracy(s) {
            Some(a) => format!("loss {}, {a:.2} % right", decimal(s.loss, 4)),
            None => format!("loss {}", decimal(s.loss, 4)),
        };
        human += &format!("\non --eval: {} after step {last}; best {} after step {step}", told(score), told(&best));
        if args.patience.is_some() {
            human += &format!("; the adapter is that of step {}", trained.steps);
        }
    }
    let json = json!({
        "output": super::shown(&args.output),
        "log": args.log.as_deref().map(super::shown),
        "steps": log.len(),
        "samples": seen,
        "first_loss": first,
        "final_loss": last,
        "losses": log.iter().map(|s| s.loss).collect::<Vec<_>>(),
        "evaluations": journal.checks.iter().map(|(step, s)| json!({"step": step, "loss": s.loss, "accuracy": accuracy(s)})).collect::<Vec<_>>(),
        "kept_step": trained.steps,
        "stopped_early": trained.early,
        "plot": args.plot.as_deref().map(super::shown),
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
    ensure!(args.stop != Some(0), "--stop 0: expected 1 or more steps");
    ensure!(args.every != Some(0), "--every 0: expected 1 or more steps");
    ensure!(args.patience != Some(0), "--patience 0: expected 1 or more looks");
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
        stop: args.stop.unwrap_or(steps),
        clip: args.clip.map(real),
        dropout: real(args.dropout),
        seed: Seed(args.seed),
        loss,
        shuffle: !args.no_shuffle,
        only_b: args.only_b,
    }
}

impl Recipe {
    fn optimizer_lr(&self) -> f64 {
        use ranklet::train::Optimizer;
        self.optimizer.lr().to_f64()
    }
}

/// What training starts from, and the metadata that stay with it.
/// The adapter that an earlier run has left where this one would, with its loss on the other data.
fn best_before(path: &Path, model: &Model<'_>, measure: &dyn Fn(Active<'_>) -> Result<Score>) -> Option<Best> {
    let file = ImageFile::open(path).ok()?;
    let adapter = file.adapter(model).ok()?;
    let loss = measure(adapter.view()).ok()?.loss;
    let told = metadata::parse(adapter.metadata());
    let steps = told.get("training").and_then(|t| t.get("steps")?.as_u64()).unwrap_or(0);
    Some(Best { parts: Parts::copy(&adapter), loss, steps: steps as u32 })
}

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

/// Roles by name.
pub(crate) const ROLES: [(&str, Roles); 12] = [
    ("all", Roles::ALL),
    ("hidden", Roles::HIDDEN),
    ("head", Roles::HEAD),
    ("q", Roles::Q),
    ("k", Roles::K),
    ("v", Roles::V),
    ("o", Roles::O),
    ("gate", Roles::GATE),
    ("up", Roles::UP),
    ("down", Roles::DOWN),
    ("pooler", Roles::POOLER),
    ("input", Roles::INPUT),
];

/// How a model does on data.
pub(crate) fn measured(model: &Model<'_>, adapters: &[Active<'_>], data: &Data) -> Result<Score> {
    match (data, model.spec().transformer()) {
        (Data::Lessons(all), Some(t)) => lessons::measure(model, t, adapters, all, || ()),
        (Data::Rows(inputs, targets), _) => {
            let logits = infer::run(model, adapters, &inputs.data, || ())?;
            let m = metrics::measure(&logits, model.spec().outputs, targets);
            let answers = m.correct.map_or(inputs.rows() as u64, |c| c.1);
            Ok(Score { loss: m.loss, answers, right: m.correct.map(|c| c.0) })
        }
        _ => bail!("these data are for another kind of base"),
    }
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
            (None, other) => {
                let ending = format!(".{other}");
                let by_end: Vec<u16> =
                    (0..).zip(&sites).filter(|(_, s)| s.module.ends_with(&ending)).map(|(i, _)| i).collect();
                match ROLES.iter().find(|(name, _)| *name == other) {
                    _ if !by_end.is_empty() => by_end,
                    Some((_, roles)) => (0..sites.len() as u16).filter(|&s| role(s).meets(*roles)).collect(),
                    None => {
                        let roles = name_list(ROLES.iter().map(|r| r.0), ROLES.len());
                        let names = name_list(sites.iter().map(|s| s.module.as_str()), 12);
                        bail!("--on {other}: expected {roles}, or a module of the base, which has {names}")
                    }
                }
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
