//! `ranklet convert base DIR --weights i8|i16|i4 -o base.rkl`

use crate::atomic::write_file_with;
use crate::base::Base;
use crate::checkpoint::Checkpoint;
use crate::hf::{self, config::Config};
use crate::image::{self, sections::Spool};
use crate::progress;
use crate::quantize::WeightType;
use crate::quantize::recipe::{Keep, Recipe};
use crate::report::{Report, table};
use crate::spec;
use crate::tensor::thousands;
use crate::text::{Choice, Text};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory with config.json and model.safetensors (or shards with an index), or a .safetensors file with
    /// config.json beside it.
    pub checkpoint: PathBuf,
    /// How the frozen weights are stored.
    #[arg(long, value_enum, default_value = "i8")]
    pub weights: WeightType,
    /// Store the matrices whose module matches otherwise: PATTERN=i8|i16|i4, the pattern as in PEFT's rank_pattern.
    #[arg(long, value_name = "PATTERN=TYPE", num_args = 1..)]
    pub keep: Vec<Keep>,
    /// Width of a transformer's residual stream; 32 bits where a few channels are far above the rest.
    #[arg(long, value_enum, default_value = "i16")]
    pub residual: Residual,
    /// Whether the image holds what every token writes, so that a device can show what it generates.
    #[arg(long, value_enum, default_value = "auto")]
    pub vocabulary: Choice,
    /// The image to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Width of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Residual {
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
}

/// The configuration of a checkpoint, if it is a transformer's.
pub(super) fn transformer(path: &Path) -> Option<PathBuf> {
    let dir = if path.is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
    let config = dir.join(crate::spec::FILE);
    // What cannot be read, and what is of no known type, is refused by the one that reads perceptrons.
    matches!(hf::model_type(&config), Ok(Some(_))).then_some(config)
}

/// Converts.
///
/// # Errors
/// What is wrong with the checkpoint; nothing is written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let spec = super::companion(&args.checkpoint, spec::FILE);
    super::check_output(&args.output, &[&args.checkpoint, &spec])?;
    let recipe = Recipe { to: args.weights, keep: args.keep.clone() };
    let spool = Spool::beside(&args.output);
    let mut converted = match transformer(&args.checkpoint) {
        Some(spec) => {
            let checkpoint = Checkpoint::open(&args.checkpoint)?;
            let mut network = hf::describe(&Config::read(&spec)?, &checkpoint)?;
            network.text = Text::of(spec.parent().unwrap_or(Path::new("")), &network, args.vocabulary)?;
            let bar = progress::bar(network.linears.len() as u64, u64::MAX, json, "quantizing");
            let wide = args.residual == Residual::I32;
            let converted = image::transformer::prepare(&checkpoint, &network, recipe, wide, spool, || bar.inc(1))?;
            bar.finish_and_clear();
            converted
        }
        None => {
            if args.residual == Residual::I32 {
                bail!("--residual i32: {} is no transformer", args.checkpoint.display());
            }
            if args.vocabulary == Choice::Full {
                bail!("--vocabulary full: {} is no transformer", args.checkpoint.display());
            }
            let base = Base::open(&args.checkpoint)?;
            let bar = progress::bar(base.linears.len() as u64, 8 * base.parameters(), json, "quantizing");
            let converted = image::base::prepare(&base, recipe, spool, || bar.inc(1));
            let converted = converted.with_context(|| args.checkpoint.display().to_string())?;
            bar.finish_and_clear();
            converted
        }
    };
    let written = write_file_with(&args.output, |out| converted.write_to(out));
    let written = written.with_context(|| format!("{} was not written", args.output.display()))?;

    let mut rows = vec![["layer", "in", "out", "SNR"].map(str::to_owned).to_vec()];
    rows.extend(converted.layers.iter().map(|l| {
        let snr = if l.snr_db.is_finite() { format!("{:.1} dB", l.snr_db) } else { "exact".to_owned() };
        vec![l.module.clone(), l.inputs.to_string(), l.outputs.to_string(), snr]
    }));
    let human = format!(
        "{}: {}, {} parameters as {}\nsource {}  image {}\n\n{}",
        args.output.display(),
        crate::report::bytes(written),
        thousands(converted.parameters),
        args.weights.name(),
        converted.source,
        converted.image,
        table(&rows)
    );
    let layers: Vec<_> = converted
        .layers
        .iter()
        .map(|l| json!({"module": l.module, "in": l.inputs, "out": l.outputs, "snr_db": l.snr_db}))
        .collect();
    let json = json!({
        "output": super::shown(&args.output),
        "bytes": written,
        "weights": args.weights.name(),
        "parameters": converted.parameters,
        "source": converted.source.to_string(),
        "image": converted.image.to_string(),
        "layers": layers,
    });
    Ok(Report::new(human, json))
}
