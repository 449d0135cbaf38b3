//! Layers that were trained whole (`modules_to_save`), such as a classifier's head: an image holds their difference as a
//! pair, W' = W + s · B A, with the identity for A or for B.

use crate::adapter::{MAX_RANK, Pair, Site};
use crate::image::stored::Stored;
use crate::tensor::{Matrix, shape};

/// The pair of a weight (out, in) in place of the base's.
///
/// # Errors
/// Another shape than the base's; more than 64 on the smaller side.
pub fn pair(weight: &Matrix, site: usize, base: &Stored<'_>) -> Result<Pair, String> {
    let Site { inputs, outputs, .. } = base.sites()[site];
    if (weight.rows, weight.cols) != (outputs, inputs) {
        let (found, expected) = (shape(&[weight.rows, weight.cols]), shape(&[outputs, inputs]));
        return Err(format!("has shape {found}, the base's layer {expected}; is this another base?"));
    }
    let rank = inputs.min(outputs);
    if rank > MAX_RANK {
        let dims = shape(&[outputs, inputs]);
        return Err(format!(
            "was trained whole (modules_to_save) and is {dims}: its difference takes rank {rank}, and an image holds \
             {MAX_RANK}; train it with LoRA instead, by naming it in target_modules"
        ));
    }
    let at = |i: usize| f64::from(weight.data[i]) - base.value(site, i / inputs, i % inputs);
    Ok(of(site, Matrix::new(outputs, inputs, (0..weight.data.len()).map(|i| at(i) as f32).collect())))
}

/// The pair of a difference (out, in) whose smaller side is at most 64.
#[must_use]
pub fn of(site: usize, difference: Matrix) -> Pair {
    let Matrix { rows: outputs, cols: inputs, .. } = difference;
    let (a, b) = if outputs <= inputs { (difference, identity(outputs)) } else { (identity(inputs), difference) };
    Pair { whole: true, ..Pair::new(site, a, b, 1.0) }
}

/// What stands in place of the base's weight, (out, in).
#[must_use]
pub fn weight(pair: &Pair, base: &Stored<'_>) -> Matrix {
    let (outputs, inputs) = (pair.b.rows, pair.a.cols);
    let change = difference(pair, base);
    let at = |i: usize| base.value(pair.site, i / inputs, i % inputs) + change[i];
    Matrix::new(outputs, inputs, (0..change.len()).map(|i| at(i) as f32).collect())
}

/// What a pair adds to the base's weight: gain ⊙ W + s · B A, (out, in).
#[must_use]
pub fn difference(pair: &Pair, base: &Stored<'_>) -> Vec<f64> {
    let mut out = Vec::with_capacity(pair.b.rows * pair.a.cols);
    for (row, b) in pair.b.iter_rows().enumerate() {
        let gain = pair.gain.as_ref().map_or(0.0, |g| f64::from(g[row]));
        let start = out.len();
        out.extend((0..pair.a.cols).map(|col| if gain == 0.0 { 0.0 } else { gain * base.value(pair.site, row, col) }));
        for (&b, a) in b.iter().zip(pair.a.iter_rows()) {
            let factor = pair.scaling * f64::from(b);
            out[start..].iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * f64::from(a));
        }
    }
    out
}

fn identity(n: usize) -> Matrix {
    Matrix::new(n, n, (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect())
}
