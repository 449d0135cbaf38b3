//! The images in flash: `models/digits/digits.bin`, whose layout its README gives, and the quarter turn of the camera.

/// The file: a header of 16 bytes, then 65 an image, pixels and label. A constant, so that only [`IMAGES`] is in flash.
const FILE: &[u8] = include_bytes!("../../../../models/digits/digits.bin");
const HEADER: usize = 16;
const RECORD: usize = 65;

/// The device's and the test images; the base's own stay where they are.
static IMAGES: [u8; RECORD * (DEVICE.len + TEST.len)] = match FILE.split_at(HEADER + RECORD * count(8)).1.first_chunk()
{
    Some(images) => *images,
    None => panic!("digits.bin has another length than its header says"),
};

/// What the device learns from.
pub const DEVICE: Part = Part { first: 0, len: count(10) };
/// What nobody ever learns from.
pub const TEST: Part = Part { first: DEVICE.len, len: count(12) };

/// One image with its label.
#[derive(Debug, Clone, Copy)]
pub struct Digit<'a> {
    /// 8×8, row by row from the top left, 0 (paper) to 16 (ink).
    pub pixels: &'a [u8],
    /// 0 to 9.
    pub label: usize,
}

/// A run of images that share no image with another part.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    first: usize,
    len: usize,
}

impl Part {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Image `n`; a blank one labelled 0 where there is none.
    #[must_use]
    pub fn get(&self, n: usize) -> Digit<'static> {
        let at = RECORD * (self.first + n.min(self.len));
        match IMAGES.get(at..at + RECORD).and_then(<[u8]>::split_last) {
            Some((&label, pixels)) => Digit { pixels, label: usize::from(label) },
            None => Digit { pixels: &[0; 64], label: 0 },
        }
    }
}

/// How the camera is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As it should be.
    Upright,
    /// A quarter turn clockwise.
    Turned,
}

impl View {
    /// The pixels as the camera delivers them.
    #[must_use]
    pub fn of(self, digit: Digit<'_>) -> [u8; 64] {
        let mut out = [0; 64];
        for (i, pixel) in out.iter_mut().enumerate() {
            let (y, x) = (i / 8, i % 8);
            let from = if self == Self::Upright { i } else { (7 - x) * 8 + y };
            *pixel = digit.pixels.get(from).copied().unwrap_or(0);
        }
        out
    }
}

/// A count of the header.
const fn count(at: usize) -> usize {
    match FILE.split_at_checked(at) {
        Some((_, [low, high, ..])) => u16::from_le_bytes([*low, *high]) as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_documented() {
        assert_eq!((DEVICE.len(), TEST.len()), (400, 397));
        for n in 0..TEST.len() {
            let digit = TEST.get(n);
            assert!(digit.label < 10 && digit.pixels.len() == 64 && digit.pixels.iter().all(|&p| p <= 16));
        }
    }

    #[test]
    fn four_turns_are_none() {
        let digit = TEST.get(5);
        let mut pixels = View::Upright.of(digit);
        for _ in 0..4 {
            assert_ne!(View::Turned.of(Digit { pixels: &pixels, label: 0 }), pixels);
            pixels = View::Turned.of(Digit { pixels: &pixels, label: 0 });
        }
        assert_eq!(&pixels[..], digit.pixels);
    }
}
