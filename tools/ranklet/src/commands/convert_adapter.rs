//! `ranklet convert adapter DIR --base base.rkl -o task.rkl`

use crate::adapter::{Adapter, Pair, check_alpha, trainable_line};
use crate::image::{ImageFile, adapter, parameters, sites};
use crate::loralayer::{self, BaseWeights};
use crate::peft;
use crate::report::{Report, decimal, table};
use anyhow::{Context, Result, bail};
use ranklet::kernel::Weights;
use ranklet::layer::Linear;
use ranklet::model::Model;
use serde_json::json;
use std::path::PathBuf;

/// What an adapter comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained() writes.
    Peft,
    /// A state_dict with W (out, in), A (out, r), B (r, in) and ΔW = alpha · A B. Needs --alpha.
    LoraLayer,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A PEFT directory, or a .safetensors file.
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
    let config = super::companion(&args.adapter, peft::CONFIG);
    super::check_output(&args.output, &[&args.adapter, &config, &args.base])?;
    let file = ImageFile::open(&args.base)?;
    let model = file.model()?;
    let sites = sites(&model);
    let adapter: Adapter = match (args.format, args.alpha) {
        (Format::Peft, None) => peft::read(&args.adapter, &sites)?,
        (Format::Peft, Some(_)) => bail!("--alpha is for --format lora-layer; a PEFT adapter brings its own"),
        (Format::LoraLayer, Some(alpha)) => {
            check_alpha(alpha).with_context(|| format!("--alpha {alpha:?}"))?;
            loralayer::read(&args.adapter, alpha, &sites, &Stored::of(&model))?
        }
        (Format::LoraLayer, None) => bail!("--format lora-layer needs --alpha X, the layer's own: no tensor tells it"),
    };
    let bytes = adapter::convert(&adapter, &model, args.inference_only)?;
    let back = ImageFile::of(&args.output, &bytes);
    back.adapter(&model).context("the converted adapter does not pass its own checks; nothing was written")?;
    let size = super::save(&args.output, &bytes)?;

    let trainable = adapter.pairs.iter().map(Pair::parameters).sum();
    let line = trainable_line(trainable, parameters(&model));
    let mut rows = vec![["layer", "rank", "scaling"].map(str::to_owned).to_vec()];
    let of = |p: &Pair| vec![sites[p.site].module.clone(), p.rank().to_string(), decimal(p.scaling, 6)];
    rows.extend(adapter.pairs.iter().map(of));
    let human = format!("{}: {size}, {} pairs\n{line}\n\n{}", args.output.display(), adapter.pairs.len(), table(&rows));
    let pairs: Vec<_> = adapter
        .pairs
        .iter()
        .map(|p| json!({"module": sites[p.site].module, "rank": p.rank(), "scaling": p.scaling}))
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

/// The base's weights as the image has them.
struct Stored<'a>(Vec<Linear<'a>>);

impl<'a> Stored<'a> {
    fn of(model: &Model<'a>) -> Stored<'a> {
        Stored((0..model.spec().linears).map(|s| model.linear(s)).collect())
    }

    fn step(&self, site: usize, row: usize) -> f64 {
        let l = &self.0[site];
        f64::from(l.scales[row]) * crate::quantize::exp2(i32::from(l.exponent))
    }
}

impl BaseWeights for Stored<'_> {
    fn value(&self, site: usize, row: usize, col: usize) -> f64 {
        let l = &self.0[site];
        let integer = match l.weights {
            Weights::I8(w) => i32::from(w[row * l.inputs + col]),
            Weights::I16(w) => i32::from(w[row * l.inputs + col]),
            Weights::I4(w) => crate::quantize::i4::integer(w.nibbles, w.groups, l.inputs, row, col),
            _ => return f64::NAN, // A type of a later version: nothing compares equal to it.
        };
        f64::from(integer) * self.step(site, row)
    }

    fn tolerance(&self, site: usize, row: usize, _col: usize) -> f64 {
        // Half a step; a 4-bit group of the coarsest scale, clipped by up to 0.3 of its peak, is 63 steps of 7 · 0.3.
        let steps = if matches!(self.0[site].weights, Weights::I4(_)) { 133.0 } else { 0.500_001 };
        steps * self.step(site, row)
    }
}
