//! `ranklet eval --base base.rkl [--adapter …] --data test.safetensors`

use super::data::{Data, DataArgs};
use super::{AdapterArg, export::base_metadata};
use crate::dataset;
use crate::image::{ImageFile, metadata};
use crate::infer;
use crate::journal::accuracy;
use crate::lessons::{self, Lesson, longest};
use crate::metrics::measure;
use crate::progress;
use crate::report::{Report, decimal, table};
use anyhow::{Result, bail, ensure};
use ranklet::model::{Active, HeadKind, Model};
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
    /// What to measure on.
    #[command(flatten)]
    pub source: DataArgs,
    /// The loss; by default that of the base's head.
    #[arg(long, value_enum)]
    pub loss: Option<super::train::Loss>,
}

/// Evaluates.
///
/// # Errors
/// What is wrong with the files.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let files = super::open_adapters(&args.adapter)?;
    let (adapters, notes) = super::bind(&files, &model)?;
    let loss = args.loss.map_or_else(|| dataset::loss_of(model.spec().head), |l| Ok(l.kind()))?;
    let ((inputs, targets), outputs) = match args.source.open(args.source.path(), &model, loss)? {
        Data::Lessons(lessons) => return sequences(&model, &adapters, &lessons, notes, json),
        Data::Rows(inputs, targets) => ((inputs, targets), model.spec().outputs),
    };
    let rows = inputs.rows();
    let bar = progress::bar(rows as u64, rows as u64 * infer::macs(&model), json, "rows");
    let logits = infer::run(&model, &adapters, &inputs.data, || bar.inc(1))?;
    bar.finish_and_clear();
    let m = measure(&logits, outputs, &targets);
    if !m.loss.is_finite() {
        let beyond = logits.iter().filter(|v| !v.is_finite()).count();
        bail!(
            "{beyond} of {} outputs are beyond f32, so there is no loss; the adapter has diverged, or `inputs` are far \
             beyond what this base takes",
            logits.len()
        );
    }

    let labels = base_metadata(&model);
    let mut human = format!("{rows} rows  loss {}", decimal(m.loss, 6));
    if let (Some(accuracy), Some((right, all))) = (m.accuracy(), m.correct) {
        human += &format!("  accuracy {accuracy:.2} % ({right} of {all})");
    }
    if let Some(rmse) = m.rmse {
        human += &format!("  rmse {}", decimal(rmse, 6));
    }
    let mut classes = Vec::new();
    let mut table_rows = vec![["class", "rows", "right", "%"].map(str::to_owned).to_vec()];
    for (class, &(right, all)) in m.per_class.iter().enumerate() {
        let name = metadata::label(&labels, class).map_or_else(|| class.to_string(), str::to_owned);
        let percent = if all == 0 { None } else { Some(100.0 * right as f64 / all as f64) };
        let shown = percent.map_or(String::new(), |p| format!("{p:.1}"));
        table_rows.push(vec![name.clone(), all.to_string(), right.to_string(), shown]);
        classes.push(json!({"class": class, "label": name, "rows": all, "correct": right, "accuracy": percent}));
    }
    if !classes.is_empty() {
        human += &format!("\n\n{}", table(&table_rows));
    }
    let json = json!({
        "rows": rows,
        "loss": m.loss,
        "accuracy": m.accuracy(),
        "correct": m.correct.map(|c| c.0),
        "rmse": m.rmse,
        "per_class": classes,
        "notes": notes,
    });
    Ok(Report::new(super::with_notes(human, &notes), json))
}

/// A transformer on sequences.
fn sequences(
    model: &Model<'_>,
    adapters: &[Active<'_>],
    lessons: &[Lesson],
    notes: Vec<String>,
    json: bool,
) -> Result<Report> {
    let Some(t) = model.spec().transformer() else { bail!("these data are for another kind of base") };
    let count = lessons.len() as u64;
    let cost = count.saturating_mul(longest(lessons).0 as u64).saturating_mul(infer::macs(model));
    let bar = progress::bar(count, cost, json, "sequences");
    let score = lessons::measure(model, t, adapters, lessons, || bar.inc(1))?;
    bar.finish_and_clear();
    ensure!(score.loss.is_finite(), "outputs are beyond f32, so there is no loss; the adapter has diverged");
    let language = model.spec().head == HeadKind::Language;
    let mut human = format!("{count} sequences, {} answers  loss {}", score.answers, decimal(score.loss, 6));
    let perplexity = language.then(|| score.loss.exp());
    if let Some(perplexity) = perplexity {
        human += &format!("  perplexity {}", decimal(perplexity, 3));
    }
    if let (Some(percent), Some(right)) = (accuracy(&score), score.right) {
        human += &format!("  accuracy {percent:.2} % ({right} of {})", score.answers);
    }
    let json = json!({
        "sequences": count, "answers": score.answers, "loss": score.loss, "perplexity": perplexity,
        "accuracy": accuracy(&score), "correct": score.right, "notes": notes,
    });
    Ok(Report::new(super::with_notes(human, &notes), json))
}
