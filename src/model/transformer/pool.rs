//! The vector that stands for a sequence: one of its tokens', or their mean.

use super::parts::one_of;
use super::sequence::{Sequence, Source};
use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, shift_right_half_even};
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Block, Exp};
use crate::model::spec::{Pool, Transformer};

/// The token whose vector counts; `None`: the mean of all that are valid does.
///
/// `source`: what the encoder was given, whose end token counts for T5's classifier; or the sequence itself. A network that pools
/// nothing has its last valid token here.
pub(crate) fn index(t: &Transformer, source: Sequence<'_>, sequence: Sequence<'_>) -> Option<usize> {
    let last = |s: Sequence<'_>| (0..s.len()).rev().find(|&i| s.is_valid(i)).unwrap_or(0);
    Some(match t.pool {
        Pool::First => 0,
        Pool::None | Pool::Last => last(sequence),
        Pool::End => match source.source {
            Source::Tokens(ids) => ids.iter().rposition(|&id| id == t.end).unwrap_or(last(source)),
            Source::Features(..) => last(source),
        },
        Pool::Mean => return None,
    })
}

/// A mean of vectors: their exact sum, of which 31 bits are multiplied with the 31 of 1/n; rounded once.
#[derive(Debug)]
pub(crate) struct Mean<'a> {
    row: RowSum<'a>,
    count: usize,
}

impl<'a> Mean<'a> {
    /// Of none; `acc`: one accumulator an element.
    pub(crate) fn new(acc: &'a mut [i64]) -> Mean<'a> {
        acc.fill(0);
        Mean { row: RowSum::new(acc, 0, 0), count: 0 }
    }

    /// One more; at most 2^17.
    pub(crate) fn add(&mut self, x: Block<'_>) {
        self.count += 1;
        if !x.is_zero() {
            let joined = self.row.join(x.exponent.get(), 15);
            for (v, &m) in self.row.values_mut().iter_mut().zip(x.mantissas) {
                *v += joined.align(i64::from(m));
            }
        }
    }

    /// Their mean, into `out`; canonical, half to even.
    pub(crate) fn finish(self, out: &mut [i16]) -> Exp {
        let (acc, exponent) = self.row.finish();
        let bits = bit_length(acc.iter().fold(0, |u, v| u | v.unsigned_abs()));
        let (excess, share) = (bits.saturating_sub(31), one_of(self.count));
        for v in acc.iter_mut() {
            *v = shift_right_half_even(*v, excess) * i64::from(share.mantissa());
        }
        requantize(acc, exponent + excess as i32 + share.exponent(), out)
    }
}
