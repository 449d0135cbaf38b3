//! Weights in flash: constants, drawn by a hash.
//!
//! A block of 4,096 draws is repeated, because no kernel's time depends on what it multiplies. All shapes share them.

use ranklet::{
    fixed::hash::{Purpose, Seed, Stream},
    kernel::I4,
};

use super::forward::Width;

/// Draws in a block.
const BLOCK: usize = 4096;

/// Weights of every kind that a board has room for.
pub(super) struct Pool {
    /// Within ±127.
    pub(super) i8: &'static [i8],
    /// Within ±32,639; also the planes of adapters, and inputs.
    pub(super) i16: &'static [i16],
    /// Two 4-bit weights a byte, within ±7.
    pub(super) nibbles: &'static [u8],
    /// Scales of groups, 1 to 63.
    pub(super) groups: &'static [u8],
    /// Scales of rows, 2^15 and more.
    pub(super) scales: &'static [u16],
    /// Biases, below 2^24.
    pub(super) biases: &'static [i32],
}

impl Pool {
    /// Whether there are weights for a layer: a small board's flash does not hold the widest in every form.
    pub(super) const fn has(&self, width: Width, (inputs, outputs): (usize, usize)) -> bool {
        match width {
            Width::W4 => self.nibbles.len() >= outputs * I4::row_bytes(inputs),
            Width::W8 => self.i8.len() >= outputs * inputs,
            Width::W16 => self.i16.len() >= outputs * inputs,
        }
    }
}

/// Enough for 512 x 512.
pub(super) static LARGE: Pool = Pool {
    i8: LARGE_I8.as_flattened(),
    i16: LARGE_I16.as_flattened(),
    nibbles: LARGE_NIBBLES.as_flattened(),
    groups: LARGE_GROUPS.as_flattened(),
    scales: &SCALES,
    biases: &BIASES,
};

/// Enough for 512 x 128 with 8 bits, and 64 x 64 with 16 and 4.
pub(super) static SMALL: Pool = Pool {
    i8: SMALL_I8.as_flattened(),
    i16: SMALL_I16.as_flattened(),
    nibbles: &SMALL_NIBBLES,
    groups: &SMALL_GROUPS,
    scales: &SCALES,
    biases: &BIASES,
};

static LARGE_I8: [[i8; BLOCK]; 64] = [I8; 64];
static LARGE_I16: [[i16; BLOCK]; 64] = [I16; 64];
static LARGE_NIBBLES: [[u8; BLOCK]; 32] = [NIBBLES; 32];
static LARGE_GROUPS: [[u8; BLOCK]; 2] = [GROUPS; 2];

static SMALL_I8: [[i8; BLOCK]; 16] = [I8; 16];
static SMALL_I16: [[i16; BLOCK]; 1] = [I16; 1];
static SMALL_NIBBLES: [u8; 64 * I4::row_bytes(64)] = FEW_NIBBLES;
static SMALL_GROUPS: [u8; 64 * I4::row_groups(64)] = FEW_GROUPS;

static SCALES: [u16; 512] = SCALE_DRAWS;
static BIASES: [i32; 512] = BIAS_DRAWS;

/// A constant of `$count` draws; `$draw` makes a value from 32 uniform bits.
macro_rules! drawn {
    ($name:ident, $type:ty, $count:expr, $site:expr, $draw:expr) => {
        const $name: [$type; $count] = {
            const STREAM: Stream = Stream::new(Seed(1), Purpose::Init, 0, $site);
            let mut all = [0; $count];
            let mut i = 0;
            while i < $count {
                all[i] = $draw(STREAM.at(i as u32));
                i += 1;
            }
            all
        };
    };
}

const fn i8_of(bits: u32) -> i8 {
    ((bits % 255) as i32 - 127) as i8
}
const fn i16_of(bits: u32) -> i16 {
    ((bits % 65_279) as i32 - 32_639) as i16
}
const fn nibbles_of(bits: u32) -> u8 {
    let (low, high) = ((bits & 0xFFFF) % 15, (bits >> 16) % 15);
    ((low.wrapping_sub(7) & 15) | ((high.wrapping_sub(7) & 15) << 4)) as u8
}
const fn group_of(bits: u32) -> u8 {
    (bits % 63) as u8 + 1
}
const fn scale_of(bits: u32) -> u16 {
    (bits >> 17) as u16 | 0x8000
}
const fn bias_of(bits: u32) -> i32 {
    (bits as i32) >> 8
}

drawn!(I8, i8, BLOCK, 0, i8_of);
drawn!(I16, i16, BLOCK, 1, i16_of);
drawn!(NIBBLES, u8, BLOCK, 2, nibbles_of);
drawn!(GROUPS, u8, BLOCK, 3, group_of);
drawn!(FEW_NIBBLES, u8, 64 * I4::row_bytes(64), 2, nibbles_of);
drawn!(FEW_GROUPS, u8, 64 * I4::row_groups(64), 3, group_of);
drawn!(SCALE_DRAWS, u16, 512, 4, scale_of);
drawn!(BIAS_DRAWS, i32, 512, 5, bias_of);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_within_their_bounds() {
        assert!(I8.iter().all(|&w| w != i8::MIN) && I8.contains(&127) && I8.contains(&-127));
        assert!(I16.iter().all(|w| w.unsigned_abs() <= 32_639));
        assert!(NIBBLES.iter().all(|b| b & 15 != 8 && b >> 4 != 8));
        assert!(GROUPS.iter().all(|g| (1..=63).contains(g)));
    }
}
