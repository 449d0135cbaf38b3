//! A vector of frozen parameters at full precision: biases, and the weights and biases of norms.

use crate::fixed::row_sum::RowSum;

/// `value = mantissa · 2^exponent`.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    /// `(width)`, |m| < 2^31.
    pub mantissas: &'a [i32],
    /// Of all of them.
    pub exponent: i16,
}

impl Vector<'_> {
    /// Adds the vector to a row of accumulators; exact while the row has room ([`RowSum`]).
    ///
    /// Where one is longer than the other, the shorter decides.
    pub fn add_to(&self, row: &mut RowSum<'_>) {
        let joined = row.join(i32::from(self.exponent), 31);
        for (v, &m) in row.values_mut().iter_mut().zip(self.mantissas) {
            *v += joined.align(i64::from(m));
        }
    }
}
