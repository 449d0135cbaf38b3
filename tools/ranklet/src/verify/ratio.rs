//! Signal and noise.

/// The power of what was expected, and of what was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratio {
    signal: f64,
    noise: f64,
}

impl Ratio {
    /// Takes in one vector. What the integers cannot hold makes the noise infinite.
    pub fn add(&mut self, expected: &[f64], found: impl IntoIterator<Item = f64>) {
        for (e, f) in expected.iter().zip(found) {
            self.signal += e * e;
            self.noise += (e - f).powi(2);
        }
    }

    /// Signal to noise, in dB: 20 for every digit. Infinite where nothing is wrong.
    #[must_use]
    pub fn db(&self) -> f64 {
        match self.noise {
            0.0 => f64::INFINITY,
            noise if noise.is_finite() => 10.0 * (self.signal / noise).log10(),
            // What is no number is nothing but noise.
            _ => f64::NEG_INFINITY,
        }
    }

    /// The relative error: √(noise / signal).
    #[must_use]
    pub fn error(&self) -> f64 {
        if self.noise == 0.0 { 0.0 } else { (self.noise / self.signal).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_decibels_a_digit() {
        let mut ratio = Ratio::default();
        assert_eq!((ratio.db(), ratio.error()), (f64::INFINITY, 0.0));
        ratio.add(&[3.0, 4.0], [3.0, 4.05]);
        assert!((ratio.db() - 40.0).abs() < 1e-9 && (ratio.error() - 0.01).abs() < 1e-12);
        let mut silent = Ratio::default();
        silent.add(&[0.0], [1.0]);
        assert_eq!((silent.db(), silent.error()), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
