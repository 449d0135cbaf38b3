//! The residual stream: one vector a token, in 16 bits, or in 32 where a few channels are far above the rest.
//!
//! In a 16-bit block a channel of 10^4 leaves the channels around 1 with two bits; in 32 bits they keep seventeen. What
//! is added to the stream is added exactly ([`RowSum`]), and rounded once.

use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, shift_half_even_saturating_i32};
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Block, Exp, Tile};

/// The vectors of a stream.
#[derive(Debug)]
pub enum Mantissas<'a> {
    /// Canonical blocks of 16 bits, `(tokens, dim)`.
    Narrow(&'a mut [i16]),
    /// The same in 31 bits and a sign: the largest is at least 2^30 - 1, unless all are 0. `(tokens, dim)`.
    Wide(&'a mut [i32]),
}

/// A residual stream.
#[derive(Debug)]
pub struct StreamMut<'a> {
    /// `(tokens, dim)`.
    pub mantissas: Mantissas<'a>,
    /// `(tokens)`.
    pub exponents: &'a mut [Exp],
    /// Width of a vector.
    pub dim: usize,
}

impl StreamMut<'_> {
    fn exponent(&self, token: usize) -> Exp {
        self.exponents.get(token).copied().unwrap_or(Exp::ZERO)
    }

    /// A token's vector as it lies, if the stream has 16 bits.
    #[must_use]
    pub fn narrow(&self, token: usize) -> Option<Block<'_>> {
        match &self.mantissas {
            Mantissas::Narrow(m) => Some(Block {
                mantissas: m.get(token * self.dim..(token + 1) * self.dim).unwrap_or(&[]),
                exponent: self.exponent(token),
            }),
            Mantissas::Wide(_) => None,
        }
    }

    /// Some tokens' vectors as they lie, if the stream has 16 bits.
    #[must_use]
    pub fn tile(&self, first: usize, count: usize) -> Option<Tile<'_>> {
        match &self.mantissas {
            Mantissas::Narrow(m) => Some(Tile {
                mantissas: m.get(first * self.dim..(first + count) * self.dim).unwrap_or(&[]),
                exponents: self.exponents.get(first..first + count).unwrap_or(&[]),
            }),
            Mantissas::Wide(_) => None,
        }
    }

    /// Adds a block to a token's vector: exactly, and rounded once. `acc`: `(dim)`.
    pub fn add(&mut self, token: usize, block: Block<'_>, acc: &mut [i64]) {
        let exponent = self.sum(token, block, acc);
        self.store(token, acc, exponent);
    }

    /// Adds a row of exact sums, `(dim)`, to a token's vector, and rounds once: what a layer adds is not rounded to 16 bits
    /// before, where it may hold an outlier itself.
    pub fn add_row(&mut self, token: usize, mut row: RowSum<'_>) {
        let exponent = self.exponent(token);
        if exponent != Exp::ZERO {
            let joined = row.join(exponent.get(), 31);
            let range = token * self.dim..(token + 1) * self.dim;
            let values = row.values_mut().iter_mut();
            match &self.mantissas {
                Mantissas::Narrow(m) => {
                    values.zip(m.get(range).unwrap_or(&[])).for_each(|(v, &m)| *v += joined.align(i64::from(m)))
                }
                Mantissas::Wide(m) => {
                    values.zip(m.get(range).unwrap_or(&[])).for_each(|(v, &m)| *v += joined.align(i64::from(m)))
                }
            }
        }
        let (values, exponent) = row.finish();
        self.store(token, values, exponent);
    }

    /// Replaces a token's vector by a block. `acc`: `(dim)`.
    pub fn put(&mut self, token: usize, block: Block<'_>, acc: &mut [i64]) {
        widen(block.mantissas, acc);
        self.store(token, acc, block.exponent.get());
    }

    /// Copies a token's vector into accumulators, `(dim)`, of at most 31 bits; returns their exponent.
    pub fn load(&self, token: usize, acc: &mut [i64]) -> i32 {
        let range = token * self.dim..(token + 1) * self.dim;
        match &self.mantissas {
            Mantissas::Narrow(m) => widen(m.get(range).unwrap_or(&[]), acc),
            Mantissas::Wide(m) => widen(m.get(range).unwrap_or(&[]), acc),
        }
        // An all-zero vector has an exponent like any other here, so that sums need not ask.
        self.exponent(token).get()
    }

    /// The exact sum of a token's vector and a block into accumulators, `(dim)`; returns its exponent.
    pub fn sum(&self, token: usize, block: Block<'_>, acc: &mut [i64]) -> i32 {
        let exponent = self.load(token, acc);
        if self.exponent(token) == Exp::ZERO {
            widen(block.mantissas, acc);
            return block.exponent.get();
        }
        if block.is_zero() {
            return exponent;
        }
        let mut row = RowSum::new(acc, exponent, 31);
        let joined = row.join(block.exponent.get(), 15);
        for (v, &m) in row.values_mut().iter_mut().zip(block.mantissas) {
            *v += joined.align(i64::from(m));
        }
        let (_, exponent) = row.finish();
        exponent
    }

    /// Rounds accumulators, `|v| ≤ 2^62`, half to even, to a token's vector.
    pub fn store(&mut self, token: usize, acc: &[i64], exponent: i32) {
        let range = token * self.dim..(token + 1) * self.dim;
        let stored = match &mut self.mantissas {
            Mantissas::Narrow(m) => requantize(acc, exponent, m.get_mut(range).unwrap_or_default()),
            Mantissas::Wide(m) => requantize_wide(acc, exponent, m.get_mut(range).unwrap_or_default()),
        };
        if let Some(e) = self.exponents.get_mut(token) {
            *e = stored;
        }
    }
}

/// The sum of blocks of one width: exact within 62 bits ([`RowSum`]), then rounded once. `row`, `out`: `(width)`.
pub fn sum<const N: usize>(blocks: [Option<Block<'_>>; N], row: &mut [i64], out: &mut [i16]) -> Exp {
    let mut live = blocks.into_iter().flatten().filter(|b| !b.is_zero());
    let Some(first) = live.next() else {
        out.fill(0);
        return Exp::ZERO;
    };
    widen(first.mantissas, row);
    let mut total = RowSum::new(row, first.exponent.get(), 15);
    for block in live {
        let joined = total.join(block.exponent.get(), 15);
        for (v, &m) in total.values_mut().iter_mut().zip(block.mantissas) {
            *v += joined.align(i64::from(m));
        }
    }
    let (row, exponent) = total.finish();
    requantize(row, exponent, out)
}

fn widen<T: Copy + Into<i64>>(from: &[T], to: &mut [i64]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from.into();
    }
}

/// To 31 bits and a sign, half to even; a peak that would be rounded up to 2^31 stays 1 below it, 2^-31 of itself.
fn requantize_wide(values: &[i64], exponent: i32, out: &mut [i32]) -> Exp {
    let union = values.iter().fold(0, |u, v| u | v.unsigned_abs());
    if union == 0 {
        out.fill(0);
        return Exp::ZERO;
    }
    let shift = bit_length(union) as i32 - 31;
    for (o, &v) in out.iter_mut().zip(values) {
        *o = shift_half_even_saturating_i32(v, shift);
    }
    Exp::saturating(exponent.saturating_add(shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn value(m: impl Into<f64>, e: Exp) -> f64 {
        m.into() * f64::from(e.get()).exp2()
    }

    proptest! {
        /// In either width: the sum, rounded once.
        #[test]
        fn adds_and_rounds_once(
            first in prop::collection::vec(-(1_i64 << 50)..(1 << 50), 5), add in prop::collection::vec(-32639_i16..=32639, 5),
            e in -40_i32..0, add_e in -20_i16..20, wide in any::<bool>(),
        ) {
            let (mut narrow, mut broad) = (vec![0; 10], vec![0; 10]);
            let mut exponents = [Exp::ZERO; 2];
            let mantissas = if wide { Mantissas::Wide(&mut broad) } else { Mantissas::Narrow(&mut narrow) };
            let mut stream = StreamMut { mantissas, exponents: &mut exponents, dim: 5 };
            stream.store(1, &first, e);
            let mut acc = [0; 5];
            let exponent = stream.load(1, &mut acc);
            let before: Vec<f64> = acc.iter().map(|&v| v as f64 * f64::from(exponent).exp2()).collect();
            let exponent = stream.sum(1, Block { mantissas: &add, exponent: Exp(add_e) }, &mut acc);
            stream.store(1, &acc, exponent);
            prop_assert_eq!(stream.load(0, &mut [0; 5]), Exp::ZERO.get(), "the other token is untouched");
            let exponent = Exp::saturating(stream.load(1, &mut acc));
            let bits = if wide { 30 } else { 14 };
            let peak = before.iter().zip(&add).map(|(b, &a)| (b + value(a, Exp(add_e))).abs()).fold(0.0, f64::max);
            for ((&got, b), &a) in acc.iter().zip(&before).zip(&add) {
                let want = b + value(a, Exp(add_e));
                let error = (value(got as i32, exponent) - want).abs();
                prop_assert!(error <= peak * f64::from(-bits).exp2(), "{} {} {}", value(got as i32, exponent), want, peak);
            }
        }
    }

    /// One channel 10^4 times the rest: in 16 bits the rest keeps two of them, in 32 bits seventeen.
    #[test]
    fn a_wide_stream_keeps_what_stands_beside_an_outlier() {
        let row: Vec<i64> = [10_000.0, 1.0, -0.7, 0.3].iter().map(|v| (v * f64::from(1 << 30)) as i64).collect();
        let worst = |mantissas: Mantissas<'_>| {
            let mut exponents = [Exp::ZERO];
            let mut stream = StreamMut { mantissas, exponents: &mut exponents, dim: 4 };
            stream.store(0, &row, -30);
            let mut acc = [0; 4];
            let e = stream.load(0, &mut acc);
            let relative = |(&v, &r): (&i64, &i64)| (v as f64 * f64::from(e + 30).exp2() / r as f64 - 1.0).abs();
            acc.iter().zip(&row).map(relative).fold(0.0, f64::max)
        };
        // Half an LSB of 2^-17 under 0.3.
        assert!(worst(Mantissas::Wide(&mut [0; 4])) < 1.3e-5);
        assert!(worst(Mantissas::Narrow(&mut [0; 4])) > 0.1);
    }
}
