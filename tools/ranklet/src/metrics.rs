//! How good outputs are: loss, accuracy, error. In `f64`, from the device's logits.

use crate::dataset::Targets;

/// What `eval` measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Mean over the rows.
    pub loss: f64,
    /// Right answers among all: rows (classes), or logits (yes/no); `None` for values.
    pub correct: Option<(u64, u64)>,
    /// Right answers and rows of each class; empty for others than classes.
    pub per_class: Vec<(u64, u64)>,
    /// Root of the mean squared error, for values.
    pub rmse: Option<f64>,
}

impl Metrics {
    /// The part of right answers, in percent.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        self.correct.map(|(right, all)| 100.0 * right as f64 / all.max(1) as f64)
    }
}

/// Compares `(rows, outputs)` with its targets.
#[must_use]
pub fn measure(outputs: &[f32], width: usize, targets: &Targets) -> Metrics {
    let rows = outputs.chunks_exact(width.max(1));
    let n = (outputs.len() / width.max(1)).max(1) as f64;
    let mut m = Metrics { loss: 0.0, correct: None, per_class: Vec::new(), rmse: None };
    match targets {
        Targets::Classes(classes) => {
            m.per_class = vec![(0, 0); width];
            for (row, &class) in rows.zip(classes) {
                m.loss += cross_entropy(row, class) / n;
                let (right, all) = &mut m.per_class[class];
                *right += u64::from(argmax(row) == class);
                *all += 1;
            }
            let sum = |of: fn(&(u64, u64)) -> u64| m.per_class.iter().map(of).sum();
            m.correct = Some((sum(|c| c.0), sum(|c| c.1)));
        }
        Targets::Labels(labels) => {
            let mut right = 0;
            for (&z, &yes) in outputs.iter().zip(labels) {
                let z = f64::from(z);
                let wrong_by = if yes { -z } else { z };
                m.loss += wrong_by.max(0.0) + (-z.abs()).exp().ln_1p();
                right += u64::from((z > 0.0) == yes);
            }
            m.loss /= outputs.len().max(1) as f64;
            m.correct = Some((right, outputs.len() as u64));
        }
        Targets::Values(values) => {
            let square = |(&y, &t): (&f32, &f32)| (f64::from(y) - f64::from(t)).powi(2);
            m.loss = outputs.iter().zip(values).map(square).sum::<f64>() / outputs.len().max(1) as f64;
            m.rmse = Some(m.loss.sqrt());
        }
    }
    m
}

/// −log softmax(logits) of a class.
#[must_use]
pub fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
    let sum: f64 = logits.iter().map(|&z| f64::from(z - max).exp()).sum();
    sum.ln() + f64::from(max) - f64::from(logits[class])
}

/// The first of the largest, as the device decides.
#[must_use]
pub fn argmax(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &z)| if z > b.1 { (i, z) } else { b });
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let m = measure(&[2.0, 0.0, 0.0, 1.0, 3.0, 1.0], 2, &Targets::Classes(vec![0, 1, 1]));
        assert_eq!(m.correct, Some((2, 3)));
        assert_eq!(m.per_class, [(1, 1), (1, 2)]);
        let e = |d: f64| (1.0 + (-d).exp()).ln();
        assert!((m.loss - (e(2.0) + e(1.0) + e(-2.0)) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn yes_and_no() {
        let m = measure(&[1.0, -2.0], 1, &Targets::Labels(vec![true, true]));
        assert_eq!(m.accuracy(), Some(50.0));
        let e = |z: f64| (1.0 + (-z).exp()).ln();
        assert!((m.loss - (e(1.0) + e(-2.0)) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn values() {
        let m = measure(&[1.0, 2.0], 2, &Targets::Values(vec![1.0, 4.0]));
        assert_eq!((m.loss, m.rmse, m.correct), (2.0, Some(2.0_f64.sqrt()), None));
    }
}
