//! Inference on the host, with the device's own arithmetic.

use anyhow::{Result, anyhow};
use ranklet::fixed::Exp;
use ranklet::float::{from_block, to_block, to_samples};
use ranklet::layer::normalize::Input;
use ranklet::memory::Workspace;
use ranklet::model::{Active, Model, Plan};

/// Room before a multiple of 16.
pub const SLACK: usize = 15;

/// Runs a model on rows of `f32`: each becomes integers under one exponent, as a sensor's samples would.
///
/// `inputs`: `(rows, features)`, finite; the result: `(rows, outputs)`. `each` is called once a row.
///
/// # Errors
/// An input that the model does not take.
pub fn run(model: &Model<'_>, adapters: &[Active<'_>], inputs: &[f32], mut each: impl FnMut()) -> Result<Vec<f32>> {
    let plan = Plan::new(model.bytes())?;
    let mut memory = vec![0; plan.scratch_bytes() + SLACK];
    let mut scratch = Workspace::new(&mut memory).scratch(&plan)?;
    let (features, outputs) = (model.spec().features, model.spec().outputs);
    let mut raw = vec![0; features];
    let mut out = vec![0.0; inputs.len() / features * outputs];
    for (row, out) in inputs.chunks_exact(features).zip(out.chunks_exact_mut(outputs)) {
        let exponent = samples(row, &mut raw)?;
        let y = model.infer(&mut scratch, Input::i32(&raw, exponent), adapters)?;
        from_block(y, out);
        each();
    }
    Ok(out)
}

/// A row as a sensor would deliver it: 31-bit integers under one exponent.
///
/// # Errors
/// A value that is NaN or infinite.
pub fn samples(row: &[f32], out: &mut [i32]) -> Result<Exp> {
    to_samples(row, out).map_err(|e| anyhow!("{e}"))
}

/// A row as a block: a target or a cotangent.
///
/// # Errors
/// A value that is NaN or infinite.
pub fn block(row: &[f32], out: &mut [i16]) -> Result<Exp> {
    to_block(row, out).map_err(|e| anyhow!("{e}"))
}

/// Multiply-accumulates of one inference, for a progress bar's cost.
#[must_use]
pub fn macs(model: &Model<'_>) -> u64 {
    let linears = 0..model.spec().linears;
    linears.filter_map(|s| model.linear_spec(s)).map(|l| (l.inputs * l.outputs) as u64).sum()
}
