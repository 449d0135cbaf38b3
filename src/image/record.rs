//! [`LoraRecord`]: where one pair (A, B) stands in an adapter's planes. The same form in flash and in RAM, so that
//! an adapter is used in place, and a trained one is saved as it lies.

use crate::fixed::{Exp, Real};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The largest rank of an adapter.
pub const MAX_RANK: usize = 64;

/// One adapted layer. 48 bytes.
///
/// ```text
///   0      2      4        8         12         16         20           22           24
///   +------+------+--------+---------+----------+----------+------------+------------+
///   | site | rank | inputs | outputs | A offset | B offset | A exponent | B exponent |
///   | u16  | u16  | u32    | u32     | u32      | u32      | i16        | i16        |
///   +------+------+--------+---------+----------+----------+------------+------------+
///  24                 28                 30      32            36            40              42              44  48
///   +------------------+------------------+-------+-------------+-------------+---------------+---------------+---+
///   | scaling mantissa | scaling exponent | flags | gain offset | bias offset | gain exponent | bias exponent | 0 |
///   | i32              | i16              | u16   | u32         | u32         | i16           | i16           |u32|
///   +------------------+------------------+-------+-------------+-------------+---------------+---------------+---+
/// ```
///
/// Gain (DoRA's g − 1) and bias (what is added to the layer's own) are vectors of `outputs` elements of the high
/// plane; flags say whether they are there, and their exponents are those of the high plane itself.
///
/// Offsets count elements from the start of each plane (high and low alike). Exponents are those of the 32-bit
/// masters: `value = (high · 65536 + low) · 2^exponent`, so the high plane alone stands under `exponent + 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LoraRecord {
    /// The linear layer it adapts.
    pub site: u16,
    /// 1 to [`MAX_RANK`].
    pub rank: u16,
    /// Columns of A.
    pub inputs: u32,
    /// Rows of B.
    pub outputs: u32,
    /// A, `(rank, inputs)`, row-major.
    pub a_offset: u32,
    /// B, `(outputs, rank)`, row-major.
    pub b_offset: u32,
    /// Of A's masters; `i16::MIN` where A is all zero.
    pub a_exponent: i16,
    /// Of B's masters; `i16::MIN` where B is all zero.
    pub b_exponent: i16,
    /// The scaling s = alpha / rank (or alpha / √rank): mantissa of a [`Real`].
    pub scaling_mantissa: i32,
    /// The scaling's exponent.
    pub scaling_exponent: i16,
    /// [`GAIN`](LoraRecord::GAIN), [`BIAS`](LoraRecord::BIAS), [`WHOLE`](LoraRecord::WHOLE); the others are 0.
    pub flags: u16,
    /// The gain, `(outputs)`, if there is one; 0 otherwise.
    pub gain_offset: u32,
    /// The bias, `(outputs)`, if there is one; 0 otherwise.
    pub bias_offset: u32,
    /// Of the gain.
    pub gain_exponent: i16,
    /// Of the bias.
    pub bias_exponent: i16,
    /// Reserved, 0.
    pub reserved: u32,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RecordProblem {
    /// The base has no such layer, or the records are not in ascending order of their sites.
    Site,
    /// 0, or beyond [`MAX_RANK`].
    Rank,
    /// Other dimensions than the base's layer has.
    Dimensions {
        /// (inputs, outputs) of the base.
        expected: (u32, u32),
        /// (inputs, outputs) of the record.
        found: (u32, u32),
    },
    /// A or B reaches beyond the plane.
    Range,
    /// An exponent beyond ±1024 that does not mark an all-zero tensor.
    Exponent,
    /// Flags, or reserved bytes, of a later version.
    Flags(u16),
}

impl LoraRecord {
    /// There is a gain.
    pub const GAIN: u16 = 1;
    /// There is a bias.
    pub const BIAS: u16 = 2;
    /// A and B hold the difference of a layer that was trained whole (PEFT's `modules_to_save`).
    pub const WHOLE: u16 = 4;

    /// The scaling s.
    #[must_use]
    pub const fn scaling(&self) -> Real {
        Real::from_parts(self.scaling_mantissa, self.scaling_exponent)
    }

    /// Elements of A.
    #[must_use]
    pub const fn a_len(&self) -> usize {
        self.rank as usize * self.inputs as usize
    }

    /// Elements of B.
    #[must_use]
    pub const fn b_len(&self) -> usize {
        self.rank as usize * self.outputs as usize
    }

    /// A's part of a plane; empty where the record is not a checked one.
    #[must_use]
    pub fn a_of<'p, T>(&self, plane: &'p [T]) -> &'p [T] {
        let at = self.a_offset as usize;
        plane.get(at..at.saturating_add(self.a_len())).unwrap_or(&[])
    }

    /// B's part of a plane; empty where the record is not a checked one.
    #[must_use]
    pub fn b_of<'p, T>(&self, plane: &'p [T]) -> &'p [T] {
        let at = self.b_offset as usize;
        plane.get(at..at.saturating_add(self.b_len())).unwrap_or(&[])
    }

    /// The gain and its exponent, if there is one.
    #[must_use]
    pub fn gain_of<'p>(&self, high: &'p [i16]) -> Option<(&'p [i16], Exp)> {
        self.extra(LoraRecord::GAIN, self.gain_offset, self.gain_exponent, high)
    }

    /// The bias and its exponent, if there is one.
    #[must_use]
    pub fn bias_of<'p>(&self, high: &'p [i16]) -> Option<(&'p [i16], Exp)> {
        self.extra(LoraRecord::BIAS, self.bias_offset, self.bias_exponent, high)
    }

    fn extra<'p>(&self, flag: u16, at: u32, exponent: i16, high: &'p [i16]) -> Option<(&'p [i16], Exp)> {
        let (at, len) = (at as usize, self.outputs as usize);
        (self.flags & flag != 0).then(|| (high.get(at..at.saturating_add(len)).unwrap_or(&[]), Exp(exponent)))
    }

    /// Whether it has more than A and B: such a record is used, but not trained.
    #[must_use]
    pub const fn has_extras(&self) -> bool {
        self.flags & (LoraRecord::GAIN | LoraRecord::BIAS) != 0
    }

    /// The exponent of a tensor's high plane, from that of its masters.
    #[must_use]
    pub const fn high_exponent(master: i16) -> Exp {
        if master == Exp::ZERO.0 { Exp::ZERO } else { Exp::saturating(master as i32 + 16) }
    }

    /// Checks the record against the layer it names and the plane it points into.
    ///
    /// # Errors
    /// The first [`RecordProblem`].
    pub fn check(&self, layer: Option<(u32, u32)>, plane_len: usize) -> Result<(), RecordProblem> {
        let expected = layer.ok_or(RecordProblem::Site)?;
        if !(1..=MAX_RANK).contains(&(self.rank as usize)) {
            return Err(RecordProblem::Rank);
        }
        let found = (self.inputs, self.outputs);
        if found != expected {
            return Err(RecordProblem::Dimensions { expected, found });
        }
        let end = |offset: u32, len: usize| (offset as usize).checked_add(len);
        let fits = |end: Option<usize>| end.is_some_and(|end| end <= plane_len);
        if !fits(end(self.a_offset, self.a_len())) || !fits(end(self.b_offset, self.b_len())) {
            return Err(RecordProblem::Range);
        }
        let extra = |flag: u16, at: u32| self.flags & flag == 0 || fits(end(at, self.outputs as usize));
        if !extra(LoraRecord::GAIN, self.gain_offset) || !extra(LoraRecord::BIAS, self.bias_offset) {
            return Err(RecordProblem::Range);
        }
        let sane = |e: i16| e == Exp::ZERO.0 || (-1024..=1024).contains(&e);
        if !sane(self.gain_exponent) || !sane(self.bias_exponent) {
            return Err(RecordProblem::Exponent);
        }
        if !sane(self.a_exponent) || !sane(self.b_exponent) || !sane(self.scaling_exponent) {
            return Err(RecordProblem::Exponent);
        }
        if self.flags & !(LoraRecord::GAIN | LoraRecord::BIAS | LoraRecord::WHOLE) != 0 || self.reserved != 0 {
            return Err(RecordProblem::Flags(self.flags));
        }
        Ok(())
    }
}
