//! Named roundings.
//!
//! A floor shift (`>>` on a signed value) is biased by half an LSB towards −∞; where its result persists, the bias
//! adds up and the value drifts. Every function of the crate that drops bits calls one of these and says which.

/// `x / 2^n`, rounded to nearest, ties to even. Exact for `n = 0`; 0 for `n ≥ 64`.
///
/// ```
/// use ranklet::fixed::rounding::shift_right_half_even;
/// assert_eq!(shift_right_half_even(5, 1), 2); // 2.5 → 2
/// assert_eq!(shift_right_half_even(7, 1), 4); // 3.5 → 4
/// assert_eq!(shift_right_half_even(-5, 1), -2);
/// ```
#[inline]
#[must_use]
pub const fn shift_right_half_even(x: i64, n: u32) -> i64 {
    if n == 0 {
        return x;
    }
    if n > 63 {
        return 0;
    }
    // The bits that go, moved to the top: one half is the sign bit alone.
    let quotient = x >> n;
    let rest = (x << (64 - n)) as u64;
    quotient + carries_u64(rest, quotient & 1 != 0) as i64
}

/// Whether `rest` of 2^64 is above one half, or just one half under an odd quotient.
#[inline]
const fn carries_u64(rest: u64, odd: bool) -> bool {
    const HALF: u64 = 1 << 63;
    rest > HALF || (rest == HALF && odd)
}

/// [`shift_right_half_even`] where the caller knows that the result fits 32 bits: the same value in 32-bit
/// instructions. Of a result that does not fit, the low 32 bits.
#[inline]
#[must_use]
pub const fn narrow_half_even(x: i64, n: u32) -> i32 {
    let (low, high) = (x as u32, (x >> 32) as i32);
    let (quotient, rest) = match n {
        0 => return low as i32,
        1..32 => (low >> n | (high as u32) << (32 - n), low << (32 - n)),
        32 => (high as u32, low),
        33..64 => ((high >> (n - 32)) as u32, (high as u32) << (64 - n) | (low != 0) as u32),
        _ => return 0,
    };
    // One half, less one, plus one more under an odd quotient: overflows exactly where it must carry.
    let (_, carry) = rest.overflowing_add((1 << 31) - 1 + (quotient & 1));
    quotient.wrapping_add(carry as u32) as i32
}

/// `x · 2^-n` for either sign of `n`: to the right half to even, to the left exactly.
///
/// To the left, the caller proves that the result fits; bits that do not are lost (no overflow check on the hot path).
#[inline]
#[must_use]
pub const fn shift_half_even(x: i64, n: i32) -> i64 {
    if n >= 0 {
        shift_right_half_even(x, n.unsigned_abs())
    } else if n > -64 {
        x.wrapping_shl(n.unsigned_abs())
    } else {
        0
    }
}

/// `x · 2^-n` for either sign of `n`, half to even, saturated to `i32` (symmetric: ±`i32::MAX`).
#[inline]
#[must_use]
pub const fn shift_half_even_saturating_i32(x: i64, n: i32) -> i32 {
    const MAX: i64 = i32::MAX as i64;
    let y = if n >= 0 {
        shift_right_half_even(x, n.unsigned_abs())
    } else {
        let left = n.unsigned_abs();
        // Anything with more than 31 − left significant bits saturates.
        if x == 0 {
            0
        } else if left > 31 || bit_length(x.unsigned_abs()) + left > 31 {
            if x < 0 { -MAX } else { MAX }
        } else {
            x << left
        }
    };
    if y > MAX {
        i32::MAX
    } else if y < -MAX {
        -i32::MAX
    } else {
        y as i32
    }
}

/// The number of bits that `x` needs: 0 for 0, `⌊log2 x⌋ + 1` otherwise.
#[inline]
#[must_use]
pub const fn bit_length(x: u64) -> u32 {
    u64::BITS - x.leading_zeros()
}

/// The smallest `n` with `2^n ≥ x`; 0 for 0 and 1.
#[inline]
#[must_use]
pub const fn ceil_log2(x: usize) -> u32 {
    if x <= 1 { 0 } else { usize::BITS - (x - 1).leading_zeros() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, in 128 bits: ties to even, no tricks.
    fn slow(x: i64, n: u32) -> i64 {
        let (x, d) = (i128::from(x), 1_i128 << n);
        let floor = x.div_euclid(d);
        let twice = 2 * x.rem_euclid(d);
        let up = twice > d || (twice == d && floor % 2 != 0);
        i64::try_from(floor + i128::from(up)).unwrap()
    }

    proptest! {
        #[test]
        fn half_even_is_its_definition(x in any::<i64>(), n in 0_u32..64) {
            prop_assert_eq!(shift_right_half_even(x, n), slow(x, n));
        }

        #[test]
        fn narrow_is_the_same(x in any::<i64>(), n in 0_u32..70) {
            let x = if n < 32 { x >> (33 - n) } else { x };
            prop_assert_eq!(i64::from(narrow_half_even(x, n)), shift_right_half_even(x, n));
            let tie = (x >> n.min(63) << n.min(63)) | (1 << n.min(63) >> 1);
            prop_assert_eq!(i64::from(narrow_half_even(tie, n)), shift_right_half_even(tie, n));
        }

        #[test]
        fn ties_go_to_even(q in -1_000_000_i64..1_000_000, n in 1_u32..40) {
            let tie = (q << n) + (1 << (n - 1));
            prop_assert_eq!(shift_right_half_even(tie, n) % 2, 0);
        }

        #[test]
        fn saturating_agrees_where_it_fits(x in any::<i32>(), n in -40_i32..70) {
            let wide = if n >= 0 { i128::from(slow(i64::from(x), n.min(63) as u32)) } else { i128::from(x) << (-n) };
            let wide = if n > 63 { 0 } else { wide };
            let expected = wide.clamp(-i128::from(i32::MAX), i128::from(i32::MAX));
            prop_assert_eq!(i128::from(shift_half_even_saturating_i32(i64::from(x), n)), expected);
        }
    }

    #[test]
    fn rounding_does_not_drift() {
        // Zero-mean input keeps a zero mean; a floor shift would leave −0.5 per value.
        let sum: i64 = (-1000..=1000).map(|x| shift_right_half_even(x, 3)).sum();
        assert_eq!(sum, 0);
    }

    #[test]
    fn lengths() {
        assert_eq!([0_u64, 1, 2, 3, 4, u64::MAX].map(bit_length), [0, 1, 2, 2, 3, 64]);
        assert_eq!([0_usize, 1, 2, 3, 4, 5].map(ceil_log2), [0, 0, 1, 2, 2, 3]);
    }
}
