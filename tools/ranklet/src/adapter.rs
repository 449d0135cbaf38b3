//! An adapter in `f32`: pairs (A, B) on the sites of one base. What every format is read into, and an image is made
//! from.

use crate::tensor::{Matrix, name_list};
pub use ranklet::image::MAX_RANK;
use serde_json::{Map, Value};

/// A linear layer of the base that can carry a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its module path.
    pub module: String,
    /// Columns of its weight.
    pub inputs: usize,
    /// Rows of its weight.
    pub outputs: usize,
}

/// The low-rank pair of one site: `ΔW = gain ⊙ W + scaling · B A`, and what is added to the bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Index of the site.
    pub site: usize,
    /// (r, in).
    pub a: Matrix,
    /// (out, r).
    pub b: Matrix,
    /// alpha / r, or alpha / √r.
    pub scaling: f64,
    /// DoRA: g − 1 of every output, (out); `b` is g ⊙ B then.
    pub gain: Option<Vec<f32>>,
    /// What is added to the layer's bias, whatever the scaling: (out).
    pub bias: Option<Vec<f32>>,
    /// A and B hold the difference of a layer that was trained whole (`modules_to_save`).
    pub whole: bool,
}

/// An adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// In ascending order of their sites; at least one.
    pub pairs: Vec<Pair>,
    /// The fields of its `adapter_config.json` as they came, in their order; empty for other formats.
    pub config: Map<String, Value>,
    /// What the user should know, although it is no error.
    pub warnings: Vec<String>,
}

/// Why a pair does not fit its site.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairError {
    /// The base has no such layer.
    #[error("`{module}` is no linear layer of the base, which has {known}")]
    Unknown {
        /// The pair's module.
        module: String,
        /// The base's modules.
        known: String,
    },
    /// A and B disagree about the rank, or it is out of range.
    #[error("`{module}`: A is ({a_rows}, …) and B is (…, {b_cols}); both must be the rank, 1 to {MAX_RANK}")]
    Rank {
        /// The pair's module.
        module: String,
        /// Rows of A.
        a_rows: usize,
        /// Columns of B.
        b_cols: usize,
    },
    /// A does not fit the layer's inputs, or B its outputs.
    #[error(
        "`{module}`: A is (…, {a_cols}) and B is ({b_rows}, …), but the base's layer has {inputs} inputs and \
         {outputs} outputs; is this another base?"
    )]
    Dimensions {
        /// The pair's module.
        module: String,
        /// Columns of A.
        a_cols: usize,
        /// Rows of B.
        b_rows: usize,
        /// Of the base's layer.
        inputs: usize,
        /// Of the base's layer.
        outputs: usize,
    },
}

impl Pair {
    /// Checks a pair against the base and gives it its site.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn fit(module: &str, a: Matrix, b: Matrix, scaling: f64, sites: &[Site]) -> Result<Pair, PairError> {
        let site = find(module, sites)?;
        let Site { inputs, outputs, .. } = sites[site];
        if a.rows != b.cols || !(1..=MAX_RANK).contains(&a.rows) {
            return Err(PairError::Rank { module: module.to_owned(), a_rows: a.rows, b_cols: b.cols });
        }
        if a.cols != inputs || b.rows != outputs {
            let (module, a_cols, b_rows) = (module.to_owned(), a.cols, b.rows);
            return Err(PairError::Dimensions { module, a_cols, b_rows, inputs, outputs });
        }
        Ok(Pair::new(site, a, b, scaling))
    }

    /// A pair and nothing else.
    #[must_use]
    pub fn new(site: usize, a: Matrix, b: Matrix, scaling: f64) -> Pair {
        Pair { site, a, b, scaling, gain: None, bias: None, whole: false }
    }

    /// Nothing but a bias: a pair of rank 1 that adds nothing.
    #[must_use]
    pub fn only_bias(site: usize, inputs: usize, bias: Vec<f32>) -> Pair {
        let outputs = bias.len();
        let (a, b) = (Matrix::new(1, inputs, vec![0.0; inputs]), Matrix::new(outputs, 1, vec![0.0; outputs]));
        Pair { bias: Some(bias), ..Pair::new(site, a, b, 1.0) }
    }

    /// Whether it has A and B as LoRA has them: no layer trained whole, no bias alone.
    #[must_use]
    pub fn is_lora(&self) -> bool {
        !self.whole && !self.is_only_bias()
    }

    /// Whether it is a bias alone. PEFT draws A at random, so that no pair that has been trained is all zero.
    #[must_use]
    pub fn is_only_bias(&self) -> bool {
        let zero = |m: &Matrix| m.data.iter().all(|&v| v == 0.0);
        self.bias.is_some() && self.gain.is_none() && !self.whole && zero(&self.a) && zero(&self.b)
    }

    /// Its rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.a.rows
    }

    /// What was trained, counted as PyTorch counts parameters: A and B, or the whole weight; magnitudes; a bias.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let (inputs, outputs) = (self.a.cols, self.b.rows);
        let weights = match () {
            () if self.whole => inputs * outputs,
            () if self.is_only_bias() => 0,
            () => self.a.data.len() + self.b.data.len(),
        };
        let vectors = usize::from(self.gain.is_some()) + usize::from(self.bias.is_some());
        (weights + vectors * outputs) as u64
    }

    /// What it has beside A and B, for reports: `whole`, `DoRA`, `bias`; empty for a plain pair.
    #[must_use]
    pub fn more(&self) -> String {
        let words = [(self.whole, "whole"), (self.gain.is_some(), "DoRA"), (self.bias.is_some(), "bias")];
        words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// An alpha that no image can hold, whatever the rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 0, or a number of a size between 1e-290 and 1e290")]
pub struct AlphaError;

/// Checks an alpha where it is read: its scaling, alpha / r, has to stand in an image (an exponent within ±1024), and come
/// back as an `f64`.
///
/// # Errors
/// [`AlphaError`]; also for what is not finite.
pub fn check_alpha(alpha: f64) -> Result<(), AlphaError> {
    let fits = alpha == 0.0 || (1e-290..=1e290).contains(&alpha.abs());
    if fits { Ok(()) } else { Err(AlphaError) }
}

/// The site of a module path.
///
/// # Errors
/// [`PairError::Unknown`].
pub fn find(module: &str, sites: &[Site]) -> Result<usize, PairError> {
    sites.iter().position(|s| s.module == module).ok_or_else(|| PairError::Unknown {
        module: module.to_owned(),
        known: name_list(sites.iter().map(|s| s.module.as_str()), 12),
    })
}

/// PEFT's line, to the letter: `trainable params: 8,192 || all params: 270,336 || trainable%: 3.0303`. `base` is the
/// number of frozen parameters.
#[must_use]
pub fn trainable_line(trainable: u64, base: u64) -> String {
    use crate::tensor::thousands;
    let all = base.saturating_add(trainable);
    let percent = if all == 0 { 0.0 } else { 100.0 * trainable as f64 / all as f64 };
    let (trainable, all) = (thousands(trainable), thousands(all));
    format!("trainable params: {trainable} || all params: {all} || trainable%: {percent:.4}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pefts_line() {
        let line = "trainable params: 8,192 || all params: 270,336 || trainable%: 3.0303";
        assert_eq!(trainable_line(8 * (512 + 512), 512 * 512), line);
        assert!(trainable_line(2, u64::MAX).contains("all params: 18,446,744,073,709,551,615"), "as a file may claim");
    }

    #[test]
    fn alphas_that_pass_stand_in_an_image() {
        use ranklet::fixed::Real;
        for alpha in [1e-290, -1e-290, 1e290, -1e290, 8.0] {
            assert_eq!(check_alpha(alpha), Ok(()));
            for rank in [1.0, MAX_RANK as f64] {
                let s = Real::from_f64(alpha / rank);
                assert!((-1024..=1024).contains(&s.exponent()), "{alpha}");
                assert!((s.to_f64() * rank / alpha - 1.0).abs() < 1e-9);
            }
        }
        assert_eq!(check_alpha(0.0), Ok(()));
        for alpha in [f64::NAN, f64::INFINITY, 1e300, 5e-324, -1e-300] {
            assert_eq!(check_alpha(alpha), Err(AlphaError));
        }
    }

    #[test]
    fn misfits_are_named() {
        let sites = [Site { module: "0".to_owned(), inputs: 3, outputs: 2 }];
        let zeros = |r, c| Matrix::new(r, c, vec![0.0; r * c]);
        assert!(Pair::fit("0", zeros(1, 3), zeros(2, 1), 1.0, &sites).is_ok());
        let fails = |m: &str, a, b| Pair::fit(m, a, b, 1.0, &sites).unwrap_err().to_string();
        assert!(fails("1", zeros(1, 3), zeros(2, 1)).contains("the base, which has `0`"));
        assert!(fails("0", zeros(1, 3), zeros(2, 2)).contains("rank"));
        assert!(fails("0", zeros(65, 3), zeros(2, 65)).contains("1 to 64"));
        assert!(fails("0", zeros(1, 2), zeros(2, 1)).contains("3 inputs"));
    }
}
