//! Rotary positions: pairs of a head's values are turned by an angle that grows with the token's position, so that the
//! product of a query and a key depends on how far apart they are.
//!
//! Value i of the first half is paired with value i of the second, as Hugging Face's Llama does it. (Su et al.,
//! "RoFormer", arXiv:2104.09864.)

use crate::fixed::Exp;
use crate::fixed::block::requantize;
use crate::fixed::cossin::cossin_q30;

/// The rotation of heads.
///
/// ```
/// use ranklet::fixed::Exp;
/// use ranklet::layer::Rope;
/// let rope = Rope { turns: &[1 << 30] }; // A quarter turn a position.
/// let mut head = [1 << 14, 0];
/// assert_eq!(rope.forward(1, &mut head, Exp(-14), &mut [0; 2]), Exp(-14));
/// assert_eq!(head, [0, 1 << 14]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// `(head_dim / 2)`: the angle a position of each pair, in 2^-32 turns.
    pub turns: &'a [u32],
}

impl Rope<'_> {
    /// Turns a head, `(head_dim)`, in place: canonical, rounded half to even once; returns its exponent.
    ///
    /// `acc`: at least `head_dim`. A head without an angle for each pair becomes zero from there on. Angles wrap exactly; what stands in `turns` is known to 2^-33 turns, so after p positions an
    /// angle is within p · 2^-33 turns.
    pub fn forward(&self, position: u32, head: &mut [i16], exponent: Exp, acc: &mut [i64]) -> Exp {
        self.turn(position, 1, head, exponent, acc)
    }

    /// The gradient before the rotation, from the one behind it: turned back, in place, as [`forward`](Rope::forward).
    pub fn backward(&self, position: u32, head: &mut [i16], exponent: Exp, acc: &mut [i64]) -> Exp {
        self.turn(position, -1, head, exponent, acc)
    }

    fn turn(&self, position: u32, sign: i64, head: &mut [i16], exponent: Exp, acc: &mut [i64]) -> Exp {
        let half = head.len() / 2;
        let (first, second) = head.split_at(half);
        let acc = acc.get_mut(..2 * half).unwrap_or_default();
        acc.fill(0); // Where there are fewer angles than pairs, the rest is nothing, not what stood there.
        let (to_first, to_second) = acc.split_at_mut_checked(half).unwrap_or_default();
        let pairs = first.iter().zip(second).zip(self.turns);
        for (((&a, &b), &turns), (to_a, to_b)) in pairs.zip(to_first.iter_mut().zip(to_second)) {
            let (cosine, sine) = cossin_q30(turns.wrapping_mul(position));
            let (c, s) = (i64::from(cosine), sign * i64::from(sine));
            let (a, b) = (i64::from(a), i64::from(b));
            (*to_a, *to_b) = (a * c - b * s, b * c + a * s); // < 2^47
        }
        requantize(acc, exponent.get().saturating_sub(30), head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const TURNS: [u32; 3] = [683_565_276, 31_000_000, 1_234_567];

    fn floats(head: &[i16], e: Exp) -> Vec<f64> {
        head.iter().map(|&m| f64::from(m) * f64::from(e.get()).exp2()).collect()
    }

    proptest! {
        #[test]
        fn is_its_definition(m in prop::collection::vec(-32639_i16..=32639, 6), e in -20_i16..0, position in 0_u32..100_000) {
            let rope = Rope { turns: &TURNS };
            let mut head = m.clone();
            let f = rope.forward(position, &mut head, Exp(e), &mut [0; 6]);
            let (x, y) = (floats(&m, Exp(e)), floats(&head, f));
            let lsb = f64::from(f.get()).exp2();
            for i in 0..3 {
                let angle = f64::from(TURNS[i].wrapping_mul(position)) / f64::from(32).exp2() * core::f64::consts::TAU;
                let want = [x[i] * angle.cos() - x[i + 3] * angle.sin(), x[i + 3] * angle.cos() + x[i] * angle.sin()];
                for (got, want) in [y[i], y[i + 3]].into_iter().zip(want) {
                    let clamp = if head.iter().any(|h| h.unsigned_abs() == 32639) { 129.0 } else { 0.0 };
                    prop_assert!((got - want).abs() <= (0.501 + clamp) * lsb, "{} {}", got, want);
                }
            }
        }

        /// Turning back gives the head again, up to two roundings.
        #[test]
        fn backward_undoes_forward(m in prop::collection::vec(-30000_i16..=30000, 6), position in any::<u32>()) {
            let rope = Rope { turns: &TURNS };
            let mut head = m.clone();
            let e = rope.forward(position, &mut head, Exp(0), &mut [0; 6]);
            let e = rope.backward(position, &mut head, e, &mut [0; 6]);
            for (x, y) in floats(&m, Exp(0)).into_iter().zip(floats(&head, e)) {
                prop_assert!((x - y).abs() <= 260.0, "{x} {y}"); // A peak may have been clamped by 1/256.
            }
        }

        /// q(i) · k(j) depends on i − j alone.
        #[test]
        fn products_see_the_distance(q in prop::collection::vec(-30000_i16..=30000, 6), k in prop::collection::vec(-30000_i16..=30000, 6), i in 0_u32..1000, j in 0_u32..1000, by in 0_u32..1000) {
            let rope = Rope { turns: &TURNS };
            let at = |m: &[i16], position| {
                let mut head = m.to_vec();
                let e = rope.forward(position, &mut head, Exp(-15), &mut [0; 6]);
                floats(&head, e)
            };
            let dot = |i, j| -> f64 { at(&q, i).iter().zip(at(&k, j)).map(|(a, b)| a * b).sum() };
            prop_assert!((dot(i, j) - dot(i + by, j + by)).abs() < 0.06);
        }
    }

    #[test]
    fn pairs_without_an_angle_are_zero() {
        let mut head = [1 << 14, 3, 1 << 13, 5];
        let e = Rope { turns: &[1 << 30] }.forward(0, &mut head, Exp(0), &mut [99; 4]);
        assert_eq!((e, head), (Exp(0), [1 << 14, 0, 1 << 13, 0]));
    }

    #[test]
    fn nothing_turns_at_position_0() {
        let mut head = [5 << 10, -(7 << 10), 1 << 14, 12];
        let e = Rope { turns: &[1, 2] }.forward(0, &mut head, Exp(3), &mut [0; 4]);
        assert_eq!((e, head), (Exp(3), [5 << 10, -(7 << 10), 1 << 14, 12]));
    }
}
