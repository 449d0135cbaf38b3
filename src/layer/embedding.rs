//! Embeddings: rows of quantized tables, summed exactly.
//!
//! A table is a [`Linear`] layer whose outputs are its rows: `row[k] = q[index, k] · scales[index] · 2^exponent`. So a
//! tied head is the very same layer, used the other way round.

use super::Linear;
use crate::fixed::row_sum::RowSum;
use crate::fixed::{Block, Exp};
use crate::kernel::Weights;

/// `Σ row(table, index) + x`, `(dim)`, into accumulators below 2^62; returns their exponent. All zero where there is
/// nothing to add.
///
/// Exact while 62 bits hold all terms ([`RowSum`]). A row has at most 15 + 16 bits, `x` 15. An index beyond the table
/// adds nothing; the caller has ruled it out.
pub fn sum<const N: usize>(rows: [(Option<&Linear<'_>>, usize); N], x: Option<Block<'_>>, acc: &mut [i64]) -> i32 {
    acc.fill(0);
    let mut row: Option<RowSum<'_>> = None;
    let mut acc = Some(acc);
    let mut add = |exponent: i32, bits: u32, values: &mut dyn Iterator<Item = i64>| {
        let row = match (&mut row, acc.take()) {
            (Some(row), _) => row,
            // The first term finds zeros: they may have any exponent.
            (none, acc) => none.insert(RowSum::new(acc.unwrap_or_default(), exponent, 0)),
        };
        let joined = row.join(exponent, bits);
        for (a, v) in row.values_mut().iter_mut().zip(values) {
            *a += joined.align(v);
        }
    };
    for (table, index) in rows {
        let Some(table) = table else { continue };
        let Some(&scale) = table.scales.get(index) else { continue };
        let scale = i64::from(scale);
        let exponent = i32::from(table.exponent);
        let range = index * table.inputs..(index + 1) * table.inputs;
        match table.weights {
            Weights::I8(w) => {
                add(exponent, 24, &mut w.get(range).unwrap_or(&[]).iter().map(|&w| i64::from(w) * scale));
            }
            Weights::I16(w) => {
                add(exponent, 32, &mut w.get(range).unwrap_or(&[]).iter().map(|&w| i64::from(w) * scale));
            }
            Weights::I4(w) => {
                let mut values = w.iter_rows(table.inputs).nth(index).into_iter().flat_map(|row| row.values());
                add(exponent, 28, &mut values.by_ref().map(|w| i64::from(w) * scale));
            }
        }
    }
    if let Some(x) = x
        && x.exponent != Exp::ZERO
    {
        add(x.exponent.get(), 15, &mut x.mantissas.iter().map(|&m| i64::from(m)));
    }
    row.map_or(0, |row| row.finish().1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Activation;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table<'a>(weights: Weights<'a>, scales: &'a [u16], exponent: i16) -> Linear<'a> {
        Linear { weights, inputs: 3, outputs: 4, scales, exponent, bias: None, activation: Activation::None }
    }

    proptest! {
        #[test]
        fn is_the_sum_of_its_rows(
            bytes in prop::collection::vec(-127_i8..=127, 12), words in prop::collection::vec(any::<i16>(), 12),
            scales in prop::collection::vec(any::<u16>(), 8), x in prop::collection::vec(-32639_i16..=32639, 3),
            e in prop::collection::vec(-20_i16..0, 3), at in (0_usize..4, 0_usize..4),
        ) {
            let (small, large) = (table(Weights::I8(&bytes), &scales[..4], e[0]), table(Weights::I16(&words), &scales[4..], e[1]));
            let mut acc = [7; 3];
            let block = Block { mantissas: &x, exponent: Exp(e[2]) };
            let exponent = sum([(Some(&small), at.0), (None, 0), (Some(&large), at.1)], Some(block), &mut acc);
            let two = |e: i16| f64::from(e).exp2();
            let want: Vec<f64> = (0..3).map(|k| {
                f64::from(bytes[at.0 * 3 + k]) * f64::from(scales[at.0]) * two(e[0])
                    + f64::from(words[at.1 * 3 + k]) * f64::from(scales[4 + at.1]) * two(e[1])
                    + f64::from(x[k]) * two(e[2])
            }).collect();
            for (&got, want) in acc.iter().zip(want) {
                prop_assert_eq!(got as f64 * f64::from(exponent).exp2(), want);
            }
        }
    }

    #[test]
    fn nothing_is_zero() {
        let mut acc = [7; 3];
        assert_eq!((sum([(None, 0)], None, &mut acc), acc), (0, [0; 3]));
    }
}
