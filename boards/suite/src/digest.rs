//! One number for many results: equal on every machine if and, but for chance, only if all results were equal.

/// FNV-1a of 64 bits, over little-endian bytes. It finds differences; it is no defence against an enemy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The digest of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Takes in mantissas.
    pub fn i16s(&mut self, values: &[i16]) {
        for value in values {
            self.bytes(&value.to_le_bytes());
        }
    }

    /// Takes in accumulators or masters.
    pub fn i32s(&mut self, values: &[i32]) {
        for value in values {
            self.bytes(&value.to_le_bytes());
        }
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.0
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn agrees_with_published_fnv1a_vectors() {
        for (text, value) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            let mut digest = Digest::new();
            digest.bytes(text.as_bytes());
            assert_eq!(digest.value(), value, "{text:?}");
        }
    }

    #[test]
    fn numbers_enter_as_little_endian_bytes() {
        let (mut numbers, mut bytes) = (Digest::new(), Digest::new());
        numbers.i16s(&[-2, 0x0102]);
        numbers.i32s(&[0x0304_0506]);
        bytes.bytes(&[0xfe, 0xff, 0x02, 0x01, 0x06, 0x05, 0x04, 0x03]);
        assert_eq!(numbers, bytes);
    }
}
