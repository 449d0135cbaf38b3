//! Σ wᵢ · adapterᵢ as one adapter, exactly: the ranks add up. (What PEFT calls `cat`; its `linear` averages A and B
//! apart, which is another function.)
//!
//! ```text
//! A = (A₁; A₂; …)    B = (B₁ · w₁s₁/s, B₂ · w₂s₂/s, …)    s = w₁s₁    gain = Σ wᵢ gainᵢ    bias = Σ wᵢ biasᵢ
//! ```

use crate::adapter::{MAX_RANK, Pair};
use crate::image::stored::Stored;
use crate::tensor::Matrix;
use crate::whole;
use std::collections::BTreeSet;

/// One adapter of a sum.
#[derive(Clone, Debug)]
pub struct Term<'a> {
    /// For messages.
    pub name: String,
    /// What it is multiplied by.
    pub weight: f64,
    /// Its pairs.
    pub pairs: &'a [Pair],
}

/// Why there is no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SumError {
    /// More than a record can hold.
    #[error(
        "`{module}`: the ranks add up to {rank} ({ranks}), and an image holds {MAX_RANK}; give the adapters to the device \
         one by one, which adds up those that are active, or train them with smaller ranks"
    )]
    Rank {
        /// The layer.
        module: String,
        /// The sum.
        rank: usize,
        /// Of each adapter.
        ranks: String,
    },
    /// B, gain or bias cannot be said in `f32`.
    #[error("`{module}`: the sum is beyond f32; its adapters' scalings are too far apart")]
    Range {
        /// The layer.
        module: String,
    },
}

/// The sum, in ascending order of the sites. What a weight or a scaling of 0 switches off is not in it.
///
/// A layer that any of the adapters has trained whole stays so: its differences are added up, at no more rank.
///
/// # Errors
/// [`SumError`].
pub fn sum(terms: &[Term<'_>], base: &Stored<'_>) -> Result<Vec<Pair>, SumError> {
    let sites: BTreeSet<usize> = terms.iter().flat_map(|t| t.pairs).map(|p| p.site).collect();
    let mut out = Vec::new();
    for site in sites {
        let of = |t: &Term<'_>| t.pairs.iter().find(|p| p.site == site).cloned().map(|p| (t.name.clone(), t.weight, p));
        let parts: Vec<(String, f64, Pair)> = terms.iter().filter(|t| t.weight != 0.0).filter_map(of).collect();
        let module = &base.sites()[site].module;
        let merged = match parts.iter().any(|(_, _, p)| p.whole) {
            true => Some(added(site, &parts, base)),
            false => stacked(site, &parts, module)?,
        };
        out.extend(merged.map(|p| finite(p, module)).transpose()?);
    }
    Ok(out)
}

/// Differences in place of pairs.
fn added(site: usize, parts: &[(String, f64, Pair)], base: &Stored<'_>) -> Pair {
    let site_dims = &base.sites()[site];
    let mut sums = vec![0.0; site_dims.outputs * site_dims.inputs];
    for (_, weight, pair) in parts {
        sums.iter_mut().zip(whole::difference(pair, base)).for_each(|(sum, d)| *sum += weight * d);
    }
    let difference = Matrix::new(site_dims.outputs, site_dims.inputs, sums.iter().map(|&v| v as f32).collect());
    Pair { bias: vectors(parts, |p| p.bias.as_ref()), ..whole::of(site, difference) }
}

/// A above A, B beside B.
fn stacked(site: usize, parts: &[(String, f64, Pair)], module: &str) -> Result<Option<Pair>, SumError> {
    let adds = |p: &Pair| p.scaling != 0.0 && !p.is_only_bias();
    let pairs: Vec<&(String, f64, Pair)> = parts.iter().filter(|(_, _, p)| adds(p)).collect();
    let (gain, bias) = (vectors(parts, |p| p.gain.as_ref()), vectors(parts, |p| p.bias.as_ref()));
    let rank = pairs.iter().map(|(_, _, p)| p.rank()).sum();
    if rank > MAX_RANK {
        let ranks = pairs.iter().map(|(name, _, p)| format!("{name}: {}", p.rank())).collect::<Vec<_>>().join(", ");
        return Err(SumError::Rank { module: module.to_owned(), rank, ranks });
    }
    let Some((_, weight, first)) = pairs.first() else {
        // Nothing of A and B is left; a gain or a bias may be.
        let Some((_, _, any)) = parts.first().filter(|_| gain.is_some() || bias.is_some()) else { return Ok(None) };
        let nothing = Pair::only_bias(site, any.a.cols, vec![0.0; any.b.rows]);
        return Ok(Some(Pair { gain, bias, ..nothing }));
    };
    let scaling = weight * first.scaling;
    let a = Matrix::new(rank, first.a.cols, pairs.iter().flat_map(|(_, _, p)| p.a.data.iter().copied()).collect());
    let mut b = Vec::with_capacity(first.b.rows * rank);
    for row in 0..first.b.rows {
        for (_, weight, p) in &pairs {
            let factor = weight * p.scaling / scaling;
            b.extend(p.b.data[row * p.rank()..][..p.rank()].iter().map(|&v| (f64::from(v) * factor) as f32));
        }
    }
    let b = Matrix::new(first.b.rows, rank, b);
    Ok(Some(Pair { gain, bias, ..Pair::new(site, a, b, scaling) }))
}

/// Σ w · vector over those that have one.
fn vectors(parts: &[(String, f64, Pair)], of: impl Fn(&Pair) -> Option<&Vec<f32>>) -> Option<Vec<f32>> {
    let mut sums: Option<Vec<f64>> = None;
    for (_, weight, pair) in parts {
        let Some(vector) = of(pair) else { continue };
        let sums = sums.get_or_insert_with(|| vec![0.0; vector.len()]);
        sums.iter_mut().zip(vector).for_each(|(sum, &v)| *sum += weight * f64::from(v));
    }
    sums.map(|sums| sums.iter().map(|&v| v as f32).collect())
}

fn finite(pair: Pair, module: &str) -> Result<Pair, SumError> {
    let values =
        pair.a.data.iter().chain(&pair.b.data).chain(pair.gain.iter().flatten()).chain(pair.bias.iter().flatten());
    let sane = pair.scaling.is_finite() && values.into_iter().all(|v| v.is_finite());
    if sane { Ok(pair) } else { Err(SumError::Range { module: module.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Site;

    fn pair(site: usize, rank: usize, seed: usize, scaling: f64) -> Pair {
        let matrix = |rows: usize, cols: usize, k: usize| {
            Matrix::new(rows, cols, (0..rows * cols).map(|i| ((i * 7 + k) % 11) as f32 - 5.0).collect())
        };
        Pair::new(site, matrix(rank, 3, seed), matrix(2, rank, seed + 3), scaling)
    }

    fn base() -> Stored<'static> {
        Stored::bare(&["0", "2"].map(|m| Site { module: m.to_owned(), inputs: 3, outputs: 2 }))
    }

    fn term<'p>(name: &str, weight: f64, pairs: &'p [Pair]) -> Term<'p> {
        Term { name: name.to_owned(), weight, pairs }
    }

    #[test]
    fn a_sum_is_exact() {
        let mut x = pair(0, 2, 1, 0.5);
        x.bias = Some(vec![1.0, -2.0]);
        let mut y = pair(0, 3, 2, -4.0);
        y.gain = Some(vec![0.5, 0.0]);
        y.bias = Some(vec![0.0, 1.0]);
        let other = pair(1, 1, 5, 2.0);
        let (xs, ys) = ([x.clone()], [y.clone(), other.clone()]);
        let sum = sum(&[term("x", 2.0, &xs), term("y", -0.25, &ys)], &base()).unwrap();
        assert_eq!(sum.iter().map(|p| (p.site, p.rank())).collect::<Vec<_>>(), [(0, 5), (1, 1)]);
        let plain = |p: &Pair| whole::difference(&Pair { gain: None, ..p.clone() }, &base());
        let expected: Vec<f64> = plain(&x).iter().zip(plain(&y)).map(|(x, y)| 2.0 * x - 0.25 * y).collect();
        assert_eq!(plain(&sum[0]), expected);
        assert_eq!(sum[0].bias, Some(vec![2.0, -4.25]));
        assert_eq!(sum[0].gain, Some(vec![-0.125, 0.0]));
        assert_eq!((sum[1].scaling, &sum[1].b), (-0.5, &other.b));
    }

    #[test]
    fn what_is_switched_off_is_left_out() {
        let (x, y) = ([pair(0, 2, 1, 0.5), pair(1, 2, 1, 0.0)], [pair(0, 64, 2, 1.0)]);
        let sum = sum(&[term("x", 1.0, &x), term("y", 0.0, &y)], &base()).unwrap();
        assert_eq!(sum.len(), 1);
        assert_eq!(sum[0], x[0]);
    }

    #[test]
    fn ranks_beyond_an_image_are_refused() {
        let (x, y) = ([pair(1, 60, 1, 0.5)], [pair(1, 5, 2, 1.0)]);
        let e = sum(&[term("x.rkl", 1.0, &x), term("y.rkl", 1.0, &y)], &base()).unwrap_err().to_string();
        assert!(e.contains("`2`") && e.contains("65 (x.rkl: 60, y.rkl: 5)") && e.contains("one by one"), "{e}");
    }

    #[test]
    fn whole_layers_add_up_at_no_more_rank() {
        let difference = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (w, x) = ([whole::of(0, difference)], [pair(0, 64, 2, 0.5)]);
        let terms = [term("w", 3.0, &w), term("x", 1.0, &x)];
        let sum = sum(&terms, &base()).unwrap();
        assert!(sum[0].whole && sum[0].rank() == 2);
        let expected: Vec<f64> =
            (0..6).map(|i| 3.0 * (i as f64 + 1.0) + whole::difference(&x[0], &base())[i]).collect();
        assert_eq!(whole::difference(&sum[0], &base()), expected);
    }
}
