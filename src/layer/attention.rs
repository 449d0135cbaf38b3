//! Attention of one token: scores against the keys it sees, softmax, and the weighted sum of their values.
//!
//! Per head, with every exponent its own:
//!
//! ```text
//! t_j = (q · k_j) · score · log2 e + relative position      in octaves, Q16
//! p_j = 2^(t_j − max t)                                     Q31
//! w_j = p_j · 2^(exponent of v_j − common)                  rounded once to 15 bits
//! o   = (Σ w_j v_j) / Σ p_j                                 exact sum; all heads meet, and are rounded once
//! ```
//!
//! The exponent of a value is folded into its weight, so that the sum over keys is exact, however far apart the values'
//! exponents are. Only keys that are seen take part in anything: a masked key has no influence on a single bit. 1/Σ is
//! applied once, to the sum. (Softmax in powers of two: I-BERT, arXiv:2101.01321; grouped queries: arXiv:2305.13245.)

use super::{ShapeError, exactly, first};
use crate::fixed::block::requantize;
use crate::fixed::exp2::exp2_neg_q31;
use crate::fixed::rounding::{
    bit_length, ceil_log2, shift_half_even, shift_half_even_saturating_i32, shift_right_half_even,
};
use crate::fixed::{Exp, Real, Tile};
use crate::kernel::active;

/// Keys whose scores are computed at a time, on the stack.
const CHUNK: usize = 32;

/// Fraction bits of a score.
const FRACTION: i32 = 16;

/// A score that no key has: what a masked one is given.
const HIDDEN: i32 = i32::MIN;

/// log2 e.
pub const LOG2_E: Real = Real::new(1_549_082_005, -30);

/// Mantissas of one head's keys or values, `(positions, head_dim)`, row-major.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Rows<'a> {
    /// As they were computed.
    I16(&'a [i16]),
    /// In half the memory.
    I8(&'a [i8]),
}

impl Rows<'_> {
    fn len(&self) -> usize {
        match self {
            Rows::I16(rows) => rows.len(),
            Rows::I8(rows) => rows.len(),
        }
    }

    /// `q · k_j` of the rows `from .. from + acc.len()`.
    fn product(&self, from: usize, q: &[i16], acc: &mut [i64]) {
        let width = q.len();
        let range = from * width..(from + acc.len()) * width;
        match self {
            Rows::I16(rows) => active::product_i16(rows.get(range).unwrap_or(&[]), width, q, acc),
            Rows::I8(rows) => active::product_i8(rows.get(range).unwrap_or(&[]), width, q, acc),
        }
    }

    /// `Σ_j w_j v_j` over the first `w.len()` rows.
    fn weighted(&self, w: &[i16], acc: &mut [i64]) {
        let width = acc.len();
        let range = ..w.len() * width;
        match self {
            Rows::I16(rows) => active::transposed_i16(rows.get(range).unwrap_or(&[]), width, 0, w, acc),
            Rows::I8(rows) => active::transposed_i8(rows.get(range).unwrap_or(&[]), width, 0, w, acc),
        }
    }
}

/// What one head of keys and values holds, one row and one exponent a position.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue<'a> {
    /// `(positions, head_dim)`.
    pub keys: Rows<'a>,
    /// `(positions)`.
    pub key_exponents: &'a [Exp],
    /// `(positions, head_dim)`.
    pub values: Rows<'a>,
    /// `(positions)`.
    pub value_exponents: &'a [Exp],
}

/// The keys that a token sees.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a> {
    /// The first so many: all of them, or, in causal attention, those up to the token itself.
    pub keys: usize,
    /// Of these, the ones whose byte is not 0; `None`: all. `(keys)` or longer.
    pub valid: Option<&'a [u8]>,
}

impl Visible<'_> {
    fn sees(&self, key: usize) -> bool {
        self.valid.is_none_or(|v| v.get(key).is_some_and(|&v| v != 0))
    }
}

/// A bias a head by the distance of query and key, in buckets (T5, arXiv:1910.10683).
#[derive(Clone, Copy, Debug)]
pub struct Relative<'a> {
    /// `(heads, buckets)`, Q16 octaves: what the network adds to a score, times log2 e.
    pub bias: &'a [i32],
    /// Width of `bias`.
    pub count: usize,
    /// The bucket of each distance, `(directions, distances)`: keys up to the query in the first row, keys behind it in
    /// the second. A greater distance is taken as the last.
    pub buckets: &'a [u8],
    /// Width of `buckets`.
    pub distances: usize,
}

impl Relative<'_> {
    /// What is added to the score of `key`, seen from `query`, in octaves, Q16.
    #[must_use]
    pub fn of(&self, head: usize, query: usize, key: usize) -> i32 {
        let row = if key > query { self.distances } else { 0 };
        let place = row + query.abs_diff(key).min(self.distances.saturating_sub(1));
        let bucket = self.buckets.get(place).map_or(0, |&b| usize::from(b)).min(self.count.saturating_sub(1));
        self.bias.get(head * self.count + bucket).copied().unwrap_or(0)
    }
}

/// Multi-head attention, with as many heads of keys and values as heads of queries, or fewer.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Heads of queries, a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What q · k is multiplied by: 1/√head_dim, or 1 (T5).
    pub score: Real,
    /// Added to the scores, if anything.
    pub relative: Option<Relative<'a>>,
}

/// The buffers that attention computes in. Contents mean nothing between calls.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// `(keys)`: scores, then probabilities.
    pub scores: &'a mut [i32],
    /// `(keys)`: weights with the values' exponents folded in.
    pub weights: &'a mut [i16],
    /// `(heads · head_dim)`: exact sums.
    pub acc: &'a mut [i64],
    /// `(heads)`: their exponents.
    pub exponents: &'a mut [i32],
}

impl Attention<'_> {
    /// The output of one token, `(heads · head_dim)`, canonical, half to even.
    ///
    /// `q`: a tile whose "tokens" are the heads, `(heads, head_dim)`; `position`: the token's own, for relative
    /// positions; `kv(h)`: keys and values of head `h < kv_heads`. A token that sees no key gives zeros.
    ///
    /// Error: 2^-15 of the largest weight a key (its rounding), 2^-17 octaves a score, and the one rounding of the
    /// result. Scores beyond ±2^15 octaves saturate.
    ///
    /// # Errors
    /// An operand of another size than needed; nothing is written then.
    pub fn forward<'k>(
        &self,
        q: Tile<'_>,
        position: usize,
        kv: impl Fn(usize) -> KeyValue<'k>,
        visible: Visible<'_>,
        out: &mut [i16],
        scratch: &mut Scratch<'_>,
    ) -> Result<Exp, ShapeError> {
        let (heads, width, keys) = (self.heads, self.head_dim, visible.keys);
        exactly("q", heads * width, q.mantissas.len())?;
        exactly("q's exponents", heads, q.exponents.len())?;
        exactly("attention's output", heads * width, out.len())?;
        let scores = first("scratch.scores", scratch.scores, keys)?;
        let weights = first("scratch.weights", scratch.weights, keys)?;
        let acc = first("scratch.acc", scratch.acc, heads * width)?;
        let exponents = first("scratch.exponents", scratch.exponents, heads)?;
        let group = heads.checked_div(self.kv_heads).unwrap_or(0).max(1);
        for h in 0..self.kv_heads {
            kv(h).check(keys, width)?;
        }

        let rows = acc.chunks_exact_mut(width.max(1)).zip(exponents.iter_mut());
        for (head, (block, (acc, exponent))) in q.blocks().zip(rows).enumerate() {
            let kv = kv(head / group);
            self.scores(head, block.mantissas, block.exponent, position, &kv, visible, scores);
            let sum = probabilities(scores);
            *exponent = weighted_mean(scores, sum, &kv, weights, acc);
        }
        Ok(join(acc, exponents, width, out))
    }

    /// The scores of one head: Q16 octaves, [`HIDDEN`] for a key that is not seen.
    #[allow(clippy::too_many_arguments)] // The operands of one formula.
    fn scores(
        &self,
        head: usize,
        q: &[i16],
        q_exponent: Exp,
        position: usize,
        kv: &KeyValue<'_>,
        visible: Visible<'_>,
        scores: &mut [i32],
    ) {
        let factor = self.score.mul(LOG2_E);
        // |q · k| ≤ head_dim · 2^30: moved down to 2^30, times a mantissa below 2^31. What goes is 2^-30 of the largest
        // product that could be.
        let down = ceil_log2(self.head_dim);
        let common = q_exponent.get() + factor.exponent() + FRACTION + down as i32;
        for (n, (scores, exponents)) in scores.chunks_mut(CHUNK).zip(kv.key_exponents.chunks(CHUNK)).enumerate() {
            let mut acc = [0; CHUNK];
            let acc = acc.get_mut(..scores.len()).unwrap_or(&mut []);
            kv.keys.product(n * CHUNK, q, acc);
            for (i, ((score, &a), &e)) in scores.iter_mut().zip(acc.iter()).zip(exponents).enumerate() {
                let key = n * CHUNK + i;
                *score = if visible.sees(key) {
                    let product = shift_right_half_even(a, down) * i64::from(factor.mantissa());
                    let t = shift_half_even_saturating_i32(product, -(common + e.get()));
                    let relative = self.relative.map_or(0, |r| r.of(head, position, key));
                    t.saturating_add(relative).max(-i32::MAX)
                } else {
                    HIDDEN
                };
            }
        }
    }
}

impl KeyValue<'_> {
    fn check(&self, keys: usize, width: usize) -> Result<(), ShapeError> {
        let least = |operand, needed: usize, found: usize| {
            if found >= needed { Ok(()) } else { Err(ShapeError { operand, needed, found }) }
        };
        least("keys", keys * width, self.keys.len())?;
        least("values", keys * width, self.values.len())?;
        least("keys' exponents", keys, self.key_exponents.len())?;
        least("values' exponents", keys, self.value_exponents.len())
    }
}

/// Turns scores into `2^(t − max)`, Q31, in place (the bits of a `u32`); returns their sum: 0 where no key is seen.
fn probabilities(scores: &mut [i32]) -> u64 {
    let max = scores.iter().copied().max().unwrap_or(HIDDEN);
    let mut sum = 0;
    for score in scores.iter_mut() {
        let p = if *score == HIDDEN {
            0
        } else {
            // Q16 to Q27; from 32 octaves on it is less than half an LSB.
            let distance = max.abs_diff(*score);
            if distance >= 32 << FRACTION { 0 } else { exp2_neg_q31(distance << (27 - FRACTION)) }
        };
        sum += u64::from(p);
        *score = p as i32;
    }
    sum
}

/// `Σ p_j v_j / Σ p_j` of one head into `acc`, 62 bits; returns its exponent.
fn weighted_mean(probabilities: &[i32], sum: u64, kv: &KeyValue<'_>, weights: &mut [i16], acc: &mut [i64]) -> i32 {
    let terms = || probabilities.iter().map(|&p| p as u32).zip(kv.value_exponents);
    // The largest p · 2^e below a power of two becomes the 15 bits of the weights.
    let top =
        terms().filter(|&(p, &e)| p != 0 && e != Exp::ZERO).map(|(p, e)| bit_length(u64::from(p)) as i32 + e.get());
    let Some(top) = top.max() else {
        acc.fill(0);
        return 0;
    };
    for (w, (p, &e)) in weights.iter_mut().zip(terms()) {
        let rounded = if e == Exp::ZERO { 0 } else { shift_half_even(i64::from(p), top - e.get() - 15) };
        *w = rounded.min(i64::from(i16::MAX)) as i16;
    }
    kv.values.weighted(weights, acc);
    // |Σ w v| < 2^47: moved down to 31 bits, times the 31 bits of 1/Σ. The unit of a weight is 2^(top − 15), and Q31
    // cancels between p and Σ.
    let excess = bit_length(acc.iter().fold(0, |u, v| u | v.unsigned_abs())).saturating_sub(31);
    let inverse = Real::ONE.div(Real::new(sum as i64, 0));
    for a in acc.iter_mut() {
        *a = shift_right_half_even(*a, excess) * i64::from(inverse.mantissa());
    }
    top - 15 + excess as i32 + inverse.exponent()
}

/// All heads under one exponent: exact within 62 bits of the largest, then rounded once.
fn join(acc: &mut [i64], exponents: &[i32], width: usize, out: &mut [i16]) -> Exp {
    let top = |head: &[i64], e: i32| {
        let bits = bit_length(head.iter().fold(0, |u, v| u | v.unsigned_abs()));
        (bits > 0).then_some(bits as i32 + e)
    };
    let heads = || exponents.iter().copied();
    let tops = acc.chunks_exact(width.max(1)).zip(heads()).filter_map(|(head, e)| top(head, e));
    let Some(top) = tops.max() else {
        out.fill(0);
        return Exp::ZERO;
    };
    let common = top - 62;
    for (head, e) in acc.chunks_exact_mut(width.max(1)).zip(heads()) {
        for a in head {
            *a = if *a == 0 { 0 } else { shift_half_even(*a, common - e) };
        }
    }
    requantize(acc, common, out)
}

mod backward;

pub use backward::{BackwardScratch, KeyValueGradient, Seen};

#[cfg(test)]
mod tests;
