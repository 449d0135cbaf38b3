//! `ranklet convert adapter DIR --base base.rkl -o task.rkl`

use crate::adapter::{Adapter, Pair, check_alpha, trainable_line};
use crate::gguf;
use crate::image::stored::Stored;
use crate::image::{ImageFile, adapter, parameters};
use crate::loralayer;
use crate::peft;
use crate::report::{Report, decimal, table};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::PathBuf;

/// What an adapter comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained() writes.
    Peft,
    /// A GGUF adapter, as llama.cpp's convert_lora_to_gguf.py writes; recognised without being told.
    Gguf,
    /// A state_dict with W (out, in), A (out, r), B (r, in) and ΔW = alpha · A B. Needs --alpha.
    LoraLayer,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A PEFT directory, a .safetensors file, or a .gguf file.
    pub adapter: PathBuf,
    /// The image of the base it was trained on.
    #[arg(long)]
    pub base: PathBuf,
    /// What it comes as.
    #[arg(long, value_enum, default_value = "peft")]
    pub format: Format,
    /// The layer's alpha, for --format lora-layer (PEFT adapters bring theirs).
    #[arg(long, allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// Which adapter, of a PEFT directory that holds several.
    #[arg(long)]
    pub name: Option<String>,
    /// Leave out the low halves of A and B: half the size, for an adapter that will not learn on.
    #[arg(long)]
    pub inference_only: bool,
    /// The image to write.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Converts.
///
/// # Errors
/// What is wrong with the adapter, or that it is another base's; nothing is written then.
pub fn execute(args: &Args) -> Result<Report> {
    let format = match args.format {
        Format::Peft if gguf::is_gguf(&args.adapter) => Format::Gguf,
        format => format,
    };
    if args.name.is_some() && format != Format::Peft {
        bail!("--name is for PEFT directories that hold several adapters");
    }
    let config = super::companion(&args.adapter, peft::CONFIG);
    super::check_output(&args.output, &[&args.adapter, &config, &args.base])?;
    if format == Format::Peft {
        let chosen = peft::choose(&args.adapter, args.name.as_deref())?;
        super::check_output(&args.output, &[&chosen, &super::companion(&chosen, peft::CONFIG)])?;
    }
    let file = ImageFile::open(&args.base)?;
    let model = file.model()?;
    let base = Stored::of(&model);
    let sites = base.sites();
    let adapter: Adapter = match (format, args.alpha) {
        (Format::Peft, None) => peft::read(&args.adapter, args.name.as_deref(), &base)?,
        (Format::Gguf, None) => gguf::read(&args.adapter, &base, model.spec().transformer())?,
        (Format::Gguf, Some(_)) => bail!("--alpha is for --format lora-layer; a GGUF adapter brings its own"),
        (Format::Peft, Some(_)) => bail!("--alpha is for --format lora-layer; a PEFT adapter brings its own"),
        (Format::LoraLayer, Some(alpha)) => {
            check_alpha(alpha).with_context(|| format!("--alpha {alpha:?}"))?;
            loralayer::read(&args.adapter, alpha, &base)?
        }
        (Format::LoraLayer, None) => bail!("--format lora-layer needs --alpha X, the layer's own: no tensor tells it"),
    };
    let bytes = adapter::convert(&adapter, &model, args.inference_only)?;
    let back = ImageFile::of(&args.output, &bytes);
    back.adapter(&model).context("the converted adapter does not pass its own checks; nothing was written")?;
    let size = super::save(&args.output, &bytes)?;

    let trainable = adapter.pairs.iter().map(Pair::parameters).sum();
    let line = trainable_line(trainable, parameters(&model));
    let mut rows = vec![["layer", "rank", "scaling", "more"].map(str::to_owned).to_vec()];
    let of = |p: &Pair| vec![sites[p.site].module.clone(), p.rank().to_string(), decimal(p.scaling, 6), p.more()];
    rows.extend(adapter.pairs.iter().map(of));
    let human = format!("{}: {size}, {} pairs\n{line}\n\n{}", args.output.display(), adapter.pairs.len(), table(&rows));
    let pairs: Vec<_> = adapter
        .pairs
        .iter()
        .map(|p| json!({"module": sites[p.site].module, "rank": p.rank(), "scaling": p.scaling, "more": p.more()}))
        .collect();
    let json = json!({
        "output": super::shown(&args.output),
        "bytes": bytes.len(),
        "source": model.source().to_string(),
        "trainable_params": trainable,
        "all_params": trainable + parameters(&model),
        "pairs": pairs,
        "notes": adapter.warnings,
    });
    Ok(Report::new(super::with_notes(human, &adapter.warnings), json))
}
