//! `ranklet grad`: as `run`, but the input also holds `cotangent`, and the output the gradients of A and B.

use super::AdapterArg;
use crate::dataset;
use crate::image::{ImageFile, adapter::Parts, sites};
use crate::infer;
use crate::peft::keys::{Part, name};
use crate::progress;
use crate::report::{Report, table};
use crate::save::{Out, safetensors};
use crate::sequences::Batch;
use crate::training::{gradients, sequence_gradients};
use anyhow::{Context, Result, bail};
use ranklet::model::spec::Pool;
use serde_json::json;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image.
    #[arg(long)]
    pub base: PathBuf,
    /// The adapter image, `:scale` behind it multiplies its scaling.
    #[arg(long, value_name = "FILE[:SCALE]", num_args = 1.., required = true)]
    pub adapter: Vec<AdapterArg>,
    /// As for `run`, and `cotangent`, F32, shaped like the output.
    #[arg(long)]
    pub input: PathBuf,
    /// Gets the gradients under PEFT's names: `base_model.model.<module>.lora_A.weight`, …
    #[arg(long)]
    pub output: PathBuf,
}

/// Computes the gradients.
///
/// # Errors
/// What is wrong with the files; nothing is written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let mut read = vec![args.input.as_path(), &args.base];
    read.extend(args.adapter.iter().map(|a| a.path.as_path()));
    super::check_output(&args.output, &read)?;
    let [one] = args.adapter.as_slice() else {
        bail!("grad takes one --adapter, {} were given: its gradients are named after the modules", args.adapter.len());
    };
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let file = ImageFile::open(&one.path)?;
    let mut parts = Parts::copy(&file.adapter(&model)?).with_low_plane();
    parts.scale(one.scale).with_context(|| one.path.display().to_string())?;
    let data = dataset::open(&args.input)?;
    let outputs = model.spec().outputs;
    let (rows, gradients) = match model.spec().transformer() {
        Some(t) => {
            let batch = Batch::read(&data, &model, t)?;
            let tokens = if t.has_cross() { batch.decoder_length() } else { batch.length };
            let leading = if t.pool == Pool::None { vec![batch.count, tokens] } else { vec![batch.count] };
            let cotangent = dataset::cotangent(&data, &leading, outputs)?;
            let bar = progress::bar(
                batch.count as u64,
                3 * batch.count as u64 * tokens as u64 * infer::macs(&model),
                json,
                "sequences",
            );
            let found = sequence_gradients(&model, t, &parts, &batch, &cotangent, || bar.inc(1))?;
            bar.finish_and_clear();
            (batch.count as u64, found)
        }
        None => {
            let inputs = dataset::inputs(&data, model.spec().features)?;
            let cotangent = dataset::cotangent(&data, &inputs.leading, outputs)?;
            let rows = inputs.rows() as u64;
            let bar = progress::bar(rows, 3 * rows * infer::macs(&model), json, "rows");
            let found = gradients(&model, &parts, &inputs, &cotangent, || bar.inc(1))?;
            bar.finish_and_clear();
            (rows, found)
        }
    };

    let sites = sites(&model);
    let mut tensors = Vec::new();
    let mut table_rows = vec![["module", "|dA|", "|dB|"].map(str::to_owned).to_vec()];
    let mut norms = Vec::new();
    for g in &gradients {
        let Some(r) = parts.records.iter().find(|r| r.site == g.site) else { continue };
        let module = &sites[usize::from(g.site)].module;
        let (rank, inputs, outputs) = (usize::from(r.rank), r.inputs as usize, r.outputs as usize);
        tensors.push((name(module, Part::A), Out::f32s(&[rank, inputs], &g.a)));
        tensors.push((name(module, Part::B), Out::f32s(&[outputs, rank], &g.b)));
        let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let (a, b) = (norm(&g.a), norm(&g.b));
        table_rows.push(vec![module.clone(), format!("{a:.6e}"), format!("{b:.6e}")]);
        norms.push(json!({"module": module, "a_norm": a, "b_norm": b}));
    }
    super::save(&args.output, &safetensors(tensors)?)?;
    let values = gradients.iter().flat_map(|g| g.a.iter().chain(&g.b));
    let notes: Vec<String> = super::beyond_f32("gradients", values).into_iter().collect();
    let human = format!("{}: gradients of {} pairs\n\n{}", args.output.display(), gradients.len(), table(&table_rows));
    let json = json!({"output": super::shown(&args.output), "rows": rows, "gradients": norms, "notes": notes});
    Ok(Report::new(super::with_notes(human, &notes), json))
}
