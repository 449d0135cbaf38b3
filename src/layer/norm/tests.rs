use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn two(e: i32) -> f64 {
    f64::from(e).exp2()
}

fn value(x: Real) -> f64 {
    f64::from(x.mantissa()) * two(x.exponent())
}

/// x̂ and r by the definition. Means are subtracted in integers, so that the oracle does not cancel.
fn standard(kind: NormKind, row: &[i64], exponent: i32, epsilon: f64) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let total: i128 = row.iter().map(|&v| i128::from(v)).sum();
    let deviation = |&v: &i64| match kind {
        NormKind::Layer => (i128::from(v) * row.len() as i128 - total) as f64 / n * two(exponent),
        NormKind::Rms => v as f64 * two(exponent),
    };
    let d: Vec<f64> = row.iter().map(deviation).collect();
    let r = 1.0 / (d.iter().map(|d| d * d).sum::<f64>() / n + epsilon).sqrt();
    (d.iter().map(|d| if *d == 0.0 { 0.0 } else { d * r }).collect(), r)
}

/// dx by the definition.
fn gradient(kind: NormKind, x: &[f64], r: f64, g: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = if kind == NormKind::Layer { g.iter().sum::<f64>() / n } else { 0.0 };
    let along = g.iter().zip(x).map(|(g, x)| g * x).sum::<f64>() / n;
    g.iter().zip(x).map(|(g, x)| r * (g - mean - x * along)).collect()
}

#[derive(Clone, Debug)]
struct Case {
    kind: NormKind,
    row: Vec<i64>,
    exponent: i32,
    weight: Vec<i32>,
    bias: Option<Vec<i32>>,
    epsilon: Real,
    dy: Vec<i16>,
}

const WEIGHT: i16 = -29;
const BIAS: i16 = -33;
const DY: Exp = Exp(-21);

impl Case {
    fn norm(&self) -> Norm<'_> {
        Norm {
            kind: self.kind,
            weight: Vector { mantissas: &self.weight, exponent: WEIGHT },
            bias: self.bias.as_ref().map(|b| Vector { mantissas: b, exponent: BIAS }),
            epsilon: self.epsilon,
        }
    }

    fn weights(&self) -> impl Iterator<Item = f64> + Clone + '_ {
        self.weight.iter().map(|&w| f64::from(w) * two(WEIGHT.into()))
    }

    fn biases(&self) -> Vec<f64> {
        let zeros = || vec![0.0; self.row.len()];
        self.bias.as_ref().map_or_else(zeros, |b| b.iter().map(|&b| f64::from(b) * two(BIAS.into())).collect())
    }
}

/// The worst relative error of R, and the worst error of x̂ beside it: as the file derives them.
fn errors(x: &[f64]) -> (f64, f64) {
    ((x.len() as f64).sqrt() * two(-30) + 3.0 * two(-30), two(-29) * peak(x))
}

/// How far each dx may be off before it is rounded: the errors of x̂ in both places, and of g.
fn gradient_errors(x: &[f64], r: f64, g: &[f64], dx: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let (relative, absolute) = errors(x);
    let along = g.iter().zip(x).map(|(g, x)| (g * x).abs()).sum::<f64>() / n;
    let mean = g.iter().map(|g| g.abs()).sum::<f64>() / n;
    let of_x = |x: f64| 2.0 * relative * x * along + absolute * (along + x * mean);
    let largest = peak(g);
    let of_g = |x: f64| two(-29) * largest * (1.0 + x);
    x.iter().zip(dx).map(|(x, dx)| r * (of_x(x.abs()) + of_g(x.abs())) + relative * dx.abs()).collect()
}

fn peak(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |p, x| p.max(x.abs()))
}

prop_compose! {
    /// Rows of any scale around any mean, some with an outlier; γ and β at full width. Of each value 54 bits differ from
    /// zero, which `N·x − Σx` keeps at this width.
    fn case()(width in 1_usize..70)(
        kind in prop_oneof![Just(NormKind::Layer), Just(NormKind::Rms)],
        noise in prop::collection::vec(-(1_i64 << 39)..=(1 << 39), width),
        bits in 2_u32..39, mean in -(1_i64 << 52)..(1 << 52), mean_down in 0_u32..52, around_zero in any::<bool>(),
        up in 0_u32..8,
        outlier in prop_oneof![Just(1_i64), Just(10_000_i64)], at in 0..width,
        exponent in -60_i32..20,
        weight in prop::collection::vec(-i32::MAX..=i32::MAX, width),
        bias in prop::option::of(prop::collection::vec(-i32::MAX..=i32::MAX, width)),
        epsilon in prop_oneof![Just(Real::ratio(1, 100_000)), Just(Real::ratio(1, 1_000_000).mul(Real::ratio(1, 1_000_000))), Just(Real::ZERO)],
        dy in prop::collection::vec(-32639_i16..=32639, width),
    ) -> Case {
        let mean = if around_zero { 0 } else { mean >> mean_down };
        let mut row: Vec<i64> = noise.iter().map(|v| mean + (v >> (39 - bits))).collect();
        row[at] = mean + (row[at] - mean) * outlier;
        row.iter_mut().for_each(|v| *v <<= up);
        Case { kind, row, exponent, weight, bias, epsilon, dy }
    }
}

/// Every value is within half an LSB of what it should be, and of the derived error before the rounding; the peak may
/// be clamped by 1/256.
fn near(got: &[i16], e: Exp, want: &[f64], slack: impl Fn(usize) -> f64) -> Result<(), TestCaseError> {
    let lsb = two(e.get());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let clamp = if got.unsigned_abs() == 32639 { 129.0 * lsb } else { 0.0 };
        let error = (f64::from(got) * lsb - want).abs();
        prop_assert!(
            error <= 0.5 * lsb + slack(i) + clamp,
            "{i}: {} for {want}, {} LSB",
            f64::from(got) * lsb,
            error / lsb
        );
    }
    Ok(())
}

fn forward(c: &Case) -> Result<(), TestCaseError> {
    let (x, _) = standard(c.kind, &c.row, c.exponent, value(c.epsilon));
    let beta = c.biases();
    let want: Vec<f64> = x.iter().zip(c.weights()).zip(&beta).map(|((x, w), b)| x * w + b).collect();
    let mut y = vec![0; c.row.len()];
    let e = c.norm().forward(&mut c.row.clone(), c.exponent, &mut y).unwrap();
    let (relative, absolute) = errors(&x);
    let weights: Vec<f64> = c.weights().collect();
    // The row's 62 bits, under the largest x̂ · γ or β that it has to hold.
    let grain = two(-58) * (peak(&x) * 4.0 + peak(&beta));
    near(&y, e, &want, |i| (relative * x[i].abs() + absolute) * weights[i].abs() + grain)
}

fn backward(c: &Case) -> Result<(), TestCaseError> {
    let (x, r) = standard(c.kind, &c.row, c.exponent, value(c.epsilon));
    if r.is_infinite() {
        return Ok(()); // Asserted below: a row without deviation, ε = 0.
    }
    let g: Vec<f64> = c.dy.iter().zip(c.weights()).map(|(&d, w)| f64::from(d) * two(DY.get()) * w).collect();
    let want = gradient(c.kind, &x, r, &g);
    let (mut dx, mut acc) = (vec![0; c.row.len()], vec![0; c.row.len()]);
    let dy = Block { mantissas: &c.dy, exponent: DY };
    let e = c.norm().backward(&mut c.row.clone(), c.exponent, dy, &mut dx, &mut acc).unwrap();
    let slack = gradient_errors(&x, r, &g, &want);
    near(&dx, e, &want, |i| slack[i])
}

proptest! {
    #[test]
    fn forward_is_within_its_error(c in case()) {
        forward(&c)?;
    }

    #[test]
    fn backward_is_within_its_error(c in case()) {
        backward(&c)?;
    }

    /// The scale of the input goes out: with ε = 0, and powers of two, to the last bit.
    #[test]
    fn ignores_the_scale(c in case(), by in -40_i32..40) {
        let c = Case { epsilon: Real::ZERO, ..c };
        let (mut y, mut z) = (vec![0; c.row.len()], vec![0; c.row.len()]);
        let e = c.norm().forward(&mut c.row.clone(), c.exponent, &mut y).unwrap();
        let f = c.norm().forward(&mut c.row.clone(), c.exponent + by, &mut z).unwrap();
        prop_assert_eq!((e, y), (f, z));
    }

    /// A layer norm does not see a constant that is added to the row.
    #[test]
    fn ignores_the_mean(c in case(), add in -(1_i64 << 40)..1 << 40) {
        let c = Case { kind: NormKind::Layer, row: c.row.iter().map(|v| v >> 21).collect(), ..c };
        let moved: Vec<i64> = c.row.iter().map(|v| v + add).collect();
        let (mut y, mut z) = (vec![0; c.row.len()], vec![0; c.row.len()]);
        let e = c.norm().forward(&mut c.row.clone(), c.exponent, &mut y).unwrap();
        let f = c.norm().forward(&mut moved.clone(), c.exponent, &mut z).unwrap();
        prop_assert_eq!((e, y), (f, z));
    }
}

/// γ = 1, β given.
fn plain<'a>(kind: NormKind, ones: &'a [i32], bias: Option<&'a [i32]>, epsilon: Real) -> Norm<'a> {
    let bias = bias.map(|mantissas| Vector { mantissas, exponent: BIAS });
    Norm { kind, weight: Vector { mantissas: ones, exponent: -30 }, bias, epsilon }
}

#[test]
fn rows_without_deviation_give_the_bias() {
    let (ones, beta) = ([1 << 30; 4], [3 << 20, -(1 << 30), 12345, 0]);
    let mut want = [0; 4];
    let want_e = requantize(&beta.map(i64::from), BIAS.into(), &mut want);
    for epsilon in [Real::ZERO, Real::ratio(1, 100_000)] {
        for (row, kinds) in [([7 << 40; 4], &[NormKind::Layer][..]), ([0; 4], &[NormKind::Layer, NormKind::Rms])] {
            for &kind in kinds {
                let norm = plain(kind, &ones, Some(&beta), epsilon);
                let mut y = [1; 4];
                assert_eq!(norm.forward(&mut row.clone(), Exp::ZERO.get(), &mut y), Ok(want_e));
                assert_eq!(y, want);
                let norm = Norm { bias: None, ..norm };
                assert_eq!(norm.forward(&mut row.clone(), 3, &mut y), Ok(Exp::ZERO));
                assert_eq!(y, [0; 4]);
            }
        }
    }
}

/// Without deviation and with ε, r is 1/√ε and the gradient is g less its mean; with ε = 0 it is nothing.
#[test]
fn rows_without_deviation_pass_a_gradient() {
    let ones = [1 << 30; 2];
    let dy = Block { mantissas: &[1 << 14, 0], exponent: Exp(-14) };
    let (mut dx, mut acc) = ([0; 2], [0; 2]);
    let quarter = Real::ratio(1, 4); // r = 2
    let e = plain(NormKind::Layer, &ones, None, quarter).backward(&mut [5, 5], -700, dy, &mut dx, &mut acc);
    assert_eq!((e, dx), (Ok(Exp(-14)), [1 << 14, -1 << 14]));
    let e = plain(NormKind::Rms, &ones, None, quarter).backward(&mut [0, 0], Exp::ZERO.get(), dy, &mut dx, &mut acc);
    assert_eq!((e, dx), (Ok(Exp(-13)), [1 << 14, 0]));
    let e = plain(NormKind::Layer, &ones, None, Real::ZERO).backward(&mut [5, 5], 0, dy, &mut dx, &mut acc);
    assert_eq!((e, dx), (Ok(Exp::ZERO), [0, 0]));
}

/// One channel ten thousand times the rest, in an i32 stream; its γ is small, as in models that have such channels.
#[test]
fn an_outlier_leaves_the_rest_accurate() {
    let width = 512;
    let rest = |i: usize| (i as f64 * 0.7).sin() + 0.3;
    let row: Vec<i64> = (0..width)
        .map(|i| if i == 100 { 10_000.0 } else { rest(i) })
        .map(|v| (v * two(17)).round() as i64) // 10^4 · 2^17 needs 31 bits.
        .collect();
    let weight: Vec<i32> = (0..width).map(|i| if i == 100 { 1 << 14 } else { 1 << 30 }).collect();
    for kind in [NormKind::Layer, NormKind::Rms] {
        let norm = plain(kind, &weight, None, Real::ratio(1, 100_000));
        let mut y = vec![0; width];
        let e = norm.forward(&mut row.clone(), -17, &mut y).unwrap();
        let (x, _) = standard(kind, &row, -17, 1e-5);
        for (i, (&y, (x, &w))) in y.iter().zip(x.iter().zip(&weight)).enumerate() {
            let error = (f64::from(y) - x * f64::from(w) * two(-30 - e.get())).abs();
            // Half an LSB, and of the outlier's 2^31 units one half for D and 1 for x̂, at most an eighth of an LSB each.
            assert!(error <= 0.75, "{kind:?} {i}: {error} LSB");
        }
    }
}

/// The bounds at their limits: 2^17 values of 62 bits, all of one sign but one, under γ and β at their limits.
#[test]
fn the_widest_rows_do_not_overflow() {
    let width = 1 << 17;
    for sign in [1, -1] {
        let mut row = vec![sign * ((1 << 62) - 1); width];
        row[17] = -row[17];
        let (weight, bias) = (vec![i32::MIN; width], vec![i32::MIN; width]);
        for kind in [NormKind::Layer, NormKind::Rms] {
            let norm = Norm {
                kind,
                weight: Vector { mantissas: &weight, exponent: -31 },
                bias: Some(Vector { mantissas: &bias, exponent: -24 }),
                epsilon: Real::ratio(1, 100_000),
            };
            let (mut y, mut acc) = (vec![0; width], vec![0; width]);
            let e = norm.forward(&mut row.clone(), 0, &mut y).unwrap();
            let (x, r) = standard(kind, &row, 0, 1e-5);
            let want: Vec<f64> = x.iter().map(|x| -x - 128.0).collect();
            near(&y, e, &want, |_| two(-20)).unwrap();

            let dy = Block { mantissas: &vec![32639; width], exponent: DY };
            let mut dx = vec![0; width];
            let e = norm.backward(&mut row.clone(), 0, dy, &mut dx, &mut acc).unwrap();
            let g = vec![-32639.0 * two(DY.get()); width];
            let want = gradient(kind, &x, r, &g);
            let slack = gradient_errors(&x, r, &g, &want);
            near(&dx, e, &want, |i| slack[i]).unwrap();
        }
    }
}

/// dx against the slope of f64's own forward, so that a wrong formula cannot agree with itself.
#[test]
fn gradient_is_the_slope_of_forward() {
    let row: Vec<i64> = [3, -5, 8, 1, 0, -2, 7, 4].map(|v| v << 20).to_vec();
    let weight: Vec<i32> = [5, -3, 2, 7, 1, 4, -6, 2].map(|v| v << 26).to_vec();
    let dy: Vec<i16> = [4, 7, -2, 5, -9, 3, 1, 8].map(|v| v << 10).to_vec();
    for kind in [NormKind::Layer, NormKind::Rms] {
        for epsilon in [Real::ratio(1, 2), Real::ratio(1, 100_000)] {
            let loss = |row: &[i64]| -> f64 {
                let (x, _) = standard(kind, row, -20, value(epsilon));
                x.iter()
                    .zip(&weight)
                    .zip(&dy)
                    .map(|((x, &w), &d)| x * f64::from(w) * two(-29) * f64::from(d) * two(-21))
                    .sum()
            };
            let case = Case {
                kind,
                row: row.clone(),
                exponent: -20,
                weight: weight.clone(),
                bias: None,
                epsilon,
                dy: dy.clone(),
            };
            let (mut dx, mut acc) = (vec![0; 8], vec![0; 8]);
            let dy = Block { mantissas: &case.dy, exponent: DY };
            let e = case.norm().backward(&mut row.clone(), -20, dy, &mut dx, &mut acc).unwrap();
            for i in 0..8 {
                let step = 1 << 8;
                let (mut above, mut below) = (row.clone(), row.clone());
                above[i] += step;
                below[i] -= step;
                let slope = (loss(&above) - loss(&below)) / (2.0 * step as f64 * two(-20));
                let got = f64::from(dx[i]) * two(e.get());
                assert!((got - slope).abs() <= 0.6 * two(e.get()), "{kind:?} {i}: {got} {slope}");
            }
        }
    }
}

#[test]
fn other_widths_are_refused() {
    let ones = [1 << 30; 3];
    let norm = plain(NormKind::Rms, &ones, None, Real::ZERO);
    let mut row = [1, 2];
    assert!(norm.forward(&mut row, 0, &mut [0; 2]).is_err());
    assert!(plain(NormKind::Rms, &ones, Some(&[0; 2]), Real::ZERO).forward(&mut [1; 3], 0, &mut [0; 3]).is_err());
    assert!(norm.forward(&mut [1; 3], 0, &mut [0; 2]).is_err());
    assert_eq!(row, [1, 2]);
}
