//! The three losses, each with its gradient by the network's output.

use super::Scalar;

/// What a sample should have come out as.
#[derive(Clone, Debug)]
pub enum Target<T> {
    /// A class: cross-entropy.
    Class(usize),
    /// One yes or no a logit: binary cross-entropy, mean over the outputs.
    Labels(Vec<bool>),
    /// Values: mean squared error, mean over the outputs.
    Values(Vec<T>),
    /// The gradient itself.
    Cotangent(Vec<T>),
}

/// The loss of one sample and dL/dy.
///
/// # Panics
/// On a class that the output does not have.
#[must_use]
pub fn loss<T: Scalar>(y: &[T], target: &Target<T>) -> (T, Vec<T>) {
    let n = T::of(y.len() as f64);
    match target {
        Target::Class(class) => {
            let max = y.iter().fold(y[0], |m, &v| m.larger(v));
            let terms: Vec<T> = y.iter().map(|&v| (v - max).exponential()).collect();
            let sum: T = terms.iter().copied().sum();
            let mut gradient: Vec<T> = terms.iter().map(|&t| t / sum).collect();
            gradient[*class] = gradient[*class] - T::ONE;
            (sum.logarithm() + max - y[*class], gradient)
        }
        Target::Labels(labels) => {
            let (mut total, mut gradient) = (T::ZERO, Vec::new());
            for (&z, &yes) in y.iter().zip(labels) {
                let label = if yes { T::ONE } else { T::ZERO };
                let small = (-z.magnitude()).exponential();
                total += z.larger(T::ZERO) - z * label + (T::ONE + small).logarithm();
                let sigmoid = if z > T::ZERO { T::ONE / (T::ONE + small) } else { small / (T::ONE + small) };
                gradient.push((sigmoid - label) / n);
            }
            (total / n, gradient)
        }
        Target::Values(values) => {
            let difference: Vec<T> = y.iter().zip(values).map(|(&y, &t)| y - t).collect();
            let total: T = difference.iter().map(|&d| d * d).sum();
            (total / n, difference.iter().map(|&d| T::of(2.0) * d / n).collect())
        }
        Target::Cotangent(c) => (T::ZERO, c.clone()),
    }
}
