//! The normal distribution, Φ and its density φ: the exact GELU, `x · Φ(x)`, and its derivative.

use super::exp2::{exp2_neg_parts_q31, mul_high_floor};
use super::rounding::{narrow_half_even, shift_right_half_even};

/// `1 − Φ(i/8)` in Q32 and `φ(i/8)` in Q31, for i = 0 ..= 50, rounded to nearest: `erfc(x/√2)/2` and
/// `exp(−x²/2)/√(2π)` in double precision (Python: `round(0.5 * math.erfc(i / 8 / math.sqrt(2)) * 2**32)`,
/// `round(math.exp(-(i / 8) ** 2 / 2) / math.sqrt(2 * math.pi) * 2**31)`).
#[rustfmt::skip]
static NODES: [(u32, u32); 51] = [
    (2_147_483_648, 856_722_024), (1_933_859_599, 850_054_960), (1_723_543_207, 830_363_458),
    (1_519_689_280, 798_552_734), (1_325_158_638, 756_054_532), (1_142_399_148, 704_720_314),
    (973_357_067, 646_687_711), (819_423_723, 584_233_660), (681_419_127, 519_628_174), (559_610_690, 455_001_632),
    (453_762_323, 392_235_924), (363_207_012, 332_886_305), (286_934_745, 278_136_919), (223_687_392, 228_789_189),
    (172_052_769, 185_279_131), (130_551_380, 147_717_403), (97_711_073, 115_944_718), (72_126_702, 89_595_134),
    (52_503_710, 68_160_383), (37_686_084, 51_049_768), (26_670_309, 37_641_739), (18_607_724, 27_324_972),
    (12_797_986, 19_528_277), (8_676_424, 13_739_859), (5_797_768, 9_517_322), (3_818_335, 6_490_250),
    (2_478_304, 4_357_348), (1_585_180, 2_880_031), (999_134, 1_874_072), (620_540, 1_200_575), (379_749, 757_193),
    (228_975, 470_152), (136_027, 287_398), (79_615, 172_959), (45_907, 102_475), (26_077, 59_773), (14_593, 34_325),
    (8_044, 19_405), (4_368, 10_801), (2_337, 5_918), (1_231, 3_193), (639, 1_696), (327, 887), (164, 456), (82, 231),
    (40, 115), (19, 57), (9, 27), (4, 13), (2, 6), (1, 3),
];

/// `Φ(x) = (1 + erf(x/√2)) / 2`: `x` in Q5.26; the result in Q1.31, where 1.0 is `2^31`.
///
/// **Worst error 1.9 LSB (2^-30).** `Φ(−x)` is `2^31 − Φ(x)` exactly, Φ(0) is exactly ½, and both ends are reached
/// exactly, from |x| = 6.32 on.
///
/// ```
/// use ranklet::fixed::normal::phi_q31;
/// assert_eq!(phi_q31(0), 1 << 30);
/// assert_eq!(phi_q31(1 << 26) + phi_q31(-1 << 26), 1 << 31);
/// assert_eq!(phi_q31(1 << 26) >> 11, 882_213); // Φ(1) = 0.841345 in Q20
/// ```
///
/// Derivation. From the nearest node x₀ = i/8, |d| ≤ 1/16, the tail is its Taylor series, whose derivatives are
/// Hermite polynomials:
///
/// ```text
/// 1 − Φ(x₀ + d) = 1 − Φ(x₀) − φ(x₀) · d (1 − d (h2 − d (h3 − d (h4 − d h5))))
/// h2 = x₀/2    h3 = (x₀² − 1)/6    h4 = (x₀³ − 3x₀)/24    h5 = (x₀⁴ − 6x₀² + 3)/120
/// ```
///
/// In units of 2^-32: the term left out, 16^-6/720 · |He₅ φ| ≤ 2^-33.5 · 2.4, 0.9; the product that stands in the bracket,
/// rounded in Q26, times d φ, 0.8; the series rounded to Q31, times φ, 0.4; its product with φ 0.5, the node 0.5, the
/// density and the floors of the h below 0.1. In all 3.2, which is 1.6 LSB, and 0.5 for the last rounding: 2.1 LSB if all met;
/// over all arguments 1.86 is met.
#[inline]
#[must_use]
pub const fn phi_q31(x: i32) -> u32 {
    const ONE: u32 = 1 << 31;
    let a = x.unsigned_abs();
    let node = (a + (1 << 22)) >> 23;
    let (tail, density) = match NODES.split_at_checked(node as usize) {
        Some((_, [(tail, density), ..])) => (*tail as i64, *density as i64),
        _ => (0, 0), // Beyond 6.3125 the tail is below 2^-32.6.
    };
    let d = a as i64 - ((node as i64) << 23); // Q26, ±2^22
    let series = if density == 0 { 0 } else { series_q52(node as i64, d) };
    let tail = tail - shift_right_half_even(density * shift_right_half_even(series, 21), 30); // Q32
    let half = shift_right_half_even(if tail < 0 { 0 } else { tail }, 1) as u32;
    if x < 0 { half } else { ONE - half }
}

/// `d (1 − d (h2 − d (h3 − d (h4 − d h5))))` in Q52, for `x₀ = node/8` and `d` in Q26.
const fn series_q52(node: i64, d: i64) -> i64 {
    const fn times(a: i64, b: i64) -> i64 {
        shift_right_half_even(a * b, 26)
    }
    // Exact numerators in eighths; node ≤ 50, so node⁴ < 2^23.
    let n2 = node * node;
    let h2 = node << 22; // x₀/2
    let h3 = ((n2 - 64) << 20) / 6; // (x₀² − 1)/6: 64ths
    let h4 = ((n2 * node - 192 * node) << 17) / 24; // 512ths
    let h5 = ((n2 * n2 - 384 * n2 + 3 * 4096) << 14) / 120; // 4096ths
    let inner = h2 - times(d, h3 - times(d, h4 - times(d, h5)));
    d * ((1 << 26) - times(d, inner))
}

/// `φ(x) = e^(−x²/2) / √(2π)`, the derivative of Φ: `x` in Q5.26, [−32, 32); the result in Q31, at most 0.399.
///
/// **Worst error 1.0 LSB (2^-31).** Even exactly. Monotone on either side of 0.
///
/// ```
/// use ranklet::fixed::normal::density_q31;
/// assert_eq!(density_q31(0), 856_722_024); // 0.39894228
/// assert_eq!(density_q31(3 << 26), density_q31(-3 << 26));
/// ```
///
/// `2^-(x² · log2(e)/2)`: x² is exact in Q52, and its product with the constant is short of at most one unit of Q52
/// before it is rounded to the 32 fraction bits that the exponential takes. In 2^-31: the exponential 1.01, its argument
/// (2^-33 · ln 2, and the constant) below 0.2, both times 0.4; 1/√(2π) 0.1; the last rounding 0.5: 1.08 if all met; over
/// all arguments 0.945 is met.
#[inline]
#[must_use]
pub const fn density_q31(x: i32) -> u32 {
    const HALF_LOG2_E: u32 = 3_098_164_009; // 0.72134752044448170 · 2^32
    const PEAK: u32 = 3_426_888_095; // 1/√(2π) · 2^33
    let a = x.unsigned_abs();
    if a >= 8 << 26 {
        return 0; // φ(8) is 2^-47.
    }
    let square = a as u64 * a as u64; // Q52, < 2^58
    let z = (square >> 32) * HALF_LOG2_E as u64 + mul_high_floor(square as u32, HALF_LOG2_E) as u64 + (1 << 19);
    let power = exp2_neg_parts_q31((z >> 52) as u32, (z >> 20) as u32);
    narrow_half_even(power as i64 * PEAK as i64, 33) as u32 // < 2^(31 + 31.7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 1.9;
    const WORST_DENSITY_LSB: f64 = 1.0;

    /// `1 − Φ(x)` for x ≥ 0 by Simpson's rule from the nearest sixteenth beyond 0, in f64: no function of the code under
    /// test, and no erf, which `core` does not have.
    struct Oracle {
        tails: std::vec::Vec<f64>,
    }

    fn density(x: f64) -> f64 {
        (-x * x / 2.0).exp() / (2.0 * core::f64::consts::PI).sqrt()
    }

    fn simpson(from: f64, to: f64, parts: usize) -> f64 {
        let h = (to - from) / parts as f64;
        let at = |k: usize| density(from + k as f64 * h);
        let inner: f64 = (1..parts).map(|k| at(k) * if k % 2 == 1 { 4.0 } else { 2.0 }).sum();
        (at(0) + inner + at(parts)) * h / 3.0
    }

    impl Oracle {
        fn new() -> Oracle {
            let mut tails = std::vec![0.5];
            for i in 0..16 * 33 {
                let from = f64::from(i) / 16.0;
                tails.push(tails[i as usize] - simpson(from, from + 1.0 / 16.0, 16));
            }
            Oracle { tails }
        }

        fn phi(&self, x: f64) -> f64 {
            let a = x.abs();
            let i = (a * 16.0) as usize;
            let tail = self.tails[i] - simpson(i as f64 / 16.0, a, 8);
            if x < 0.0 { tail } else { 1.0 - tail }
        }
    }

    fn sweep(oracle: &Oracle, xs: impl Iterator<Item = i32>) -> f64 {
        let mut worst = 0.0_f64;
        for x in xs {
            let y = phi_q31(x);
            assert_eq!(y + phi_q31(-x), 1 << 31, "not symmetric at {x}");
            let want = oracle.phi(f64::from(x) / f64::from(1 << 26)) * f64::from(31).exp2();
            worst = worst.max((f64::from(y) - want).abs());
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn whole_domain_by_a_coprime_stride() {
        sweep(&Oracle::new(), (0..=i32::MAX).step_by(stride(20_011)));
    }

    #[test]
    fn where_it_bends_densely() {
        let worst = sweep(&Oracle::new(), (0..=7 << 26).step_by(stride(1009)));
        assert!(worst > 0.8, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn borders_between_nodes() {
        let oracle = Oracle::new();
        for border in (0..52).map(|i| (1 << 22) + (i << 23)) {
            sweep(&oracle, border - 8..border + 8);
        }
    }

    fn sweep_density(xs: impl Iterator<Item = i32>) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = u32::MAX;
        for x in xs {
            let y = density_q31(x);
            assert!(y <= last, "not monotone at {x}");
            last = y;
            assert_eq!(y, density_q31(-x), "not even at {x}");
            worst = worst.max((f64::from(y) - density(f64::from(x) / f64::from(1 << 26)) * f64::from(31).exp2()).abs());
        }
        assert!(worst <= WORST_DENSITY_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn density_by_a_coprime_stride() {
        sweep_density((0..=8 << 26).step_by(stride(1499)));
        sweep_density((8 << 26..=i32::MAX).step_by(1499));
        assert_eq!(density_q31(i32::MIN), 0);
    }

    #[test]
    fn density_where_it_bends_densely() {
        let worst = sweep_density((0..=4 << 26).step_by(127));
        assert!(worst > 0.85, "the claim of {WORST_DENSITY_LSB} LSB is loose: {worst}");
        sweep_density(0..=20_000);
    }

    #[test]
    fn ends() {
        assert_eq!(phi_q31(i32::MAX), 1 << 31);
        assert_eq!(phi_q31(i32::MIN), 0);
    }
}
