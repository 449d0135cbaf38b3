//! `ranklet verify --base base.rkl --checkpoint DIR [--adapter a.rkl --peft DIR]`

use crate::base::Base;
use crate::checkpoint::Checkpoint;
use crate::files;
use crate::fingerprint;
use crate::gguf;
use crate::hf::{self, config::Config};
use crate::image::stored::Stored;
use crate::image::{self, ImageFile};
use crate::peft;
use crate::progress;
use crate::quantize::WeightType;
use crate::reference::Reference;
use crate::reference::chain::Chain;
use crate::report::{Report, table};
use crate::text::tokenizer::Tokenizer;
use crate::verify::ratio::Ratio;
use crate::verify::samples::Samples;
use crate::verify::{Findings, Floats, Side, compare};
use anyhow::{Context, Result, bail, ensure};
use ranklet::image::Fingerprint;
use ranklet::kernel::Weights;
use ranklet::model::Model;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Random sequences: more tell nothing that these do not.
const MOST: usize = 10_000;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image.
    #[arg(long)]
    pub base: PathBuf,
    /// The checkpoint it was converted from.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// An adapter image.
    #[arg(long, requires = "peft")]
    pub adapter: Option<PathBuf>,
    /// What the adapter was converted from: a PEFT directory, or a GGUF file.
    #[arg(long, value_name = "DIR", requires = "adapter")]
    pub peft: Option<PathBuf>,
    /// Which adapter, of a PEFT directory that holds several.
    #[arg(long, requires = "peft")]
    pub name: Option<String>,
    /// Compare on these inputs, a .safetensors file as `run` takes it.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Compare on texts, one a line, by the checkpoint's tokenizer.json.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Random sequences, or rows, where no data are given; at most 10,000.
    #[arg(long, default_value_t = 4, conflicts_with_all = ["input", "text"])]
    pub count: usize,
    /// Tokens of each; fewer where the base takes fewer.
    #[arg(long, default_value_t = 32, conflicts_with_all = ["input", "text"])]
    pub tokens: usize,
    /// Of the random values.
    #[arg(long, default_value_t = 0)]
    pub seed: u32,
    /// Fail where a layer or the output has less.
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    pub min_db: Option<f64>,
}

/// Compares.
///
/// # Errors
/// What is wrong with a file; an image and a checkpoint that do not belong together.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    ensure!((1..=MOST).contains(&args.count), "--count {}: expected 1 to {MOST}", args.count);
    ensure!(args.tokens > 0, "--tokens 0: expected 1 or more");
    ensure!(args.min_db.is_none_or(|db| !db.is_nan()), "--min-db NaN: expected a number");
    let file = ImageFile::open(&args.base)?;
    let model = file.model()?;
    let (mut floats, mean_std) = floats(args, &model)?;
    let image = args.adapter.as_deref().map(ImageFile::open).transpose()?;
    let adapter = image.as_ref().map(|image| image.adapter(&model)).transpose()?;
    if let (Some(path), Some(adapter)) = (&args.peft, &adapter) {
        let base = Stored::floats(floats.layers());
        let read = if gguf::is_gguf(path) {
            gguf::read(path, &base, model.spec().transformer())?
        } else {
            peft::read(path, args.name.as_deref(), &base)?
        };
        let mut theirs: Vec<_> = read.pairs.iter().map(|p| (p.site, p.rank())).collect();
        theirs.sort_unstable();
        let ours: Vec<_> = adapter.records().iter().map(|r| (usize::from(r.site), usize::from(r.rank))).collect();
        if ours != theirs {
            let (image, path) = (args.adapter.as_deref().unwrap_or(path), path.display());
            bail!("{}: not made from {path}, whose layers or ranks are others", image.display());
        }
        floats.adapt(&read.pairs);
    }
    let samples = samples(args, &model, mean_std.as_ref().map(|(m, s)| (m.as_slice(), s.as_slice())))?;
    let (count, tokens) = samples.size(model.spec().features);
    let sides = 1 + usize::from(adapter.is_some());
    let cost = crate::infer::macs(&model).saturating_mul((tokens * sides) as u64);
    let bar = progress::bar((count * sides) as u64, cost, json, "comparing");
    let findings = compare(&model, adapter.as_ref(), &floats, &samples, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok(report(args, &model, &floats, &findings, (count, tokens)))
}

/// Mean and deviation of every feature.
type Normal = Option<(Vec<f32>, Vec<f32>)>;

/// The checkpoint, which must be the one that the image was made from.
fn floats(args: &Args, model: &Model<'_>) -> Result<(Floats, Normal)> {
    let same = |source: Fingerprint| {
        let (base, checkpoint) = (args.base.display(), args.checkpoint.display());
        let of = model.source();
        ensure!(source == of, "{base}: made from another checkpoint than {checkpoint}: source {of}, not {source}");
        Ok(())
    };
    let Some(config) = super::convert_base::transformer(&args.checkpoint) else {
        let base = Base::open(&args.checkpoint)?;
        same(Fingerprint(fingerprint::source(&base)))?;
        let normal = base.normalization.as_ref().map(|n| (n.mean.clone(), n.std.clone()));
        return Ok((Floats::Chain(Chain::of(base)), normal));
    };
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let network = hf::describe(&Config::read(&config)?, &checkpoint)?;
    // Its shapes are checked, and its fingerprint is taken, on the way to an image.
    same(image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ())?.source)?;
    Ok((Floats::Transformer(Box::new(Reference::read(&checkpoint, &network)?)), None))
}

fn samples(args: &Args, model: &Model<'_>, normal: Option<(&[f32], &[f32])>) -> Result<Samples> {
    if let Some(path) = &args.input {
        return Samples::read(&crate::dataset::open(path)?, model);
    }
    if let Some(path) = &args.text {
        let Some(t) = model.spec().transformer() else {
            bail!("--text: this base is a multilayer perceptron, which reads no text; give its inputs with --input");
        };
        let text = files::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
        let texts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        ensure!(!texts.is_empty(), "{} holds no text; expected one a line", path.display());
        let folder =
            if args.checkpoint.is_dir() { &args.checkpoint } else { args.checkpoint.parent().unwrap_or(Path::new("")) };
        return Samples::texts(&texts, &Tokenizer::open(folder, t)?, t).with_context(|| path.display().to_string());
    }
    let positions = model.spec().transformer().map_or(1, |t| t.positions);
    Ok(Samples::random(model, args.count, args.tokens.min(positions), normal, args.seed))
}

/// A layer as it is shown.
struct Line<'a> {
    module: &'a str,
    inputs: usize,
    outputs: usize,
    weights: &'static str,
    base: Ratio,
    adapted: Option<Ratio>,
}

impl Line<'_> {
    fn worst(&self) -> f64 {
        self.adapted.map_or(self.base.db(), |a| a.db().min(self.base.db()))
    }
}

fn report(args: &Args, model: &Model<'_>, floats: &Floats, found: &Findings, size: (usize, usize)) -> Report {
    let lines: Vec<Line<'_>> = floats
        .layers()
        .iter()
        .enumerate()
        .map(|(site, layer)| Line {
            module: &layer.module,
            inputs: layer.inputs,
            outputs: layer.outputs,
            weights: match model.linear(site as u16).weights {
                Weights::I8(_) => "i8",
                Weights::I16(_) => "i16",
                Weights::I4(_) => "i4",
                _ => "?",
            },
            base: found.base.layers[site],
            adapted: found.adapted.as_ref().map(|(side, _)| side.layers[site]),
        })
        .collect();
    let worst = lines.iter().min_by(|a, b| a.worst().total_cmp(&b.worst()));
    let output = |side: &Side| side.output.db();
    let least = found.adapted.as_ref().map_or(f64::INFINITY, |(side, _)| output(side)).min(output(&found.base));
    let least = worst.map_or(least, |line| line.worst().min(least));
    let ok = args.min_db.is_none_or(|min| least >= min);

    let name = args.adapter.as_deref().map(|p| format!("with {}", p.file_name().unwrap_or_default().to_string_lossy()));
    let heading = ["layer", "in", "out", "weights", "base"].map(str::to_owned).into_iter().chain(name.clone());
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for line in &lines {
        let cells =
            [line.module.to_owned(), line.inputs.to_string(), line.outputs.to_string(), line.weights.to_owned()];
        let ratios = std::iter::once(line.base).chain(line.adapted).map(|r| db(r.db()));
        rows.push(cells.into_iter().chain(ratios).collect());
    }
    let given = match (&args.input, &args.text) {
        (Some(path), _) | (_, Some(path)) => path.display().to_string(),
        _ => "random values; --input or --text for your own".to_owned(),
    };
    let mut human = format!(
        "{} against {}, on {} ({given})\n\nSignal to noise of every layer by itself, given what its float was given:\n\n{}\n",
        args.base.display(),
        args.checkpoint.display(),
        said(size),
        table(&rows)
    );
    if let Some(line) = worst {
        human += &format!("\nworst layer: {}, {}", line.module, db(line.worst()));
        if line.weights != "i16" {
            human += &format!("; in 16 bits by `ranklet convert base … --keep '{}=i16'`", line.module);
        }
    }
    let told = |ratio: &Ratio| format!("{}, relative error {:.1e}", db(ratio.db()), ratio.error());
    human += &format!("\noutput of the base: {}", told(&found.base.output));
    if let (Some((side, effect)), Some(name)) = (&found.adapted, &name) {
        human += &format!("\noutput {name}: {}", told(&side.output));
        human += &format!("\neffect of the adapter: {}", told(effect));
    }
    if let (false, Some(min)) = (ok, args.min_db) {
        human += &format!("\nbelow --min-db {min}: {}", db(least));
    }
    let ratio = |r: &Ratio| json!({"snr_db": finite(r.db()), "relative_error": finite(r.error())});
    let layer = |line: &Line<'_>| {
        json!({
            "module": line.module, "in": line.inputs, "out": line.outputs, "weights": line.weights,
            "base": ratio(&line.base), "adapted": line.adapted.as_ref().map(ratio),
        })
    };
    let json = json!({
        "base": super::shown(&args.base),
        "checkpoint": super::shown(&args.checkpoint),
        "source": model.source().to_string(),
        "sequences": size.0,
        "tokens": size.1,
        "layers": lines.iter().map(layer).collect::<Vec<_>>(),
        "worst": worst.map(|line| line.module),
        "output": ratio(&found.base.output),
        "adapted": found.adapted.as_ref().map(|(side, effect)| json!({"output": ratio(&side.output), "effect": ratio(effect)})),
        "least_db": finite(least),
        "ok": ok,
    });
    Report { human, json, ok }
}

fn db(x: f64) -> String {
    if x == f64::INFINITY { "exact".to_owned() } else { format!("{x:.1} dB") }
}

/// How many sequences of how many tokens in all; rows are sequences of one.
fn said((count, tokens): (usize, usize)) -> String {
    if count == tokens { format!("{count} rows") } else { format!("{tokens} tokens in {count} sequences") }
}

/// JSON has no infinity.
fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}
