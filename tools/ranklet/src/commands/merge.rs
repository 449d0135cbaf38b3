//! `ranklet merge a.rkl:0.5 b.rkl --base base.rkl -o sum.rkl`

use super::AdapterArg;
use crate::adapter::{Adapter, Pair, trainable_line};
use crate::image::adapter::{Parts, read};
use crate::image::stored::Stored;
use crate::image::{ImageFile, parameters};
use crate::report::{Report, decimal, table};
use crate::sum::{Term, sum};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Adapter images, each with `:weight` where that is not 1.
    #[arg(required = true)]
    pub adapters: Vec<AdapterArg>,
    /// The image of their base.
    #[arg(long)]
    pub base: PathBuf,
    /// Leave out the low halves of A and B: half the size, for an adapter that will not learn on.
    #[arg(long)]
    pub inference_only: bool,
    /// The image to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Merges.
///
/// # Errors
/// What is wrong with the images; ranks that add up to more than 64. Nothing is written then.
pub fn execute(args: &Args) -> Result<Report> {
    let inputs = args.adapters.iter().map(|a| a.path.as_path()).chain([args.base.as_path()]);
    super::check_output(&args.output, &inputs.collect::<Vec<_>>())?;
    let file = ImageFile::open(&args.base)?;
    let model = file.model()?;
    let base = Stored::of(&model);
    let files = super::open_adapters(&args.adapters)?;
    let (_, mut notes) = super::bind(&files, &model)?;
    let mut adapters = Vec::new();
    for (file, weight) in &files {
        let image = file.adapter(&model)?;
        if image.low().is_empty() {
            notes.push(format!("{} has no low plane: its A and B count with 16 bits", file.path().display()));
        }
        adapters.push((file, *weight, read(&image)));
    }
    let name = |file: &ImageFile| file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let terms: Vec<Term<'_>> = adapters
        .iter()
        .map(|(file, weight, adapter)| Term { name: name(file), weight: *weight, pairs: &adapter.pairs })
        .collect();
    let pairs = sum(&terms, &base)?;
    if pairs.is_empty() {
        bail!("nothing is left: every weight or scaling is 0");
    }
    let formula = terms.iter().map(|t| format!("{} × {}", t.weight, t.name)).collect::<Vec<_>>().join(" + ");
    let config = common(adapters.iter().map(|(_, _, adapter)| adapter));
    let mut parts = Parts::of(&pairs);
    if args.inference_only {
        parts.low.clear();
    }
    let mut metadata = Map::new();
    if !config.is_empty() {
        metadata.insert("peft_config".to_owned(), Value::Object(config));
    }
    metadata.insert("base_parameters".to_owned(), parameters(&model).into());
    metadata.insert("training".to_owned(), json!({"merged": formula}));
    let bytes = parts.emit(model.source(), model.head().image, &metadata)?;
    let back = ImageFile::of(&args.output, &bytes);
    back.adapter(&model).context("the sum does not pass an adapter's checks; nothing was written")?;
    let size = super::save(&args.output, &bytes)?;

    let module = |p: &Pair| base.sites()[p.site].module.clone();
    let mut rows = vec![["layer", "rank", "scaling", "more"].map(str::to_owned).to_vec()];
    rows.extend(pairs.iter().map(|p| vec![module(p), p.rank().to_string(), decimal(p.scaling, 6), p.more()]));
    let trainable = pairs.iter().map(Pair::parameters).sum();
    let line = trainable_line(trainable, parameters(&model));
    let human = format!("{}: {size}, {formula}\n{line}\n\n{}", args.output.display(), table(&rows));
    let list: Vec<Value> = pairs
        .iter()
        .map(|p| json!({"module": module(p), "rank": p.rank(), "scaling": p.scaling, "more": p.more()}))
        .collect();
    let json = json!({
        "output": super::shown(&args.output),
        "bytes": bytes.len(),
        "source": model.source().to_string(),
        "trainable_params": trainable,
        "pairs": list,
        "notes": notes,
    });
    Ok(Report::new(super::with_notes(human, &notes), json))
}

/// The fields that all configurations have in common, in the order of the first; none where one has no configuration.
fn common<'a>(adapters: impl Iterator<Item = &'a Adapter> + Clone) -> Map<String, Value> {
    let mut rest = adapters.map(|a| &a.config);
    let Some(first) = rest.next() else { return Map::new() };
    let rest: Vec<&Map<String, Value>> = rest.collect();
    if first.is_empty() || rest.iter().any(|c| c.is_empty()) {
        return Map::new();
    }
    let shared = first.iter().filter(|(k, v)| rest.iter().all(|c| c.get(*k) == Some(v)));
    shared.map(|(k, v)| (k.clone(), v.clone())).collect()
}
