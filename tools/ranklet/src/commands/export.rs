//! `ranklet export task.rkl --base base.rkl -o DIR`

use crate::adapter::Pair;
use crate::atomic::{check_directory, identity};
use crate::describe::weight_types;
use crate::export::FILES;
use crate::export::card::Facts;
use crate::image::stored::Stored;
use crate::image::{ImageFile, adapter, metadata, parameters, sites};
use crate::report::Report;
use anyhow::{Result, bail};
use ranklet::image::layout::section;
use ranklet::model::Model;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The adapter image.
    pub adapter: PathBuf,
    /// The image of its base.
    #[arg(long)]
    pub base: PathBuf,
    /// For the model card: where it was trained.
    #[arg(long)]
    pub device: Option<String>,
    /// For the model card: optimizer steps.
    #[arg(long)]
    pub steps: Option<u64>,
    /// Replace a directory that ranklet has not written.
    #[arg(long)]
    pub force: bool,
    /// The directory to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Exports.
///
/// # Errors
/// What is wrong with the images, or that a directory is in the way; nothing is written then.
pub fn execute(args: &Args) -> Result<Report> {
    check_directory(&args.output, args.force, &FILES)?;
    let out = identity(&args.output);
    let within = |input: &&PathBuf| matches!((identity(input), &out), (Some(i), Some(out)) if i.starts_with(out));
    if let Some(input) = [&args.base, &args.adapter].into_iter().find(within) {
        bail!("the output directory {} holds the input {}; choose another", args.output.display(), input.display());
    }
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let file = ImageFile::open(&args.adapter)?;
    let image = file.adapter(&model)?;
    let adapter = adapter::read(&image);
    let sites = sites(&model);
    let object = |map: &mut Map<String, Value>, key| match map.remove(key) {
        Some(Value::Object(o)) => o,
        _ => Map::new(),
    };
    let facts = Facts {
        source: model.source().to_string(),
        image: model.head().image.to_string(),
        weights: weight_types(&model),
        base_parameters: parameters(&model),
        snr_db: object(&mut base_metadata(&model), "snr_db"),
        training: object(&mut metadata::parse(image.metadata()), "training"),
        device: args.device.clone(),
        steps: args.steps,
    };
    crate::export::write(&adapter, &Stored::of(&model), &facts, &args.output, args.force)?;
    let mut notes = Vec::new();
    if image.low().is_empty() {
        notes.push("the image has no low plane: A and B come back with 16 bits".to_owned());
    }
    let trainable: u64 = adapter.pairs.iter().map(Pair::parameters).sum();
    let human = format!(
        "{}: a PEFT adapter of {} pairs, read back and checked\nload it with \
         PeftModel.from_pretrained(base_model, {:?})",
        args.output.display(),
        adapter.pairs.len(),
        args.output.display().to_string()
    );
    let modules: Vec<&str> = adapter.pairs.iter().map(|p| sites[p.site].module.as_str()).collect();
    let json = json!({
        "output": super::shown(&args.output),
        "modules": modules,
        "trainable_params": trainable,
        "all_params": trainable + facts.base_parameters,
        "source": facts.source,
        "notes": notes,
    });
    Ok(Report::new(super::with_notes(human, &notes), json))
}

/// The metadata of a base.
pub(crate) fn base_metadata(model: &Model<'_>) -> Map<String, Value> {
    let head = model.head();
    let text = head.find(model.bytes(), section::METADATA).map_or(&[][..], |s| head.bytes_of(model.bytes(), &s));
    metadata::parse(std::str::from_utf8(text).unwrap_or(""))
}
