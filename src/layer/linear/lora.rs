//! The pair (A, B) on a layer: what it adds forward, and its way back, side by side. Hu et al., arXiv:2106.09685.

use super::{Linear, Scratch};
use crate::fixed::block::{Block, requantize};
use crate::fixed::rounding::{bit_length, ceil_log2, shift_half_even_saturating_i32, shift_right_half_even};
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Exp, Real, Tile};
use crate::image::MAX_RANK;
use crate::kernel::active;
use crate::layer::dropout::Dropout;
use crate::layer::gradient::{Gradient, TILE, fold};
use core::ops::Range;

/// One adapter on a layer, ready to be used: high planes, and the scaling of this call.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a> {
    /// 1 to [`MAX_RANK`].
    pub rank: usize,
    /// A, `(rank, inputs)`.
    pub a: &'a [i16],
    /// Of A's high plane; [`Exp::ZERO`] where A is all zero.
    pub a_exponent: Exp,
    /// B, `(outputs, rank)`.
    pub b: &'a [i16],
    /// Of B's high plane; [`Exp::ZERO`] where B is all zero.
    pub b_exponent: Exp,
    /// alpha / rank (or alpha / √rank), times whatever the caller scales it by.
    pub scaling: Real,
    /// While training only.
    pub dropout: Option<Dropout>,
    /// What it adds beside `s · B (A x)`, if anything.
    pub extras: Extras<'a>,
}

/// Parts that some adapters have and most do not.
#[derive(Clone, Copy, Debug)]
pub struct Extras<'a> {
    /// DoRA (arXiv:2402.09353): `g − 1` of every output, so that `(g − 1) ⊙ W x` is added; B holds `g ⊙ B` then.
    /// `(outputs)`.
    pub gain: Option<(&'a [i16], Exp)>,
    /// What is added to the bias, `(outputs)`.
    pub bias: Option<(&'a [i16], Exp)>,
    /// What the caller scales both by; A and B have it in their scaling.
    pub factor: Real,
}

impl Extras<'_> {
    /// None.
    pub const NONE: Extras<'static> = Extras { gain: None, bias: None, factor: Real::ONE };
}

/// The gradients of one adapter on one layer.
#[derive(Debug)]
pub struct LoraGradient<'a> {
    /// dA, `(rank, inputs)`, unless A stays.
    pub a: Option<Gradient<'a>>,
    /// dB, `(outputs, rank)`, unless B stays.
    pub b: Option<Gradient<'a>>,
}

/// Rows (columns in backward) whose adapter part is computed at a time, on the stack.
const CHUNK: usize = 32;

/// Fraction bits of a gain, 1 + Σ (g − 1): ±128 in all.
const GAIN_FRACTION: i32 = 24;

/// Multiplies a row by the gains of all adapters that have one; returns its exponent and bits.
///
/// The row keeps 31 bits, rounded half to even, so that it takes the 31 bits of a gain.
pub(super) fn gained<'l>(
    loras: impl Iterator<Item = Lora<'l>> + Clone,
    row: &mut [i64],
    exponent: i32,
    bits: u32,
) -> (i32, u32) {
    if loras.clone().all(|l| l.extras.gain.is_none()) {
        return (exponent, bits);
    }
    let of_output = |o: usize| {
        let of = |l: Lora<'l>| {
            let (gain, e) = l.extras.gain?;
            let (factor, f) = l.extras.factor.to_parts_16();
            let product = i64::from(*gain.get(o)?) * i64::from(factor);
            Some(shift_half_even_saturating_i32(product, -(e.get() + f + GAIN_FRACTION)))
        };
        loras.clone().filter_map(of).fold(1 << GAIN_FRACTION, i32::saturating_add)
    };
    (exponent + multiply(row, &of_output) - GAIN_FRACTION, 62)
}

/// Multiplies a row, cut to 31 bits, by factors of 31 bits; returns by how much the exponent rises.
fn multiply(row: &mut [i64], factor: &dyn Fn(usize) -> i32) -> i32 {
    let excess = bit_length(row.iter().fold(0, |u, v| u | v.unsigned_abs())).saturating_sub(31);
    for (o, v) in row.iter_mut().enumerate() {
        *v = shift_right_half_even(*v, excess) * i64::from(factor(o));
    }
    excess as i32
}

impl<'a> Lora<'a> {
    /// The adapter of the layer that has only some of the outputs.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Lora<'a> {
        let part = |vector: Option<(&'a [i16], Exp)>| vector.map(|(v, e)| (v.get(rows.clone()).unwrap_or(&[]), e));
        let b = self.b.get(rows.start * self.rank..rows.end * self.rank).unwrap_or(&[]);
        let extras = Extras { gain: part(self.extras.gain), bias: part(self.extras.bias), ..self.extras };
        Lora { b, extras, ..*self }
    }
}

impl Lora<'_> {
    /// Adds what it adds to the bias.
    pub(super) fn add_bias(&self, row: &mut RowSum<'_>) {
        let Some((bias, e)) = self.extras.bias else { return };
        let (factor, f) = self.extras.factor.to_parts_16();
        if e == Exp::ZERO || factor == 0 {
            return;
        }
        let joined = row.join(e.get() + f, 15 + 17);
        for (v, &b) in row.values_mut().iter_mut().zip(bias) {
            *v += joined.align(i64::from(b) * i64::from(factor));
        }
    }

    /// `x` with the dropped elements zeroed, in `buffer`; `x` itself without dropout.
    pub(super) fn masked<'x>(&self, first: usize, x: Block<'x>, buffer: &'x mut [i16]) -> Block<'x> {
        match (self.dropout, buffer.get_mut(..x.mantissas.len())) {
            (Some(dropout), Some(buffer)) => {
                dropout.mask(first, x.mantissas, buffer);
                Block { mantissas: buffer, exponent: x.exponent }
            }
            _ => x,
        }
    }

    /// 1/(1−p), or 1.
    fn keep_scale(&self) -> Real {
        self.dropout.map_or(Real::ONE, |d| d.keep_scale)
    }

    /// `u = A x / (1−p)`, rounded to a block of `rank` values.
    fn down(&self, inputs: usize, x: Block<'_>, u: &mut [i16]) -> Exp {
        if self.a_exponent == Exp::ZERO || x.is_zero() {
            u.fill(0);
            return Exp::ZERO;
        }
        let mut acc = [0; MAX_RANK];
        let acc = acc.get_mut(..self.rank).unwrap_or(&mut []);
        active::product_i16(self.a, inputs, x.mantissas, acc);
        let (keep, keep_exponent) = self.keep_scale().to_parts_16();
        acc.iter_mut().for_each(|a| *a = a.wrapping_mul(i64::from(keep))); // < 2^(15 + 14 + 17 + 16)
        requantize(acc, self.a_exponent.get() + x.exponent.get() + keep_exponent, u)
    }

    /// `t = s Bᵀ dy / (1−p)`, rounded to a block of `rank` values.
    fn up(&self, dy: Block<'_>, t: &mut [i16]) -> Exp {
        if self.b_exponent == Exp::ZERO || dy.is_zero() {
            t.fill(0);
            return Exp::ZERO;
        }
        let mut acc = [0; MAX_RANK];
        let acc = acc.get_mut(..self.rank).unwrap_or(&mut []);
        active::transposed_i16(self.b, self.rank, 0, dy.mantissas, acc);
        let (s, s_exponent) = self.scaling.mul(self.keep_scale()).to_parts_16();
        acc.iter_mut().for_each(|a| *a = a.wrapping_mul(i64::from(s))); // < 2^(14 + 15 + 18 + 16)
        requantize(acc, self.b_exponent.get() + dy.exponent.get() + s_exponent, t)
    }

    /// Adds `s · B u` to the row. `x` is masked already.
    pub(super) fn add_forward(&self, inputs: usize, x: Block<'_>, row: &mut RowSum<'_>) {
        let mut u = [0; MAX_RANK];
        let u = u.get_mut(..self.rank).unwrap_or(&mut []);
        let u_exponent = self.down(inputs, x, u);
        let (s, s_exponent) = self.scaling.to_parts_16();
        if u_exponent == Exp::ZERO || self.b_exponent == Exp::ZERO || s == 0 {
            return;
        }
        let exponent = self.b_exponent.get() + u_exponent.get() + s_exponent;
        let joined = row.join(exponent, 15 + 15 + ceil_log2(self.rank) + 17);
        let rows = self.b.chunks(CHUNK * self.rank).zip(row.values_mut().chunks_mut(CHUNK));
        for (b, values) in rows {
            let mut acc = [0; CHUNK];
            let acc = acc.get_mut(..values.len()).unwrap_or(&mut []);
            active::product_i16(b, self.rank, u, acc);
            for (v, &a) in values.iter_mut().zip(acc.iter()) {
                *v += joined.align(a * i64::from(s));
            }
        }
    }

    /// Adds `Aᵀ t` to the row of dx; dropped inputs get nothing.
    pub(super) fn add_backward(&self, layer: &Linear<'_>, first: usize, dy: Block<'_>, row: &mut RowSum<'_>) {
        let mut t = [0; MAX_RANK];
        let t = t.get_mut(..self.rank).unwrap_or(&mut []);
        let t_exponent = self.up(dy, t);
        if t_exponent == Exp::ZERO || self.a_exponent == Exp::ZERO {
            return;
        }
        let exponent = self.a_exponent.get() + t_exponent.get();
        let joined = row.join(exponent, 15 + 15 + ceil_log2(self.rank));
        for (n, values) in row.values_mut().chunks_mut(CHUNK).enumerate() {
            let mut acc = [0; CHUNK];
            let acc = acc.get_mut(..values.len()).unwrap_or(&mut []);
            active::transposed_i16(self.a, layer.inputs, n * CHUNK, t, acc);
            for (k, (v, &a)) in values.iter_mut().zip(acc.iter()).enumerate() {
                if self.dropout.is_none_or(|d| d.keeps(first + n * CHUNK + k)) {
                    *v += joined.align(a);
                }
            }
        }
    }

    /// Adds dA = t ⊗ x and dB = s · dy ⊗ u of one tile, whose first token is number `first`.
    pub(super) fn add_gradient(
        &self,
        layer: &Linear<'_>,
        first: usize,
        x: Tile<'_>,
        dy: Tile<'_>,
        g: &mut LoraGradient<'_>,
        scratch: &mut Scratch<'_>,
    ) {
        let (tokens, rank) = (x.tokens(), self.rank);
        let mut x = x;
        if let (Some(dropout), Some(masked)) = (self.dropout, scratch.masked.get_mut(..x.mantissas.len())) {
            dropout.mask(first * layer.inputs, x.mantissas, masked);
            x.mantissas = masked;
        }
        let (small, rest) = scratch.rank.split_at_mut_checked(tokens * rank).unwrap_or((&mut [], &mut []));
        let folded = rest.get_mut(..tokens * rank).unwrap_or(&mut []);
        let mut exponents = [Exp::ZERO; TILE];
        let exponents = exponents.get_mut(..tokens).unwrap_or(&mut []);

        if let Some(b) = &mut g.b {
            for ((x, u), e) in x.blocks().zip(small.chunks_exact_mut(rank)).zip(exponents.iter_mut()) {
                *e = self.down(layer.inputs, x, u);
            }
            let u = Tile { mantissas: small, exponents };
            if let Some(e) = fold(u, dy.exponents, self.scaling.to_parts_16(), folded) {
                b.add_tile(dy.mantissas, folded, tokens, e);
            }
        }
        if let Some(a) = &mut g.a {
            for ((dy, t), e) in dy.blocks().zip(small.chunks_exact_mut(rank)).zip(exponents.iter_mut()) {
                *e = self.up(dy, t);
            }
            let t = Tile { mantissas: small, exponents };
            if let Some(e) = fold(t, x.exponents, Real::ONE.to_parts_16(), folded) {
                a.add_tile(folded, x.mantissas, tokens, e);
            }
        }
    }
}
