//! `ranklet convert base DIR --weights i8|i16|i4 -o base.rkl`

use crate::base::Base;
use crate::image::base::convert;
use crate::progress;
use crate::quantize::WeightType;
use crate::report::{Report, table};
use crate::spec;
use crate::tensor::thousands;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory with config.json and model.safetensors (or shards with an index), or a .safetensors file with
    /// config.json beside it.
    pub checkpoint: PathBuf,
    /// How the frozen weights are stored.
    #[arg(long, value_enum, default_value = "i8")]
    pub weights: WeightType,
    /// The image to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Converts.
///
/// # Errors
/// What is wrong with the checkpoint; nothing is written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let spec = super::companion(&args.checkpoint, spec::FILE);
    super::check_output(&args.output, &[&args.checkpoint, &spec])?;
    let base = Base::open(&args.checkpoint)?;
    let bar = progress::bar(base.linears.len() as u64, 8 * base.parameters(), json, "quantizing");
    let converted = convert(&base, args.weights, || bar.inc(1));
    let converted = converted.with_context(|| args.checkpoint.display().to_string())?;
    bar.finish_and_clear();
    let size = super::save(&args.output, &converted.bytes)?;

    let mut rows = vec![["layer", "in", "out", "SNR"].map(str::to_owned).to_vec()];
    rows.extend(converted.layers.iter().map(|l| {
        let snr = if l.snr_db.is_finite() { format!("{:.1} dB", l.snr_db) } else { "exact".to_owned() };
        vec![l.module.clone(), l.inputs.to_string(), l.outputs.to_string(), snr]
    }));
    let human = format!(
        "{}: {size}, {} parameters as {}\nsource {}  image {}\n\n{}",
        args.output.display(),
        thousands(base.parameters()),
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
        "bytes": converted.bytes.len(),
        "weights": args.weights.name(),
        "parameters": base.parameters(),
        "source": converted.source.to_string(),
        "image": converted.image.to_string(),
        "layers": layers,
    });
    Ok(Report::new(human, json))
}
