//! Data for `run`, `grad`, `train` and `eval`: `inputs`, and `labels`, `targets` or `cotangent`.

use crate::checkpoint::Checkpoint;
use crate::tensor::shape;
use anyhow::{Result, bail};
use ranklet::model::HeadKind;
use ranklet::train::LossKind;
use std::path::Path;

/// Rows of inputs.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Dimensions before the features: `[batch]`, or `[batch, seq]`.
    pub leading: Vec<usize>,
    /// `(rows, features)`.
    pub data: Vec<f32>,
    /// Features.
    pub features: usize,
}

impl Inputs {
    /// How many.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.leading.iter().product()
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.features.max(1))
    }
}

/// What the rows should have come out as.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One class a row.
    Classes(Vec<usize>),
    /// Yes or no, `(rows, outputs)`.
    Labels(Vec<bool>),
    /// Values, `(rows, outputs)`.
    Values(Vec<f32>),
}

/// Reads `inputs`, F32 `[batch, features]` or `[batch, seq, features]`.
///
/// # Errors
/// A missing tensor, another width than the model's, a value that is not finite.
pub fn inputs(file: &Checkpoint, features: usize) -> Result<Inputs> {
    if !file.contains("inputs") && file.contains("input_ids") {
        bail!("{}: holds `input_ids`, but this base takes features: `inputs` F32 [batch, {features}]", path(file));
    }
    let t = file.f32s("inputs")?;
    match t.shape.as_slice() {
        [leading @ .., f] if *f == features && (1..=2).contains(&leading.len()) => {
            Ok(Inputs { leading: leading.to_vec(), data: t.data, features })
        }
        _ => Err(file
            .wrong_shape("inputs", &t.shape, &format!("(batch, {features}) or (batch, seq, {features})"))
            .into()),
    }
}

/// Reads `cotangent`, shaped like the output: `leading`, outputs.
///
/// # Errors
/// A missing tensor, another shape, a value that is not finite.
pub fn cotangent(file: &Checkpoint, leading: &[usize], outputs: usize) -> Result<Vec<f32>> {
    let t = file.f32s("cotangent")?;
    let expected: Vec<usize> = leading.iter().copied().chain([outputs]).collect();
    if t.shape != expected {
        let expected = format!("{}, that of the output", shape(&expected));
        return Err(file.wrong_shape("cotangent", &t.shape, &expected).into());
    }
    Ok(t.data)
}

/// Reads the targets that a loss takes: `labels` (I64) for classes; `labels` (I64) or `targets` (F32) of 0 and 1 for
/// yes/no; `targets` (F32) for values.
///
/// # Errors
/// A missing tensor, another shape, a label out of range.
pub fn targets(file: &Checkpoint, loss: LossKind, rows: usize, outputs: usize) -> Result<Targets> {
    match loss {
        LossKind::CrossEntropy => classes(file, rows, outputs).map(Targets::Classes),
        LossKind::BinaryCrossEntropy => {
            let values: Vec<f64> = if file.contains("labels") {
                let t = file.i64s("labels")?;
                flat(file, "labels", &t.shape, rows, outputs)?;
                t.data.iter().map(|&v| v as f64).collect()
            } else {
                let t = file.f32s("targets")?;
                flat(file, "targets", &t.shape, rows, outputs)?;
                t.data.iter().map(|&v| f64::from(v)).collect()
            };
            if let Some(at) = values.iter().position(|&v| v != 0.0 && v != 1.0) {
                let (row, output, v) = (at / outputs, at % outputs, values[at]);
                bail!("{}: target {v} at [{row}, {output}]; binary cross-entropy takes 0 and 1", path(file));
            }
            Ok(Targets::Labels(values.iter().map(|&v| v == 1.0).collect()))
        }
        LossKind::MeanSquaredError => {
            let t = file.f32s("targets")?;
            flat(file, "targets", &t.shape, rows, outputs)?;
            Ok(Targets::Values(t.data))
        }
        other => bail!("the loss {other:?} is not known to this tool"),
    }
}

fn classes(file: &Checkpoint, rows: usize, outputs: usize) -> Result<Vec<usize>> {
    let t = file.i64s("labels")?;
    if t.data.len() != rows || t.shape.len() != 1 {
        return Err(file.wrong_shape("labels", &t.shape, &format!("({rows}), one per row")).into());
    }
    let class = |(row, &label): (usize, &i64)| match usize::try_from(label) {
        Ok(class) if class < outputs => Ok(class),
        _ => bail!("{}: label {label} in row {row}; the base has classes 0 to {}", path(file), outputs - 1),
    };
    t.data.iter().enumerate().map(class).collect()
}

/// `(rows, outputs)`, or `(rows)` where there is one output.
fn flat(file: &Checkpoint, name: &str, found: &[usize], rows: usize, outputs: usize) -> Result<()> {
    if found == [rows, outputs] || (outputs == 1 && found == [rows]) {
        return Ok(());
    }
    Err(file.wrong_shape(name, found, &format!("({rows}, {outputs}), (rows, outputs)")).into())
}

/// The loss that fits a head.
///
/// # Errors
/// For a base without a head.
pub fn loss_of(head: HeadKind) -> Result<LossKind> {
    match LossKind::of_head(head) {
        Some(loss) => Ok(loss),
        None => bail!("this base has no head, so no loss fits it by itself; choose one with --loss"),
    }
}

/// Opens a data file.
///
/// # Errors
/// What is wrong with it.
pub fn open(path: &Path) -> Result<Checkpoint> {
    Ok(Checkpoint::open_file(path)?)
}

fn path(file: &Checkpoint) -> std::path::Display<'_> {
    file.path().display()
}
