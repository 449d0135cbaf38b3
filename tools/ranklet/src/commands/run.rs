//! `ranklet run --base base.rkl [--adapter a.rkl[:scale] …] --input in.safetensors --output out.safetensors`

use super::AdapterArg;
use crate::dataset;
use crate::image::ImageFile;
use crate::infer;
use crate::progress;
use crate::report::Report;
use crate::save::{Out, safetensors};
use crate::sequences::{self, Batch};
use crate::tensor::shape;
use anyhow::Result;
use ranklet::model::HeadKind;
use serde_json::json;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image.
    #[arg(long)]
    pub base: PathBuf,
    /// An adapter image, `:scale` behind it multiplies its scaling; several add up.
    #[arg(long, value_name = "FILE[:SCALE]", num_args = 1..)]
    pub adapter: Vec<AdapterArg>,
    /// `inputs`: F32, [batch, features] or [batch, seq, features]; for a transformer `input_ids`: I64, [batch, seq], and
    /// `attention_mask`, `token_type_ids`, `decoder_input_ids`, where it takes them.
    #[arg(long)]
    pub input: PathBuf,
    /// Gets `logits`, F32 (`last_hidden_state` for a base without a head).
    #[arg(long)]
    pub output: PathBuf,
}

/// Runs.
///
/// # Errors
/// What is wrong with the files; nothing is written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let mut read = vec![args.input.as_path(), &args.base];
    read.extend(args.adapter.iter().map(|a| a.path.as_path()));
    super::check_output(&args.output, &read)?;
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let files = super::open_adapters(&args.adapter)?;
    let (adapters, mut notes) = super::bind(&files, &model)?;
    let data = dataset::open(&args.input)?;
    let (dims, out) = match model.spec().transformer() {
        Some(t) => {
            let batch = Batch::read(&data, &model, t)?;
            let bar = progress::bar(batch.count as u64, infer::macs(&model) * batch.length as u64, json, "sequences");
            let out = sequences::run(&model, t, &adapters, &batch, || bar.inc(1))?;
            bar.finish_and_clear();
            (out.shape, out.data)
        }
        None => {
            let inputs = dataset::inputs(&data, model.spec().features)?;
            let rows = inputs.rows() as u64;
            let bar = progress::bar(rows, rows * infer::macs(&model), json, "rows");
            let out = infer::run(&model, &adapters, &inputs.data, || bar.inc(1))?;
            bar.finish_and_clear();
            (inputs.leading.iter().copied().chain([model.spec().outputs]).collect(), out)
        }
    };
    notes.extend(super::beyond_f32("outputs", &out));
    let name = if model.spec().head == HeadKind::None { "last_hidden_state" } else { "logits" };
    let bytes = safetensors([(name.to_owned(), Out::f32s(&dims, &out))])?;
    super::save(&args.output, &bytes)?;
    let human = format!("{}: `{name}` {}", args.output.display(), shape(&dims));
    let json = json!({"output": super::shown(&args.output), "tensor": name, "shape": dims, "notes": notes});
    Ok(Report::new(super::with_notes(human, &notes), json))
}
