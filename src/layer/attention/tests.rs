use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const WIDTH: usize = 6;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// Keys and values of both heads, `(kv heads, keys, width)`, each row under its own exponent.
#[derive(Clone, Debug)]
struct Store {
    keys: Vec<i16>,
    values: Vec<i16>,
    key_exponents: Vec<Exp>,
    value_exponents: Vec<Exp>,
    count: usize,
}

impl Store {
    fn head(&self, h: usize) -> KeyValue<'_> {
        let (rows, row) = (h * self.count * WIDTH..(h + 1) * self.count * WIDTH, h * self.count..(h + 1) * self.count);
        KeyValue {
            keys: Rows::I16(&self.keys[rows.clone()]),
            key_exponents: &self.key_exponents[row.clone()],
            values: Rows::I16(&self.values[rows]),
            value_exponents: &self.value_exponents[row],
        }
    }
}

prop_compose! {
    fn store(most: usize)(count in 1..=most)(
        keys in prop::collection::vec(-32639_i16..=32639, KV_HEADS * count * WIDTH),
        values in prop::collection::vec(-32639_i16..=32639, KV_HEADS * count * WIDTH),
        key_exponents in prop::collection::vec(-17_i16..-13, KV_HEADS * count),
        value_exponents in prop::collection::vec(-24_i16..-8, KV_HEADS * count),
        count in Just(count),
    ) -> Store {
        let exponents = |e: Vec<i16>| e.into_iter().map(Exp).collect();
        Store { keys, values, key_exponents: exponents(key_exponents), value_exponents: exponents(value_exponents), count }
    }
}

prop_compose! {
    fn query()(m in prop::collection::vec(-32639_i16..=32639, HEADS * WIDTH), e in prop::collection::vec(-16_i16..-12, HEADS)) -> (Vec<i16>, Vec<Exp>) {
        (m, e.into_iter().map(Exp).collect())
    }
}

fn attention(relative: Option<Relative<'_>>) -> Attention<'_> {
    Attention { heads: HEADS, kv_heads: KV_HEADS, head_dim: WIDTH, score: Real::ratio(2, 5), relative }
}

fn run(
    this: &Attention<'_>,
    q: &(Vec<i16>, Vec<Exp>),
    at: usize,
    store: &Store,
    visible: Visible<'_>,
) -> (Vec<i16>, Exp) {
    let n = visible.keys;
    let mut out = vec![0; HEADS * WIDTH];
    let (mut scores, mut weights) = (vec![0; n], vec![0; n]);
    let (mut acc, mut exponents) = (vec![0; HEADS * WIDTH], vec![0; HEADS]);
    let mut scratch = Scratch { scores: &mut scores, weights: &mut weights, acc: &mut acc, exponents: &mut exponents };
    let q = Tile { mantissas: &q.0, exponents: &q.1 };
    let e = this.forward(q, at, |h| store.head(h), visible, &mut out, &mut scratch).unwrap();
    (out, e)
}

fn value(m: i16, e: Exp) -> f64 {
    f64::from(m) * f64::from(e.get()).exp2()
}

/// The definition, in f64.
fn slow(
    q: &(Vec<i16>, Vec<Exp>),
    store: &Store,
    visible: Visible<'_>,
    relative: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = vec![];
    for h in 0..HEADS {
        let g = h * KV_HEADS / HEADS;
        let row = |m: &[i16], e: &[Exp], j: usize| -> Vec<f64> {
            let at = (g * store.count + j) * WIDTH;
            m[at..at + WIDTH].iter().map(|&m| value(m, e[g * store.count + j])).collect()
        };
        let seen: Vec<usize> = (0..visible.keys).filter(|&j| visible.sees(j)).collect();
        let t: Vec<f64> = seen
            .iter()
            .map(|&j| {
                let k = row(&store.keys, &store.key_exponents, j);
                let dot: f64 = k.iter().zip(&q.0[h * WIDTH..]).map(|(k, &q)| k * value(q, Exp(0))).sum();
                dot * f64::from(q.1[h].get()).exp2() * 0.4 + relative(h, j)
            })
            .collect();
        let max = t.iter().fold(f64::MIN, |a, &b| a.max(b));
        let p: Vec<f64> = t.iter().map(|t| (t - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        let mut o = vec![0.0; WIDTH];
        for (p, &j) in p.iter().zip(&seen) {
            for (o, v) in o.iter_mut().zip(row(&store.values, &store.value_exponents, j)) {
                *o += p / sum * v;
            }
        }
        out.extend(o);
    }
    out
}

/// The largest error of an output, over the largest value that any head could give.
fn worst(got: &(Vec<i16>, Exp), want: &[f64], store: &Store) -> f64 {
    let peak = store
        .values
        .iter()
        .enumerate()
        .fold(0.0_f64, |p, (i, &v)| p.max(value(v, store.value_exponents[i / WIDTH]).abs()));
    got.0.iter().zip(want).map(|(&m, w)| (value(m, got.1) - w).abs() / peak).fold(0.0, f64::max)
}

proptest! {
    #[test]
    fn is_its_definition(q in query(), s in store(40)) {
        let seen = Visible { keys: s.count, valid: None };
        let got = run(&attention(None), &q, 0, &s, seen);
        // A weight's half LSB, 2^-16, a key; a score of up to 10 octaves · 2^-17 · ln 2; the output's half LSB.
        let bound = 40.0 * f64::from(-16).exp2() + f64::from(-14).exp2();
        let error = worst(&got, &slow(&q, &s, seen, |_, _| 0.0), &s);
        prop_assert!(error <= bound, "{error} {bound}");
    }

    /// What a masked key holds changes no bit; nor does what stands behind the last visible one.
    #[test]
    fn hidden_keys_have_no_influence(q in query(), s in store(20), mask in prop::collection::vec(0_u8..2, 20), noise in store(20), cut in 1_usize..20) {
        let keys = cut.min(s.count);
        let seen = Visible { keys, valid: Some(&mask) };
        let mut other = s.clone();
        for g in 0..KV_HEADS {
            for j in (0..s.count).filter(|&j| j >= keys || mask[j] == 0) {
                let at = g * s.count + j;
                let from = (j % noise.count) * WIDTH;
                other.keys[at * WIDTH..(at + 1) * WIDTH].copy_from_slice(&noise.keys[from..from + WIDTH]);
                other.values[at * WIDTH..(at + 1) * WIDTH].copy_from_slice(&noise.values[from..from + WIDTH]);
                other.key_exponents[at] = Exp(40);
                other.value_exponents[at] = Exp(300);
            }
        }
        let this = attention(None);
        prop_assert_eq!(run(&this, &q, 0, &s, seen), run(&this, &q, 0, &other, seen));
        if mask[..keys].iter().all(|&m| m == 0) {
            prop_assert_eq!(run(&this, &q, 0, &s, seen), (vec![0; HEADS * WIDTH], Exp::ZERO));
        }
    }

    /// A softmax is the same for scores that are all moved alike, and its weights sum to one: equal values come back.
    #[test]
    fn weights_sum_to_one(q in query(), s in store(30), v in -32639_i16..=32639, e in -20_i16..0) {
        let mut s = s;
        s.values.fill(v);
        s.value_exponents.fill(Exp(e));
        let got = run(&attention(None), &q, 0, &s, Visible { keys: s.count, valid: None });
        for &m in &got.0 {
            let bound = f64::from(v).abs() * 30.0 * f64::from(-16).exp2() + 1.0;
            prop_assert!((value(m, got.1) - value(v, Exp(e))).abs() <= bound * f64::from(e).exp2());
        }
    }

    #[test]
    fn relative_positions_are_added(q in query(), s in store(12), bias in prop::collection::vec(-200_000_i32..200_000, HEADS * 3), at in 0_usize..12) {
        // Distance 0, 1, and more; behind the query everything is bucket 2.
        let relative = Relative { bias: &bias, count: 3, buckets: &[0, 1, 2, 2, 2, 2], distances: 3 };
        let seen = Visible { keys: s.count, valid: None };
        let of = |h: usize, j: usize| {
            let bucket = if j > at { 2 } else { (at - j).min(2) };
            f64::from(bias[h * 3 + bucket]) / 65536.0 * core::f64::consts::LN_2
        };
        let got = run(&attention(Some(relative)), &q, at, &s, seen);
        let error = worst(&got, &slow(&q, &s, seen, of), &s);
        prop_assert!(error <= 12.0 * f64::from(-16).exp2() + f64::from(-14).exp2(), "{error}");
    }
}

#[test]
fn one_key_gives_its_value() {
    let s = Store {
        keys: vec![1; 12],
        values: vec![16384; 12],
        key_exponents: vec![Exp(0); 2],
        value_exponents: vec![Exp(-14); 2],
        count: 1,
    };
    let q = (vec![32639; HEADS * WIDTH], vec![Exp(100); HEADS]);
    // Scores far beyond 2^15 octaves saturate; there is one, so its weight is 1 all the same.
    let (m, e) = run(&attention(None), &q, 0, &s, Visible { keys: 1, valid: None });
    assert_eq!((m, e), (vec![16384; HEADS * WIDTH], Exp(-14)));
}

#[test]
fn wrong_sizes_are_refused() {
    let s = Store {
        keys: vec![1; 12],
        values: vec![1; 12],
        key_exponents: vec![Exp(0); 2],
        value_exponents: vec![Exp(0); 2],
        count: 1,
    };
    let (mut scores, mut weights, mut acc, mut exponents) = ([0; 2], [0; 2], [0; HEADS * WIDTH], [0; HEADS]);
    let mut scratch = Scratch { scores: &mut scores, weights: &mut weights, acc: &mut acc, exponents: &mut exponents };
    let q = Tile { mantissas: &[1; HEADS * WIDTH], exponents: &[Exp(0); HEADS] };
    let mut out = [0; HEADS * WIDTH];
    let e = attention(None).forward(q, 0, |h| s.head(h), Visible { keys: 2, valid: None }, &mut out, &mut scratch);
    assert_eq!(e.unwrap_err().operand, "keys");
}
