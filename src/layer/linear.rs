//! `y = act(W x + b + Σ s · B (A x))`: a frozen linear layer with any number of low-rank adapters on it.
//!
//! Forward, per token: the exact integers `W x`, the bias and every `B (A x)` meet at a common exponent
//! ([`RowSum`]) and are rounded to 16 bits together, once. Backward, per token, with `t = s Bᵀ dy` and `u = A x`:
//!
//! ```text
//! dx = Wᵀ dy + Aᵀ t        dA = t ⊗ x        dB = s · dy ⊗ u
//! ```
//!
//! `Wᵀ dy` walks W row by row: no transpose is stored. The rank vectors `u` and `t` are recomputed, not kept: they
//! cost `r · (in + out)` multiplications against `in · out`. (Hu et al., "LoRA", arXiv:2106.09685; PEFT's orientation:
//! A is (r, in), B is (out, r).)

pub use super::activation::Activation;
use super::dropout::Dropout;
use super::gradient::{Gradient, TILE, fold};
use super::{ShapeError, Vector, exactly, first};
use crate::fixed::block::{Block, requantize};
use crate::fixed::rounding::{bit_length, ceil_log2, shift_half_even_saturating_i32, shift_right_half_even};
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Exp, Real, Tile, TileMut};
use crate::image::MAX_RANK;
use crate::kernel::{Weights, active};
use core::ops::Range;

/// Rows (columns in backward) whose adapter part is computed at a time, on the stack.
const CHUNK: usize = 32;

/// A frozen linear layer: `w[o, k] = q[o, k] · scales[o] · 2^exponent`.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// `(outputs, inputs)`.
    pub weights: Weights<'a>,
    /// Width of x, 1 to 2^17.
    pub inputs: usize,
    /// Width of y, 1 to 2^18.
    pub outputs: usize,
    /// Row scales: `(outputs)`.
    pub scales: &'a [u16],
    /// Of all weights.
    pub exponent: i16,
    /// `(outputs)`, if any.
    pub bias: Option<Vector<'a>>,
    /// What follows the sum.
    pub activation: Activation,
}

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

/// The buffers that a layer computes in. Contents mean nothing between calls.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// [`Linear::acc_len`] exact accumulators, or as many as it has for fewer tokens.
    pub acc: &'a mut [i64],
    /// [`Linear::vector_len`]: backward only; the gradient with the row scales folded in.
    pub vector: &'a mut [i16],
    /// [`Linear::rank_len`]: backward only; the rank vectors of a tile.
    pub rank: &'a mut [i16],
    /// `inputs` a token of the tile: with dropout only; the masked input.
    pub masked: &'a mut [i16],
}

/// The gradients of one adapter on one layer.
#[derive(Debug)]
pub struct LoraGradient<'a> {
    /// dA, `(rank, inputs)`, unless A stays.
    pub a: Option<Gradient<'a>>,
    /// dB, `(outputs, rank)`, unless B stays.
    pub b: Option<Gradient<'a>>,
}

impl<'a> Linear<'a> {
    /// Accumulators with which forward takes `tokens` tokens at once, and backward any number. Forward does with fewer, down to
    /// those for one token, and takes fewer tokens at once then, which costs time and changes no bit.
    #[must_use]
    pub const fn acc_len(inputs: usize, outputs: usize, tokens: usize) -> usize {
        let forward = outputs * tokens;
        let backward = if inputs > outputs { inputs } else { outputs };
        if forward > backward { forward } else { backward }
    }

    /// 16-bit values of [`Scratch::vector`].
    #[must_use]
    pub const fn vector_len(outputs: usize) -> usize {
        outputs
    }

    /// 16-bit values of [`Scratch::rank`].
    #[must_use]
    pub const fn rank_len(rank: usize, tokens: usize) -> usize {
        2 * rank * if tokens < TILE { tokens } else { TILE }
    }

    /// Whether the parts have the sizes that `inputs` and `outputs` say.
    ///
    /// # Errors
    /// The first part that has not.
    pub fn check(&self) -> Result<(), ShapeError> {
        exactly("weights", self.inputs * self.outputs, self.weights.len(self.inputs))?;
        exactly("scales", self.outputs, self.scales.len())?;
        self.bias.map_or(Ok(()), |b| exactly("bias", self.outputs, b.mantissas.len()))
    }

    fn check_lora(&self, lora: &Lora<'_>) -> Result<(), ShapeError> {
        if !(1..=MAX_RANK).contains(&lora.rank) {
            return Err(ShapeError { operand: "rank", needed: MAX_RANK, found: lora.rank });
        }
        exactly("A", lora.rank * self.inputs, lora.a.len())?;
        exactly("B", lora.rank * self.outputs, lora.b.len())?;
        lora.extras.gain.map_or(Ok(()), |(g, _)| exactly("gain", self.outputs, g.len()))?;
        lora.extras.bias.map_or(Ok(()), |(b, _)| exactly("adapter's bias", self.outputs, b.len()))
    }

    /// The layer that has only some of the outputs.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Linear<'a> {
        Linear {
            weights: self.weights.rows(self.inputs, rows.clone()),
            outputs: rows.len(),
            scales: self.scales.get(rows.clone()).unwrap_or(&[]),
            bias: self.bias.map(|b| Vector { mantissas: b.mantissas.get(rows).unwrap_or(&[]), ..b }),
            ..*self
        }
    }

    /// `y = act(W x + b + Σ s · B (A x))`.
    ///
    /// `x`: `(tokens, inputs)`; `y`: `(tokens, outputs)`, canonical, half to even. A token's bits do not depend on its
    /// neighbours in the tile.
    ///
    /// # Errors
    /// An operand of another size than the layer needs; nothing is written then.
    pub fn forward<'l>(
        &self,
        x: Tile<'_>,
        loras: impl Iterator<Item = Lora<'l>> + Clone,
        y: TileMut<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), ShapeError> {
        let tokens = x.tokens();
        exactly("y", tokens * self.outputs, y.mantissas.len())?;
        exactly("y's exponents", tokens, y.exponents.len())?;
        let mut y = y;
        let mut ys = y.blocks_mut();
        self.forward_rows(x, loras, scratch, &mut |_, row| {
            if let Some((y, exponent)) = ys.next() {
                *exponent = self.round(row, y);
            }
        })
    }

    /// As [`forward`](Linear::forward), for whoever keeps more than 16 bits of the sums: `each` is given every token's row of
    /// them, `(outputs)`, before the activation, in order.
    ///
    /// # Errors
    /// An operand of another size than the layer needs; nothing is computed then.
    pub fn forward_rows<'l>(
        &self,
        x: Tile<'_>,
        loras: impl Iterator<Item = Lora<'l>> + Clone,
        scratch: &mut Scratch<'_>,
        each: &mut dyn FnMut(usize, RowSum<'_>),
    ) -> Result<(), ShapeError> {
        let tokens = x.tokens();
        self.check()?;
        exactly("x", tokens * self.inputs, x.mantissas.len())?;
        for lora in loras.clone() {
            self.check_lora(&lora)?;
            if lora.dropout.is_some() {
                first("scratch.masked", scratch.masked, self.inputs)?;
            }
        }
        first("scratch.acc", scratch.acc, self.outputs)?;

        // As many tokens share their reading of the weights as there are accumulators for.
        let at_once = (scratch.acc.len() / self.outputs.max(1)).max(1);
        if tokens <= at_once {
            return self.pass(0, x, loras, scratch, each);
        }
        for (n, x) in x.mantissas.chunks(at_once * self.inputs).zip(x.exponents.chunks(at_once)).enumerate() {
            let x = Tile { mantissas: x.0, exponents: x.1 };
            self.pass(n * at_once, x, loras.clone(), scratch, each)?;
        }
        Ok(())
    }

    /// Tokens `token ..` that go through the layer together.
    fn pass<'l>(
        &self,
        token: usize,
        x: Tile<'_>,
        loras: impl Iterator<Item = Lora<'l>> + Clone,
        scratch: &mut Scratch<'_>,
        each: &mut dyn FnMut(usize, RowSum<'_>),
    ) -> Result<(), ShapeError> {
        let acc = first("scratch.acc", scratch.acc, x.tokens() * self.outputs)?;
        self.weights.product(self.inputs, x.mantissas, acc);
        for (token, (x, acc)) in (token..).zip(x.blocks().zip(acc.chunks_exact_mut(self.outputs))) {
            self.scale(acc);
            let bits = self.weights.bits() + 15 + ceil_log2(self.inputs) + 16;
            let (exponent, bits) = gained(loras.clone(), acc, i32::from(self.exponent) + x.exponent.get(), bits);
            let mut row = RowSum::new(acc, exponent, bits);
            if let Some(bias) = self.bias {
                bias.add_to(&mut row);
            }
            for lora in loras.clone() {
                let x = lora.masked(token * self.inputs, x, scratch.masked);
                lora.add_forward(self.inputs, x, &mut row);
                lora.add_bias(&mut row);
            }
            each(token, row);
        }
        Ok(())
    }

    /// Multiplies a row of exact sums by the row scales.
    fn scale(&self, acc: &mut [i64]) {
        for (a, &s) in acc.iter_mut().zip(self.scales) {
            *a = a.wrapping_mul(i64::from(s)); // < 2^(7 or 15 + 15 + 17 + 16) ≤ 2^63
        }
    }

    /// What follows the sum, and its rounding.
    fn round(&self, row: RowSum<'_>, y: &mut [i16]) -> Exp {
        let (values, exponent) = row.finish();
        if self.activation == Activation::Relu {
            values.iter_mut().for_each(|v| *v = (*v).max(0));
        }
        requantize(values, exponent, y)
    }

    /// From `dy`, the gradient before the activation: dA and dB into `gradient`, dx into `dx`; either may be left out.
    ///
    /// `x`: `(tokens, inputs)`, as forward had it; `dy`: `(tokens, outputs)`; `dx`: `(tokens, inputs)`, canonical.
    /// `loras`: as forward had them, DoRA's gains excepted, through which no gradient goes; `gradient` is that of the first.
    ///
    /// Tokens may be split over calls, here and in [`forward`](Linear::forward), without changing a bit: at multiples of
    /// [`TILE`], because the tiles in which gradients are rounded count from a call's first token; and with
    /// [`Dropout::starting_at`] for the masks of the later calls.
    ///
    /// # Errors
    /// An operand of another size than the layer needs; nothing is written then.
    pub fn backward<'l>(
        &self,
        x: Tile<'_>,
        dy: Tile<'_>,
        loras: impl Iterator<Item = Lora<'l>> + Clone,
        gradient: Option<LoraGradient<'_>>,
        dx: Option<TileMut<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), ShapeError> {
        let tokens = x.tokens();
        self.check()?;
        exactly("x", tokens * self.inputs, x.mantissas.len())?;
        exactly("dy", tokens * self.outputs, dy.mantissas.len())?;
        exactly("dy's exponents", tokens, dy.exponents.len())?;
        first("scratch.acc", scratch.acc, Self::acc_len(self.inputs, self.outputs, 0))?;
        first("scratch.vector", scratch.vector, Self::vector_len(self.outputs))?;
        for lora in loras.clone() {
            self.check_lora(&lora)?;
        }
        let learns = loras.clone().next().zip(gradient);
        if let Some((lora, g)) = &learns {
            first("scratch.rank", scratch.rank, Self::rank_len(lora.rank, tokens))?;
            if lora.dropout.is_some() {
                first("scratch.masked", scratch.masked, tokens.min(TILE) * self.inputs)?;
            }
            g.a.as_ref().map_or(Ok(()), |a| exactly("dA", lora.a.len(), a.values.len()))?;
            g.b.as_ref().map_or(Ok(()), |b| exactly("dB", lora.b.len(), b.values.len()))?;
        }
        let mut dx = dx;
        if let Some(dx) = &mut dx {
            exactly("dx", tokens * self.inputs, dx.mantissas.len())?;
            exactly("dx's exponents", tokens, dx.exponents.len())?;
        }

        if let Some((lora, mut g)) = learns {
            let xs = x.mantissas.chunks(TILE * self.inputs).zip(x.exponents.chunks(TILE));
            let dys = dy.mantissas.chunks(TILE * self.outputs).zip(dy.exponents.chunks(TILE));
            for (n, ((xm, xe), (dm, de))) in xs.zip(dys).enumerate() {
                let x = Tile { mantissas: xm, exponents: xe };
                let dy = Tile { mantissas: dm, exponents: de };
                lora.add_gradient(self, n * TILE, x, dy, &mut g, scratch);
            }
        }
        if let Some(dx) = &mut dx {
            for (token, (dy, (dx, e))) in dy.blocks().zip(dx.blocks_mut()).enumerate() {
                *e = self.backward_input(token, dy, loras.clone(), dx, scratch);
            }
        }
        Ok(())
    }

    /// `dx = Wᵀ dy + Aᵀ t` of one token.
    fn backward_input<'l>(
        &self,
        token: usize,
        dy: Block<'_>,
        loras: impl Iterator<Item = Lora<'l>>,
        dx: &mut [i16],
        scratch: &mut Scratch<'_>,
    ) -> Exp {
        let mut row = self.transposed(dy, scratch);
        for lora in loras {
            lora.add_backward(self, token * self.inputs, dy, &mut row);
        }
        let (values, exponent) = row.finish();
        requantize(values, exponent, dx)
    }

    /// `Wᵀ dy` of one token.
    fn transposed<'s>(&self, dy: Block<'_>, scratch: &'s mut Scratch<'_>) -> RowSum<'s> {
        // The row scales are folded into the gradient, rounded once to 16 bits.
        let scaled = scratch.acc.iter_mut().zip(dy.mantissas).zip(self.scales);
        for ((a, &d), &s) in scaled {
            *a = i64::from(d) * i64::from(s);
        }
        let acc = scratch.acc.get(..self.outputs).unwrap_or(&[]);
        let g = scratch.vector.get_mut(..self.outputs).unwrap_or(&mut []);
        let g_exponent = requantize(acc, dy.exponent.get(), g);

        let acc = scratch.acc.get_mut(..self.inputs).unwrap_or(&mut []);
        self.weights.transposed(self.inputs, 0, g, acc);
        let bits = self.weights.bits() + 15 + ceil_log2(self.outputs);
        RowSum::new(acc, i32::from(self.exponent) + g_exponent.get(), bits)
    }
}

/// Fraction bits of a gain, 1 + Σ (g − 1): ±128 in all.
const GAIN_FRACTION: i32 = 24;

/// Multiplies a row by the gains of all adapters that have one; returns its exponent and bits.
///
/// The row keeps 31 bits, rounded half to even, so that it takes the 31 bits of a gain.
fn gained<'l>(loras: impl Iterator<Item = Lora<'l>> + Clone, row: &mut [i64], exponent: i32, bits: u32) -> (i32, u32) {
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
    fn add_bias(&self, row: &mut RowSum<'_>) {
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
    fn masked<'x>(&self, first: usize, x: Block<'x>, buffer: &'x mut [i16]) -> Block<'x> {
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
    fn add_forward(&self, inputs: usize, x: Block<'_>, row: &mut RowSum<'_>) {
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
    fn add_backward(&self, layer: &Linear<'_>, first: usize, dy: Block<'_>, row: &mut RowSum<'_>) {
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
    fn add_gradient(
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
