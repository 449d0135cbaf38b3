//! The way back through attention, one head and a tile of tokens at a time.
//!
//! Scores and probabilities are computed again, as forward had them: nothing of the size tokens × keys is kept. Of query
//! i, with o = Σ P v, P = p / Σ p, and do the gradient of o:
//!
//! ```text
//! dP_ij = do_i · v_j
//! s_ij  = P_ij (dP_ij − Σ_j P_ij dP_ij)          the slope of the score
//! dq_i  = score · Σ_j s_ij k_j
//! dk_j += score · Σ_i s_ij q_i                   exact over a tile, rounded once
//! dv_j +=         Σ_i P_ij do_i                  likewise
//! ```
//!
//! A key that is not seen has p = 0, and neither gives nor gets a bit. The relative bias is frozen. A query whose largest score is beyond
//! ±2^15 octaves, where scores end, has no slope. (Attention without its
//! matrix: arXiv:2205.14135.)

use super::{Attention, KeyValue, Visible, probabilities};
use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, ceil_log2, shift_half_even, shift_right_half_even};
use crate::fixed::wide_sum::WideSum;
use crate::fixed::{Block, Exp, Real, Tile, TileMut};
use crate::layer::gradient::{Gradient, TILE};
use crate::layer::{ShapeError, exactly, first};

/// Where the gradients of one head of keys and values accumulate, over all heads of queries that look at it.
#[derive(Debug)]
pub struct KeyValueGradient<'a> {
    /// dk, `(keys, head_dim)`.
    pub keys: Gradient<'a>,
    /// dv, `(keys, head_dim)`.
    pub values: Gradient<'a>,
}

/// The tokens of a tile: where they stand, and what they see.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Of the first token, for relative positions and for causal attention.
    pub position: usize,
    /// Whether a token sees only itself and those before it; else all `visible.keys`.
    pub causal: bool,
    /// What the last token of the tile sees.
    pub visible: Visible<'a>,
}

impl<'a> Seen<'a> {
    /// What token `index` of a tile of `tokens` sees.
    fn by(&self, index: usize, tokens: usize) -> Visible<'a> {
        let hidden = if self.causal { tokens - 1 - index } else { 0 };
        Visible { keys: self.visible.keys.saturating_sub(hidden), ..self.visible }
    }
}

/// The buffers that the way back computes in. Contents mean nothing between calls.
#[derive(Debug)]
pub struct BackwardScratch<'a> {
    /// `(tokens, keys)`: probabilities, then slopes.
    pub rows: &'a mut [i32],
    /// `(keys)`: dP of one token.
    pub products: &'a mut [i32],
    /// `(tokens, keys)`: what keys, values and queries are weighted with.
    pub weights: &'a mut [i16],
    /// `(head_dim)`.
    pub acc: &'a mut [i64],
}

/// Keys whose products are computed at a time, on the stack.
const CHUNK: usize = 32;

/// Bits of a slope.
const SLOPE_BITS: i32 = 30;

/// What a token's row of probabilities or slopes is multiplied with, and the exponent of its unit.
#[derive(Clone, Copy)]
struct Scale {
    factor: Real,
    /// Beside the factor's own; `None` where the row is all zeros.
    exponent: Option<i32>,
}

impl Scale {
    const NONE: Scale = Scale { factor: Real::ZERO, exponent: None };
}

impl Attention<'_> {
    /// From `d_out`, the gradient of one head's output for a tile of at most [`TILE`] tokens, dq, and what the tile adds to
    /// dk and dv.
    ///
    /// `head`: of the queries. `q`, `d_out`, `dq`: `(tokens, head_dim)`, a row and an exponent a token; q as forward had it
    /// (rotated); dq canonical, half to even. `kv`: of the head of keys and values that `head` looks at. `gradient`: of that
    /// head, as long as the keys that anybody sees, or longer.
    ///
    /// Error: that of [`forward`](Attention::forward)'s probabilities; 2^-30 of the largest possible dP; 2^-15 of a tile's
    /// largest weight in each of dq, dk and dv, and their own rounding.
    ///
    /// # Errors
    /// An operand of another size than needed; nothing is written then.
    #[allow(clippy::too_many_arguments)] // The operands of one formula.
    pub fn backward(
        &self,
        head: usize,
        seen: Seen<'_>,
        q: Tile<'_>,
        d_out: Tile<'_>,
        kv: &KeyValue<'_>,
        dq: TileMut<'_>,
        gradient: &mut KeyValueGradient<'_>,
        scratch: &mut BackwardScratch<'_>,
    ) -> Result<(), ShapeError> {
        let (tokens, width, keys) = (q.tokens(), self.head_dim, seen.visible.keys);
        if tokens > TILE || keys < tokens && seen.causal {
            return Err(ShapeError { operand: "a tile's tokens", needed: TILE.min(keys), found: tokens });
        }
        for (operand, mantissas, exponents) in [
            ("q", q.mantissas.len(), q.tokens()),
            ("d_out", d_out.mantissas.len(), d_out.tokens()),
            ("dq", dq.mantissas.len(), dq.exponents.len()),
        ] {
            exactly(operand, tokens * width, mantissas)?;
            exactly(operand, tokens, exponents)?;
        }
        kv.check(keys, width)?;
        let dk = first("dk", gradient.keys.values, keys * width)?;
        let dv = first("dv", gradient.values.values, keys * width)?;
        let (mut dk, mut dv) = (
            Gradient { values: dk, scale: gradient.keys.scale },
            Gradient { values: dv, scale: gradient.values.scale },
        );
        let rows = first("scratch.rows", scratch.rows, tokens * keys)?;
        let products = first("scratch.products", scratch.products, keys)?;
        let weights = first("scratch.weights", scratch.weights, tokens * keys)?;
        let acc = first("scratch.acc", scratch.acc, width)?;
        if keys == 0 || width == 0 {
            return Ok(());
        }

        // P, and what it gives the values.
        let mut shares = [Scale::NONE; TILE];
        let mut stuck = [false; TILE];
        let given = q.blocks().zip(d_out.blocks());
        let kept = rows.chunks_exact_mut(keys).zip(shares.iter_mut().zip(&mut stuck));
        for (i, ((q, d), (row, (share, stuck)))) in given.zip(kept).enumerate() {
            let visible = seen.by(i, tokens);
            let (own, behind) = row.split_at_mut_checked(visible.keys).unwrap_or_default();
            behind.fill(0);
            self.scores(head, q.mantissas, q.exponent, seen.position + i, kv, visible, own);
            // At the end of the numbers scores that differ are one, and none of them moves: as where a float's softmax holds 1.
            *stuck = own.iter().copied().max().is_some_and(|score| score.unsigned_abs() == i32::MAX as u32);
            let sum = probabilities(own);
            if sum != 0 {
                let factor = Real::ONE.div(Real::new(sum as i64, 0));
                *share = Scale { factor, exponent: (!d.is_zero()).then_some(d.exponent.get()) };
            }
        }
        let unsigned = |row: &[i32], i: usize| row.get(i).map_or(0, |&p| i64::from(p as u32));
        if let Some(exponent) = weigh(rows, keys, &shares, unsigned, weights) {
            dv.add_tile(weights, d_out.mantissas, tokens, exponent);
        }

        // Slopes, and what they give query and keys.
        let mut slopes = [Scale::NONE; TILE];
        let d_outs = d_out.blocks().zip(rows.chunks_exact_mut(keys));
        for ((d, row), ((share, stuck), slope)) in d_outs.zip(shares.iter().zip(stuck).zip(&mut slopes)) {
            let moves = share.exponent.filter(|_| !stuck);
            let exponent = moves.and_then(|_| slopes_of(d, kv, share.factor, row, products));
            *slope = Scale { factor: share.factor.mul(self.score), exponent };
        }
        let mut dq = dq;
        for ((row, slope), (dq, e)) in rows.chunks_exact(keys).zip(&slopes).zip(dq.blocks_mut()) {
            *e = self.back_to_query(row, slope, kv, weights.get_mut(..keys).unwrap_or_default(), acc, dq);
        }
        for (slope, q) in slopes.iter_mut().zip(q.blocks()) {
            slope.exponent = if q.is_zero() { None } else { slope.exponent.map(|e| e + q.exponent.get()) };
        }
        let signed = |row: &[i32], i: usize| row.get(i).map_or(0, |&s| i64::from(s));
        if let Some(exponent) = weigh(rows, keys, &slopes, signed, weights) {
            dk.add_tile(weights, q.mantissas, tokens, exponent);
        }
        Ok(())
    }

    /// dq of one token, from its slopes.
    fn back_to_query(
        &self,
        row: &[i32],
        slope: &Scale,
        kv: &KeyValue<'_>,
        weights: &mut [i16],
        acc: &mut [i64],
        dq: &mut [i16],
    ) -> Exp {
        let terms = || row.iter().zip(kv.key_exponents).map(|(&s, &e)| (i64::from(s), e));
        let bits = |s: i64| bit_length(s.unsigned_abs()) as i32;
        let top = terms().filter(|&(s, e)| s != 0 && e != Exp::ZERO).map(|(s, e)| bits(s) + e.get()).max();
        let (Some(exponent), Some(top)) = (slope.exponent, top) else {
            dq.fill(0);
            return Exp::ZERO;
        };
        for (w, (s, e)) in weights.iter_mut().zip(terms()) {
            *w = if e == Exp::ZERO { 0 } else { to_weight(s, top - e.get() - 15) };
        }
        kv.keys.weighted(weights, acc);
        let excess = bit_length(acc.iter().fold(0, |u, v| u | v.unsigned_abs())).saturating_sub(31);
        for a in acc.iter_mut() {
            *a = shift_right_half_even(*a, excess) * i64::from(slope.factor.mantissa());
        }
        requantize(acc, top - 15 + excess as i32 + slope.factor.exponent() + exponent, dq)
    }
}

/// `p_j (dP_j − Σ P dP)` in place of the probabilities of one token, in [`SLOPE_BITS`]; returns their exponent, the factor
/// 1/Σp left out, or `None` where all are zero.
fn slopes_of(d: Block<'_>, kv: &KeyValue<'_>, inverse: Real, row: &mut [i32], products: &mut [i32]) -> Option<i32> {
    // |do · v| ≤ head_dim · 2^30: moved down to 2^30, and to the largest exponent of the values that are seen.
    let down = ceil_log2(d.mantissas.len());
    let live = row.iter().zip(kv.value_exponents).filter(|&(&p, &e)| p != 0 && e != Exp::ZERO);
    let common = live.map(|(_, e)| e.get()).max()?;
    let exponents = kv.value_exponents.chunks(CHUNK);
    for (n, (products, exponents)) in products.chunks_mut(CHUNK).zip(exponents).enumerate() {
        let mut acc = [0; CHUNK];
        let acc = acc.get_mut(..products.len()).unwrap_or(&mut []);
        kv.values.product(n * CHUNK, d.mantissas, acc);
        for ((product, &a), e) in products.iter_mut().zip(acc.iter()).zip(exponents) {
            // One that is larger than all that are seen is not seen.
            let shift = down as i32 + (common - e.get()).clamp(0, 63);
            *product = shift_half_even(a, shift) as i32;
        }
    }
    let probability = |p: i32| i64::from(p as u32);
    let mut along = WideSum::ZERO;
    row.iter().zip(products.iter()).for_each(|(&p, &d)| along.add(probability(p) * i64::from(d)));
    let mean = i64::from(along.to_real(0).mul(inverse).to_q(0));
    // |dP − mean| ≤ 2^31, p ≤ 2^31.
    let slope = |p: i32, d: i32| probability(p) * (i64::from(d) - mean);
    let union = row.iter().zip(products.iter()).fold(0, |u, (&p, &d)| u | slope(p, d).unsigned_abs());
    if union == 0 {
        return None;
    }
    let shift = bit_length(union) as i32 - SLOPE_BITS;
    for (p, &d) in row.iter_mut().zip(products.iter()) {
        *p = shift_half_even(slope(*p, d), shift) as i32;
    }
    Some(shift + d.exponent.get() + common + down as i32)
}

/// The rows of a tile, times their factors, as weights under one exponent, which is returned: what is the largest has 15
/// bits. `None` where all are zero.
///
/// `of(row, key)`: the value, at most 2^31.
fn weigh(
    rows: &[i32],
    keys: usize,
    scales: &[Scale],
    of: impl Fn(&[i32], usize) -> i64,
    weights: &mut [i16],
) -> Option<i32> {
    let exponent = |s: &Scale| s.exponent.map(|e| e + s.factor.exponent());
    let union = |row: &[i32]| (0..keys).fold(0, |u, i| u | of(row, i).unsigned_abs());
    let tokens = || rows.chunks_exact(keys).zip(scales);
    // 31 bits of a factor, and those of the row.
    let tops = tokens().filter_map(|(row, s)| {
        let bits = bit_length(union(row));
        (bits > 0).then_some(bits as i32 + 31).zip(exponent(s)).map(|(bits, e)| bits + e)
    });
    let common = tops.max()? - 15;
    for ((row, s), weights) in tokens().zip(weights.chunks_exact_mut(keys)) {
        match exponent(s) {
            None => weights.fill(0),
            Some(e) => {
                for (i, w) in weights.iter_mut().enumerate() {
                    *w = to_weight(of(row, i) * i64::from(s.factor.mantissa()), common - e);
                }
            }
        }
    }
    Some(common)
}

/// `v · 2^-shift`, half to even; what rounds to 2^15 stays one below.
fn to_weight(v: i64, shift: i32) -> i16 {
    const MAX: i64 = i16::MAX as i64;
    shift_half_even(v, shift.min(63)).clamp(-MAX, MAX) as i16
}

#[cfg(test)]
mod tests;
