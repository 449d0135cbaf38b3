//! Against the definition, in f64.

use super::super::{Relative, Rows};
use super::*;
use crate::layer::gradient::GradScale;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const WIDTH: usize = 6;

/// Rows under an exponent each.
#[derive(Clone, Debug)]
struct Vectors {
    m: Vec<i16>,
    e: Vec<Exp>,
}

impl Vectors {
    fn zeros(count: usize) -> Vectors {
        Vectors { m: vec![0; count * WIDTH], e: vec![Exp::ZERO; count] }
    }

    fn tile(&self, from: usize, count: usize) -> Tile<'_> {
        Tile { mantissas: &self.m[from * WIDTH..(from + count) * WIDTH], exponents: &self.e[from..from + count] }
    }

    fn floats(&self) -> Vec<Vec<f64>> {
        let value = |m: i16, e: Exp| if e == Exp::ZERO { 0.0 } else { f64::from(m) * f64::from(e.get()).exp2() };
        self.m.chunks(WIDTH).zip(&self.e).map(|(m, &e)| m.iter().map(|&m| value(m, e)).collect()).collect()
    }
}

fn vectors(count: usize, exponents: core::ops::Range<i16>) -> impl Strategy<Value = Vectors> {
    let row = (prop::collection::vec(-32639_i16..=32639, WIDTH), exponents, prop::bool::weighted(0.1));
    prop::collection::vec(row, count).prop_map(|rows| {
        let m = rows.iter().flat_map(|(m, _, zero)| m.iter().map(move |&m| if *zero { 0 } else { m })).collect();
        Vectors { m, e: rows.iter().map(|&(_, e, zero)| if zero { Exp::ZERO } else { Exp(e) }).collect() }
    })
}

/// Queries, gradients, keys, values of one head.
type Case = (Vectors, Vectors, Vectors, Vectors, Vec<u8>);

fn case() -> impl Strategy<Value = Case> {
    (1_usize..14).prop_flat_map(|n| {
        let valid = prop::collection::vec(prop::bool::weighted(0.8).prop_map(u8::from), n);
        (vectors(n, -17..-13), vectors(n, -30..-20), vectors(n, -17..-13), vectors(n, -22..-14), valid)
    })
}

struct Gradients {
    dq: Vec<Vec<f64>>,
    dk: Vec<Vec<f64>>,
    dv: Vec<Vec<f64>>,
}

/// Tile by tile of `tile` tokens.
fn run(this: &Attention<'_>, (q, d, k, v, valid): &Case, causal: bool, tile: usize) -> Gradients {
    let n = q.e.len();
    let kv = KeyValue { keys: Rows::I16(&k.m), key_exponents: &k.e, values: Rows::I16(&v.m), value_exponents: &v.e };
    let mut dq = Vectors::zeros(n);
    let (mut dk, mut dv) = (vec![0; n * WIDTH], vec![0; n * WIDTH]);
    let (mut k_scale, mut v_scale) = (GradScale::EMPTY, GradScale::EMPTY);
    for first in (0..n).step_by(tile) {
        let count = tile.min(n - first);
        let keys = if causal { first + count } else { n };
        let (mut rows, mut products) = (vec![7; tile * n], vec![7; n]);
        let (mut weights, mut acc) = (vec![7; tile * n], vec![7; WIDTH]);
        let mut scratch =
            BackwardScratch { rows: &mut rows, products: &mut products, weights: &mut weights, acc: &mut acc };
        let mut gradient = KeyValueGradient {
            keys: Gradient { values: &mut dk, scale: &mut k_scale },
            values: Gradient { values: &mut dv, scale: &mut v_scale },
        };
        let out = TileMut {
            mantissas: &mut dq.m[first * WIDTH..(first + count) * WIDTH],
            exponents: &mut dq.e[first..first + count],
        };
        let seen = Seen { position: first, causal, visible: Visible { keys, valid: Some(valid) } };
        let (q, d) = (q.tile(first, count), d.tile(first, count));
        this.backward(1, seen, q, d, &kv, out, &mut gradient, &mut scratch).unwrap();
    }
    let floats = |values: &[i32], s: GradScale| -> Vec<Vec<f64>> {
        let unit = f64::from(s.exponent()).exp2();
        values.chunks(WIDTH).map(|r| r.iter().map(|&v| f64::from(v) * unit).collect()).collect()
    };
    Gradients { dq: dq.floats(), dk: floats(&dk, k_scale), dv: floats(&dv, v_scale) }
}

fn slow(this: &Attention<'_>, (q, d, k, v, valid): &Case, causal: bool) -> Gradients {
    let (q, d, k, v) = (q.floats(), d.floats(), k.floats(), v.floats());
    let (n, score) = (q.len(), 0.4);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let zeros = || vec![vec![0.0; WIDTH]; n];
    let mut g = Gradients { dq: zeros(), dk: zeros(), dv: zeros() };
    for i in 0..n {
        let seen: Vec<usize> = (0..if causal { i + 1 } else { n }).filter(|&j| valid[j] != 0).collect();
        let octave = 65536.0 * core::f64::consts::LOG2_E;
        let relative = |j| this.relative.map_or(0.0, |r| f64::from(r.of(1, i, j)) / octave);
        let t: Vec<f64> = seen.iter().map(|&j| score * dot(&q[i], &k[j]) + relative(j)).collect();
        let max = t.iter().copied().fold(f64::MIN, f64::max);
        let p: Vec<f64> = t.iter().map(|t| (t - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        let mean: f64 = p.iter().zip(&seen).map(|(p, &j)| p / sum * dot(&d[i], &v[j])).sum();
        for (p, &j) in p.iter().zip(&seen) {
            let s = p / sum * (dot(&d[i], &v[j]) - mean) * score;
            for c in 0..WIDTH {
                g.dq[i][c] += s * k[j][c];
                g.dk[j][c] += s * q[i][c];
                g.dv[j][c] += p / sum * d[i][c];
            }
        }
    }
    g
}

/// The largest difference, over the largest value that stands in `scale`.
fn worst(got: &[Vec<f64>], want: &[Vec<f64>], scale: f64) -> f64 {
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    pairs.map(|(g, w)| (g - w).abs()).fold(0.0, f64::max) / scale.max(f64::MIN_POSITIVE)
}

fn peak(rows: &[Vec<f64>]) -> f64 {
    rows.iter().flatten().fold(0.0, |p, v| v.abs().max(p))
}

fn attention(relative: Option<Relative<'_>>) -> Attention<'_> {
    Attention { heads: 2, kv_heads: 1, head_dim: WIDTH, score: Real::ratio(2, 5), relative }
}

proptest! {
    #[test]
    fn is_its_definition(case in case(), causal in any::<bool>(), tile in 1_usize..=TILE) {
        let bias = [0, 0, 0, 40_000, -90_000, 130_000];
        let relative = Relative { bias: &bias, count: 3, buckets: &[0, 1, 2, 2, 0, 2, 1, 1], distances: 4 };
        for this in [attention(None), attention(Some(relative))] {
            let (got, want) = (run(&this, &case, causal, tile), slow(&this, &case, causal));
            // A slope is a difference of products of do and v: what cancels in it leaves their rounding.
            let (q, d, k, v) = (case.0.floats(), case.1.floats(), case.2.floats(), case.3.floats());
            let slope = 0.4 * peak(&d) * peak(&v) * WIDTH as f64;
            prop_assert!(worst(&got.dv, &want.dv, peak(&d)) < 1e-3, "dv {}", worst(&got.dv, &want.dv, peak(&d)));
            prop_assert!(worst(&got.dk, &want.dk, slope * peak(&q)) < 1e-3, "dk");
            prop_assert!(worst(&got.dq, &want.dq, slope * peak(&k)) < 1e-3, "dq");
        }
    }

    /// What stands in keys and values that nobody sees changes no bit.
    #[test]
    fn nobody_sees_a_masked_key(case in case(), other in case(), causal in any::<bool>()) {
        let this = attention(None);
        let mut changed = case.clone();
        for j in (0..case.4.len()).filter(|&j| case.4[j] == 0) {
            let from = j % other.2.e.len();
            for (to, from_rows) in [(&mut changed.2, &other.2), (&mut changed.3, &other.3)] {
                to.e[j] = from_rows.e[from];
                to.m[j * WIDTH..(j + 1) * WIDTH].copy_from_slice(&from_rows.m[from * WIDTH..(from + 1) * WIDTH]);
            }
        }
        let (a, b) = (run(&this, &case, causal, 4), run(&this, &changed, causal, 4));
        prop_assert_eq!(&a.dq, &b.dq);
        prop_assert_eq!(&a.dk, &b.dk);
        prop_assert_eq!(&a.dv, &b.dv);
        for j in (0..case.4.len()).filter(|&j| case.4[j] == 0) {
            prop_assert!(peak(&a.dk[j..=j]) == 0.0 && peak(&a.dv[j..=j]) == 0.0);
        }
    }
}

/// Of a single key, P is 1 whatever the score: no slope, and all of do goes to the value.
#[test]
fn one_key_takes_everything() {
    let row = |e| Vectors { m: vec![20_000, -5, 77, 31_000, -32_639, 1], e: vec![Exp(e)] };
    let case = (row(-14), row(-25), row(-15), row(-16), vec![1]);
    let g = run(&attention(None), &case, true, 1);
    assert_eq!(peak(&g.dq), 0.0);
    assert_eq!(peak(&g.dk), 0.0);
    assert!(worst(&g.dv, &case.1.floats(), peak(&case.1.floats())) < 1e-4);
}

/// Beyond the largest score two keys look alike, though one is twice the other. A float's softmax would hold 1 and 0 there, which have
/// no slope: with one here, queries and keys that are already too large would only grow.
#[test]
fn scores_beyond_all_numbers_have_no_slope() {
    let row =
        |scale: i16, e| [20_000, -5, 77, 16_000, -16_000, 1].map(|v: i16| v / scale).map(|m| (m, Exp(e))).to_vec();
    let rows = |scales: [i16; 2], e| {
        let all: Vec<(i16, Exp)> = scales.iter().flat_map(|&s| row(s, e)).collect();
        Vectors { m: all.iter().map(|r| r.0).collect(), e: vec![Exp(e); 2] }
    };
    let case = |exponent| (rows([1, 1], exponent), rows([1, 2], -25), rows([1, 2], -9), rows([1, -1], -16), vec![1, 1]);
    let g = run(&attention(None), &case(-2), false, 2);
    assert_eq!((peak(&g.dq), peak(&g.dk)), (0.0, 0.0));
    assert!(peak(&g.dv) > 0.0);
    // Where the scores are within their range, there is one.
    let g = run(&attention(None), &case(-22), false, 2);
    assert!(peak(&g.dq) > 0.0 && peak(&g.dk) > 0.0);
}

#[test]
fn operands_of_another_size_are_refused() {
    let kv = KeyValue {
        keys: Rows::I16(&[0; 6]),
        key_exponents: &[Exp(0)],
        values: Rows::I16(&[0; 6]),
        value_exponents: &[Exp(0)],
    };
    let (mut dq, mut e) = ([9; WIDTH], [Exp(9)]);
    let mut scales = [GradScale::EMPTY; 2];
    let [k, v] = &mut scales;
    let mut gradient = KeyValueGradient {
        keys: Gradient { values: &mut [0; 5], scale: k },
        values: Gradient { values: &mut [0; 6], scale: v },
    };
    let mut scratch =
        BackwardScratch { rows: &mut [0; 1], products: &mut [0; 1], weights: &mut [0; 1], acc: &mut [0; 6] };
    let tile = Tile { mantissas: &[1; WIDTH], exponents: &[Exp(0)] };
    let seen = Seen { position: 0, causal: true, visible: Visible { keys: 1, valid: None } };
    let out = TileMut { mantissas: &mut dq, exponents: &mut e };
    let found = attention(None).backward(0, seen, tile, tile, &kv, out, &mut gradient, &mut scratch);
    assert_eq!(found, Err(ShapeError { operand: "dk", needed: 6, found: 5 }));
    assert_eq!((dq, e), ([9; WIDTH], [Exp(9)]));
}
