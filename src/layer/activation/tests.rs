use super::*;
use crate::fixed::block::MANTISSA_MAX;
use crate::fixed::stride;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const ALL: [Activation; 6] =
    [Activation::None, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh];

/// The smallest peak of a canonical block.
const PEAK_MIN: i16 = 16320;

/// φ by its definition.
fn density_f64(x: f64) -> f64 {
    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Φ by `½ + φ(x) (x + x³/3 + x⁵/15 + x⁷/105 + …)`, whose terms have one sign, so that nothing cancels: 1e-15.
fn phi_f64(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return f64::from(u8::from(x > 0.0));
    }
    let (mut term, mut sum, mut odd) = (x, 0.0, 1.0);
    while term.abs() > 1e-17 * f64::abs(sum) {
        sum += term;
        odd += 2.0;
        term *= x * x / odd;
    }
    0.5 + sum * density_f64(x)
}

fn two(e: i32) -> f64 {
    f64::from(e).exp2()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The argument of the logistic function in GELU's tanh form, and its slope.
fn inside(x: f64) -> (f64, f64) {
    let k = 2.0 * std::f64::consts::FRAC_2_PI.sqrt();
    (k * (x + 0.044_715 * x * x * x), k * (1.0 + 3.0 * 0.044_715 * x * x))
}

/// act(x), by the definition.
fn value(act: Activation, x: f64) -> f64 {
    match act {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * phi_f64(x),
        Activation::GeluTanh => x * sigmoid(inside(x).0),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// act'(x), by the definition.
fn derivative(act: Activation, x: f64) -> f64 {
    match act {
        Activation::None => 1.0,
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Gelu => phi_f64(x) + if x.abs() < 40.0 { x * density_f64(x) } else { 0.0 },
        Activation::GeluTanh => {
            let (u, slope) = inside(x.clamp(-40.0, 40.0));
            sigmoid(u) + x.clamp(-40.0, 40.0) * sigmoid(u) * sigmoid(-u) * slope
        }
        Activation::Silu => sigmoid(x) + if x.abs() < 700.0 { x * sigmoid(x) * sigmoid(-x) } else { 0.0 },
        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
    }
}

/// Worst errors of f and of the derivative, in 2^-31, where x is exact in Q26.
fn worst(act: Activation) -> (f64, f64) {
    match act {
        Activation::None | Activation::Relu => (0.0, 0.0),
        Activation::Gelu => (1.8, 5.2),
        Activation::GeluTanh => (6.0, 32.0),
        Activation::Silu => (1.3, 16.0),
        Activation::Tanh => (2.6, 6.0),
    }
}

/// What x's rounding to Q26, half a unit, adds: in 2^-31, times the largest slope of f (½, in GELU's tanh form: 0.4) and
/// of the derivative (4/√(2π) · ½ = 0.8 of GELU; tanh 0.77).
const ROUNDED_X: (f64, f64) = (16.0 * 0.4, 16.0 * 0.8);

/// Errors of f and of the derivative of an element of a block with exponent `e`.
fn bounds(act: Activation, e: i32) -> (f64, f64) {
    let (f, d) = worst(act);
    let exact = e >= -26 || matches!(act, Activation::None | Activation::Relu);
    let (more_f, more_d) = if exact { (0.0, 0.0) } else { ROUNDED_X };
    ((f + more_f) * two(-31), (d + more_d) * two(-31))
}

fn is_canonical(m: &[i16], e: Exp) -> bool {
    let peak = m.iter().map(|m| m.unsigned_abs()).max().unwrap_or(0);
    if peak == 0 { e == Exp::ZERO } else { (PEAK_MIN as u16..=MANTISSA_MAX as u16).contains(&peak) }
}

/// Every element within half an LSB and `error(i)`.
fn near(got: &[i16], e: Exp, want: &[f64], error: impl Fn(usize) -> f64) -> Result<(), TestCaseError> {
    prop_assert!(is_canonical(got, e), "{:?} {:?}", got, e);
    for (i, (&m, &want)) in got.iter().zip(want).enumerate() {
        let value = f64::from(m) * two(e.get());
        let bound = 0.5 * two(e.get()) + error(i) + want.abs() * 1e-13;
        prop_assert!((value - want).abs() <= bound, "element {i}: {value} for {want}, bound {bound}");
    }
    Ok(())
}

/// A canonical block with its values spread over many octaves.
fn block() -> impl Strategy<Value = Vec<i16>> {
    let element = (-MANTISSA_MAX..=MANTISSA_MAX, 0_u32..16).prop_map(|(m, down)| m / (1 << down));
    (prop::collection::vec(element, 9), PEAK_MIN..=MANTISSA_MAX, any::<bool>(), 0_usize..9).prop_map(
        |(mut m, peak, negative, at)| {
            m[at] = if negative { -peak } else { peak };
            m
        },
    )
}

/// From 2^-80 to 2^60 and everything that bends in between.
fn exponent() -> impl Strategy<Value = i32> {
    prop_oneof![-95_i32..45, -24_i32..-8]
}

fn reals(m: &[i16], e: i32) -> Vec<f64> {
    m.iter().map(|&m| f64::from(m) * two(e)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn forward_is_near_its_definition(m in block(), e in exponent(), act in prop::sample::select(&ALL[..])) {
        let x = reals(&m, e);
        let want: Vec<f64> = x.iter().map(|&x| value(act, x)).collect();
        let mut y = vec![0; 9];
        let f = act.forward(Block { mantissas: &m, exponent: Exp(e as i16) }, &mut y, &mut [0; 9]).unwrap();
        let (factor, _) = bounds(act, e);
        // Above 2^-8 tanh is computed itself, not as a factor.
        let scale = |i: usize| if act == Activation::Tanh && e > TANH_NEAR_ZERO { 1.0 } else { x[i].abs() };
        near(&y, f, &want, |i| factor * scale(i))?;
        if act == Activation::None {
            prop_assert_eq!((y, f), (m, Exp(e as i16)), "a canonical block passes unchanged");
        }
    }

    #[test]
    fn backward_is_near_its_definition(
        m in block(), e in exponent(), dm in block(), de in -60_i32..60, act in prop::sample::select(&ALL[..]),
    ) {
        let dy = reals(&dm, de);
        let want: Vec<f64> = reals(&m, e).iter().zip(&dy).map(|(&x, d)| derivative(act, x) * d).collect();
        let mut dx = vec![0; 9];
        let x = Block { mantissas: &m, exponent: Exp(e as i16) };
        let f = act.backward_from(x, Block { mantissas: &dm, exponent: Exp(de as i16) }, &mut dx, &mut [0; 9]).unwrap();
        let (_, slope) = bounds(act, e);
        near(&dx, f, &want, |i| slope * dy[i].abs())?;
    }

    #[test]
    fn gate_and_its_backward_are_near_their_definitions(
        m in block(), e in exponent(), um in block(), ue in -60_i32..60, dm in block(), de in -60_i32..60,
        act in prop::sample::select(&ALL[..]),
    ) {
        let (x, u, dy) = (reals(&m, e), reals(&um, ue), reals(&dm, de));
        let block = |mantissas, exponent: i32| Block { mantissas, exponent: Exp(exponent as i16) };
        let (gate, up, d) = (block(&m, e), block(&um, ue), block(&dm, de));
        let (mut out, mut d_gate, mut d_up) = (vec![0; 9], vec![0; 9], vec![0; 9]);
        let f = act.gate(gate, up, &mut out, &mut [0; 9]).unwrap();
        let (fg, fu) = act.gate_backward(gate, up, d, &mut d_gate, &mut d_up, &mut [0; 9]).unwrap();

        let a: Vec<f64> = x.iter().map(|&x| value(act, x)).collect();
        let peak = a.iter().fold(0.0, |p: f64, a| p.max(a.abs()));
        let (factor, slope) = bounds(act, e);
        let tanh = act == Activation::Tanh && e > TANH_NEAR_ZERO;
        // f's error, and act(gate) in 31 bits: half a unit of 2^-30 of its peak, one where the peak is held below 2^31.
        let error = |i: usize| factor * if tanh { 1.0 } else { x[i].abs() } + (peak + factor * x[i].abs()) * two(-30);
        let by = |other: &[f64]| a.iter().zip(other).map(|(a, o)| a * o).collect::<Vec<f64>>();
        near(&out, f, &by(&u), |i| error(i) * u[i].abs())?;
        near(&d_up, fu, &by(&dy), |i| error(i) * dy[i].abs())?;
        let want: Vec<f64> = (0..9).map(|i| derivative(act, x[i]) * u[i] * dy[i]).collect();
        near(&d_gate, fg, &want, |i| slope * (u[i] * dy[i]).abs())?;
    }
}

/// The head of the file's table: f and the derivative over all arguments that Q26 holds, by a mantissa of 16 bits.
#[test]
fn factors_and_derivatives_keep_their_errors() {
    for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh] {
        let (mut f, mut d) = (0.0_f64, 0.0_f64);
        for e in [-26, -24, -22, -20, -18, -16, -14, -13, -12, -11, -10] {
            for m in (-32639..=32639_i16).step_by(stride(3)) {
                let x = f64::from(m) * two(e);
                if m != 0 && (act != Activation::Tanh || e <= TANH_NEAR_ZERO) {
                    f = f.max((act.factor_q31(m, e) as f64 - value(act, x) / x * two(31)).abs());
                }
                d = d.max((act.derivative_q31(m, e) as f64 - derivative(act, x) * two(31)).abs());
            }
        }
        let (worst_f, worst_d) = worst(act);
        assert!(f <= worst_f && d <= worst_d, "{act:?}: {f} {d}");
        assert!(d > 0.75 * worst_d, "{act:?}: the claim of {worst_d} is loose: {d}");
    }
}

/// Steps of x as fine as Q26 knows, between the 16-bit mantissas.
#[test]
fn the_argument_of_the_tanh_form_is_near() {
    let (mut worst, mut worst_slope) = (0.0_f64, 0.0_f64);
    for x in (-8 << 26..=8 << 26).step_by(stride(997)) {
        let (u, slope) = inside(f64::from(x) * two(-26));
        let got = TanhForm::new(x);
        // Where σ' is not far below an LSB.
        if u.abs() < 20.0 {
            let weight = sigmoid(u) * sigmoid(-u);
            worst = worst.max((f64::from(got.argument) * two(-26) - u).abs() * weight * two(31));
            worst_slope = worst_slope.max((f64::from(got.slope) * two(-28) - slope).abs() * two(28));
        }
    }
    assert!(worst < 4.6, "{worst} LSB of f"); // 4 of them are the rounding to Q26 at x = 0.
    assert!(worst_slope < 4.0, "{worst_slope} units of Q28");
    assert_eq!([i32::MAX, i32::MIN].map(|x| TanhForm::new(x).argument), [i32::MAX, -i32::MAX]);
}

#[test]
fn relu_keeps_what_is_too_small_for_q26() {
    let x = Block { mantissas: &[7, -1 << 14, 1 << 14], exponent: Exp(-60) };
    let mut y = [0; 3];
    let e = Activation::Relu.forward(x, &mut y, &mut [0; 3]).unwrap();
    assert_eq!((y, e), ([7, 0, 1 << 14], Exp(-60)));
}

#[test]
fn codes_are_the_variants() {
    for act in ALL {
        assert_eq!(Activation::from_code(act as u8), Some(act));
    }
    assert!((6..=u8::MAX).all(|code| Activation::from_code(code).is_none()));
}

#[test]
fn zeros_stay_zeros() {
    let zero = Block { mantissas: &[0; 3], exponent: Exp::ZERO };
    let one = Block { mantissas: &[1 << 14; 3], exponent: Exp(-14) };
    for act in ALL {
        let (mut a, mut b) = ([7; 3], [7; 3]);
        assert_eq!((act.forward(zero, &mut a, &mut [0; 3]).unwrap(), a), (Exp::ZERO, [0; 3]));
        assert_eq!((act.gate(zero, one, &mut a, &mut [0; 3]).unwrap(), a), (Exp::ZERO, [0; 3]));
        assert_eq!((act.gate(one, zero, &mut a, &mut [0; 3]).unwrap(), a), (Exp::ZERO, [0; 3]));
        assert_eq!((act.backward_from(one, zero, &mut a, &mut [0; 3]).unwrap(), a), (Exp::ZERO, [0; 3]));
        let both = act.gate_backward(one, one, zero, &mut a, &mut b, &mut [0; 3]).unwrap();
        assert_eq!((both, a, b), ((Exp::ZERO, Exp::ZERO), [0; 3], [0; 3]));
    }
}

#[test]
fn the_largest_operands_do_not_overflow() {
    // GELU' is largest near √2.
    let x = Block { mantissas: &[23170; 2], exponent: Exp(-14) };
    let large = Block { mantissas: &[MANTISSA_MAX, -MANTISSA_MAX], exponent: Exp(i16::MAX) };
    let (mut a, mut b) = ([0; 2], [0; 2]);
    for act in ALL {
        act.gate_backward(x, large, large, &mut a, &mut b, &mut [0; 2]).unwrap();
        assert!(a[0] > 0, "{act:?}");
        assert_eq!(a[0], a[1], "{act:?}: the sign of a product of equal signs");
        act.forward(large, &mut a, &mut [0; 2]).unwrap();
        assert!(a[0] > 0 && a[1] <= 0, "{act:?}");
    }
}

#[test]
fn other_widths_are_refused() {
    let x = Block { mantissas: &[1 << 14; 3], exponent: Exp(0) };
    let short = Block { mantissas: &[1 << 14; 2], exponent: Exp(0) };
    let act = Activation::Silu;
    let mut three = [7; 3];
    let mut other = [7; 3];
    assert!(act.forward(x, &mut [0; 2], &mut [0; 3]).is_err());
    assert!(act.forward(x, &mut three, &mut [0; 2]).is_err());
    assert!(act.backward_from(x, short, &mut three, &mut [0; 3]).is_err());
    assert!(act.backward_from(x, x, &mut [0; 4], &mut [0; 3]).is_err());
    assert!(act.gate(x, short, &mut three, &mut [0; 3]).is_err());
    assert!(act.gate(x, x, &mut three, &mut [0; 2]).is_err());
    assert!(act.gate_backward(x, short, x, &mut three, &mut other, &mut [0; 3]).is_err());
    assert!(act.gate_backward(x, x, short, &mut three, &mut other, &mut [0; 3]).is_err());
    assert!(act.gate_backward(x, x, x, &mut [0; 2], &mut other, &mut [0; 3]).is_err());
    assert!(act.gate_backward(x, x, x, &mut three, &mut [0; 2], &mut [0; 3]).is_err());
    assert_eq!((three, other), ([7; 3], [7; 3]), "nothing is written");
}
