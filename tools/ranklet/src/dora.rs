//! DoRA (arXiv:2402.09353): y = g ⊙ (W x + s · B (A x)) + b, with g = m / ‖W + s · B A‖ of every output row. In an image
//! that is what is added to the frozen layer: (g − 1) ⊙ W x + s · (g ⊙ B)(A x).

use crate::adapter::Pair;
use crate::image::stored::Stored;
use crate::tensor::Matrix;

/// Gains beyond this are refused: the device adds them up within ±128.
const GAIN_MAX: f64 = 100.0;

/// ‖W + s · B A‖ of every row, from the base as it is stored, in `f64`.
#[must_use]
pub fn norms(base: &Stored<'_>, site: usize, a: &Matrix, b: &Matrix, scaling: f64) -> Vec<f64> {
    let norm = |(row, b): (usize, &[f32])| {
        let mut sums: Vec<f64> = (0..a.cols).map(|col| base.value(site, row, col)).collect();
        for (&b, a) in b.iter().zip(a.iter_rows()) {
            let factor = scaling * f64::from(b);
            sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * f64::from(a));
        }
        sums.iter().map(|v| v * v).sum::<f64>().sqrt()
    };
    b.iter_rows().enumerate().map(norm).collect()
}

/// Takes magnitudes (out) into a pair: its gain, and g ⊙ B.
///
/// # Errors
/// A row of zeros, which has no direction; a gain beyond what an image holds.
pub fn apply(pair: &mut Pair, magnitudes: &[f32], base: &Stored<'_>) -> Result<(), String> {
    let norms = norms(base, pair.site, &pair.a, &pair.b, pair.scaling);
    let mut gains = Vec::with_capacity(norms.len());
    for (row, (&m, norm)) in magnitudes.iter().zip(norms).enumerate() {
        if norm == 0.0 {
            return Err(format!(
                "row {row} of W + s B A is zero, and has no direction for lora_magnitude_vector to scale"
            ));
        }
        let gain = f64::from(m) / norm;
        if gain.is_nan() || gain.abs() > GAIN_MAX {
            return Err(format!(
                "row {row}: lora_magnitude_vector is {m}, more than {GAIN_MAX} times the norm {norm:e} of W + s B A; is \
                 this another base?"
            ));
        }
        gains.push(gain);
    }
    for (row, gain) in pair.b.data.chunks_exact_mut(pair.b.cols).zip(&gains) {
        row.iter_mut().for_each(|b| *b = (f64::from(*b) * gain) as f32);
    }
    pair.gain = Some(gains.iter().map(|g| (g - 1.0) as f32).collect());
    Ok(())
}

/// B and the magnitudes (out), as PEFT has them. A pair without gain has the norms themselves for magnitudes: g is 1.
#[must_use]
pub fn undo(pair: &Pair, base: &Stored<'_>) -> (Matrix, Vec<f32>) {
    let gain = |row: usize| 1.0 + pair.gain.as_ref().map_or(0.0, |g| f64::from(g[row]));
    let mut b = pair.b.clone();
    for (row, values) in b.data.chunks_exact_mut(pair.b.cols).enumerate() {
        // A gain of 0 leaves nothing of its row, whatever B was.
        let g = gain(row);
        values.iter_mut().for_each(|b| *b = if g == 0.0 { 0.0 } else { (f64::from(*b) / g) as f32 });
    }
    let norms = norms(base, pair.site, &pair.a, &b, pair.scaling);
    let magnitudes = norms.iter().enumerate().map(|(row, norm)| (gain(row) * norm) as f32).collect();
    (b, magnitudes)
}
