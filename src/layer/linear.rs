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
//! A is (r, in), B is (out, r).) The pair's part of each is in `lora`.

mod lora;

pub use lora::{Extras, Lora, LoraGradient};

pub use super::activation::Activation;
use super::gradient::TILE;
use super::{ShapeError, Vector, exactly, first};
use crate::fixed::block::{Block, requantize};
use crate::fixed::rounding::ceil_log2;
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Exp, Tile, TileMut};
use crate::image::MAX_RANK;
use crate::kernel::Weights;
use core::ops::Range;
use lora::gained;

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
    /// [`Dropout::starting_at`](super::Dropout::starting_at) for the masks of the later calls.
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
