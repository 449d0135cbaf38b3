//! How things are drawn with text. Integers only: a float in a report would pull soft float into the firmware.

use core::fmt;

use heapless::HistoryBuf;
use ranklet::fixed::log2::log2_q26;

/// A part of a whole, in per cent with one decimal, six characters wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub usize, pub usize);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 1000 + self.1 / 2).checked_div(self.1).unwrap_or(0);
        write!(f, "{:3}.{} %", tenths / 10, tenths % 10)
    }
}

/// A number of thousandths, with three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thousandths(pub i32);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", n / 1000, n % 1000)
    }
}

/// The last values of something that should fall, drawn as a sparkline whose full height is the largest of them; each bar
/// lower is a half.
#[derive(Debug, Default)]
pub struct History(HistoryBuf<i32, 40>);

impl History {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(HistoryBuf::new())
    }

    /// One more value; the oldest goes where there are more than 40.
    pub fn push(&mut self, value: i32) {
        self.0.write(value);
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        let largest = self.0.oldest_ordered().copied().max().unwrap_or(0).max(1);
        self.0.oldest_ordered().try_for_each(|&value| {
            let halvings = (log2(largest) - log2(value) + HALF) / (2 * HALF);
            f.write_str(BARS.iter().rev().nth(halvings as usize).unwrap_or(&"▁"))
        })
    }
}

/// One half in the form of [`log2`].
const HALF: u32 = 1 << 25;

/// With 26 fraction bits; 0 for what is not above 1.
fn log2(value: i32) -> u32 {
    log2_q26(u64::from(value.max(1).unsigned_abs()))
}

/// Draws images of 8×8 pixels of 0 to 16 side by side, two characters a pixel.
///
/// # Errors
/// The console's.
pub fn digits(out: &mut impl fmt::Write, images: &[[u8; 64]]) -> fmt::Result {
    const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
    for row in 0..8 {
        out.write_str("  ")?;
        for image in images {
            for &pixel in image.iter().skip(row * 8).take(8) {
                out.write_str(SHADES.get(usize::from(pixel).div_ceil(4)).unwrap_or(&"██"))?;
            }
            out.write_str("    ")?;
        }
        out.write_str("\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::String};

    use super::*;

    #[test]
    fn numbers_are_rounded_and_aligned() {
        assert_eq!(format!("{}", Percent(1, 3)), " 33.3 %");
        assert_eq!(format!("{}", Percent(397, 397)), "100.0 %");
        assert_eq!(format!("{}", Percent(0, 0)), "  0.0 %");
        assert_eq!(format!("{} {}", Thousandths(2302), Thousandths(-5)), "2.302 -0.005");
    }

    #[test]
    fn the_sparkline_falls() {
        let mut history = History::new();
        [2300, 1150, 300, 0].into_iter().for_each(|v| history.push(v));
        assert_eq!(format!("{history}"), "█▇▅▁");
    }

    #[test]
    fn images_stand_side_by_side() {
        let mut out = String::new();
        digits(&mut out, &[[16; 64], [0; 64]]).expect("a string takes any text");
        assert_eq!(out.lines().count(), 8);
        assert!(out.lines().all(|l| l.starts_with("  ████████████████    ") && l.chars().count() == 42));
    }
}
