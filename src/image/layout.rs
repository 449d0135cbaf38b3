//! Where every field stands. Reader and emitter share these constants; `docs/image-format.md` explains them.
//!
//! ```text
//! head  (first, under its own CRC, parsed by const fn at compile time and at run time)
//!
//!   0        4      6      8           12          16     18     20           24          28
//!   +--------+------+------+-----------+-----------+------+------+------------+-----------+----------+
//!   | "RKLT" | ver  | kind | head len  | total len | sect | spec | payload    | security  | reserved |
//!   |        | u16  | u16  | u32       | u32       | u16  | u16  | CRC-32 u32 | version   | u32 = 0  |
//!   +--------+------+------+-----------+-----------+------+------+------------+-----------+----------+
//!  32                                  48                                      64
//!   +-----------------------------------+---------------------------------------+
//!   | source fingerprint, 16 bytes      | image fingerprint, 16 bytes           |
//!   +-----------------------------------+---------------------------------------+
//!  64                    64 + 32·sect           64 + 32·sect + spec      head len − 4    head len
//!   +---------------------+----------------------+------------------------+---------------+
//!   | directory entries   | spec                 | zeros                  | head CRC-32   |
//!   +---------------------+----------------------+------------------------+---------------+
//!
//! directory entry (32 bytes)
//!
//!   0      2      4       5       6          8        12       16     20     24             32
//!   +------+------+-------+-------+----------+--------+--------+------+------+--------------+
//!   | kind | site | dtype | order | exponent | offset | length | rows | cols | reserved = 0 |
//!   | u16  | u16  | u8    | u8    | i16      | u32    | u32    | u32  | u32  | 8 bytes      |
//!   +------+------+-------+-------+----------+--------+--------+------+------+--------------+
//!
//! payload: sections in the directory's order, each at a multiple of 16, zeros between
//! trailer: whatever stands behind the total length; reserved for a signature over everything before it
//! ```

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"RKLT";
/// The version of this layout. Not the crate's version.
pub const VERSION: u16 = 1;
/// Alignment of the image in memory and of every section in it.
pub const ALIGN: usize = 16;
/// The fixed part of the head.
pub const HEADER: usize = 64;
/// One directory entry.
pub const ENTRY: usize = 32;
/// "There is no such section", where a spec names sections by index.
pub const NONE: u16 = 0xFFFF;
/// A section kind with this bit may be skipped by a reader that does not know it; any other unknown kind is refused.
pub const SKIPPABLE: u16 = 0x8000;

pub(crate) const AT_VERSION: usize = 4;
pub(crate) const AT_KIND: usize = 6;
pub(crate) const AT_HEAD_LEN: usize = 8;
pub(crate) const AT_TOTAL_LEN: usize = 12;
pub(crate) const AT_SECTIONS: usize = 16;
pub(crate) const AT_SPEC_LEN: usize = 18;
pub(crate) const AT_PAYLOAD_CRC: usize = 20;
pub(crate) const AT_SECURITY: usize = 24;
pub(crate) const AT_RESERVED: usize = 28;
pub(crate) const AT_SOURCE: usize = 32;
pub(crate) const AT_IMAGE: usize = 48;

pub(crate) const ENTRY_KIND: usize = 0;
pub(crate) const ENTRY_SITE: usize = 2;
pub(crate) const ENTRY_DTYPE: usize = 4;
pub(crate) const ENTRY_ORDER: usize = 5;
pub(crate) const ENTRY_EXPONENT: usize = 6;
pub(crate) const ENTRY_OFFSET: usize = 8;
pub(crate) const ENTRY_LENGTH: usize = 12;
pub(crate) const ENTRY_ROWS: usize = 16;
pub(crate) const ENTRY_COLS: usize = 20;
pub(crate) const ENTRY_RESERVED: usize = 24;

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// A frozen, quantized base model.
    Base = 1,
    /// A low-rank adapter of one base.
    Adapter = 2,
}

/// What a section holds. Numbers with [`SKIPPABLE`] are information that inference does not need.
pub mod section {
    use super::SKIPPABLE;

    /// Weights of one linear layer, (outputs, inputs).
    pub const WEIGHT: u16 = 1;
    /// Their row scales: u16 mantissas, (outputs).
    pub const ROW_SCALE: u16 = 2;
    /// A bias: i32 mantissas, (outputs).
    pub const BIAS: u16 = 3;
    /// Group scales of 4-bit weights: u8, (outputs, ⌈inputs/32⌉).
    pub const GROUP_SCALE: u16 = 4;
    /// Input normalisation, the mean: i32 mantissas, (features).
    pub const INPUT_MEAN: u16 = 5;
    /// Input normalisation, the factor (one over the deviation): i32 mantissas, (features).
    pub const INPUT_SCALE: u16 = 6;
    /// A norm's weight: i32 mantissas, (width).
    pub const NORM_WEIGHT: u16 = 7;
    /// Rotary positions: the angle a position of each frequency, in 2^-32 turns, (head_dim/2).
    pub const ROPE: u16 = 8;
    /// Relative positions: what a bucket adds to a score, in 2^-16 octaves, (heads, buckets).
    pub const RELATIVE_BIAS: u16 = 9;
    /// Relative positions: the bucket of a distance: u8, (directions, distances).
    pub const BUCKETS: u16 = 10;
    /// An adapter's table of [`LoraRecord`](crate::image::LoraRecord)s.
    pub const LORA_RECORDS: u16 = 16;
    /// An adapter's high plane: what the kernels read.
    pub const LORA_HIGH: u16 = 17;
    /// An adapter's low plane: what training continues from.
    pub const LORA_LOW: u16 = SKIPPABLE | 18;
    /// Names of the sites, UTF-8, one a line.
    pub const NAMES: u16 = SKIPPABLE | 32;
    /// A JSON object: where this came from, label names, the fields of a PEFT configuration.
    pub const METADATA: u16 = SKIPPABLE | 33;
    /// The bytes that each token of a language model writes: see [`Vocabulary`](crate::image::Vocabulary).
    pub const VOCABULARY: u16 = SKIPPABLE | 34;
    /// Reserved: the optimizer's state of a checkpoint (first moment, second moment, exponents).
    pub const OPTIMIZER: [u16; 3] = [SKIPPABLE | 19, SKIPPABLE | 20, SKIPPABLE | 21];

    /// Whether this version may only step over it.
    #[must_use]
    pub const fn is_skipped(kind: u16) -> bool {
        kind & SKIPPABLE != 0 && !matches!(kind, LORA_LOW | NAMES | METADATA | VOCABULARY)
    }

    /// Whether this version knows what to do with it.
    #[must_use]
    pub const fn is_known(kind: u16) -> bool {
        matches!(kind, WEIGHT..=BUCKETS | LORA_RECORDS | LORA_HIGH) || kind & SKIPPABLE != 0
    }
}

/// How the elements of a section are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Dtype {
    /// Opaque bytes: rows = 1, cols = length.
    Bytes = 0,
    /// Signed, 8 bits.
    I8 = 1,
    /// Signed, 16 bits.
    I16 = 2,
    /// Signed, 32 bits.
    I32 = 3,
    /// Unsigned, 8 bits.
    U8 = 4,
    /// Unsigned, 16 bits.
    U16 = 5,
    /// Two 4-bit weights a byte, each row padded to a byte.
    I4 = 6,
}

impl Dtype {
    /// From its code in a directory entry.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Dtype> {
        Some(match code {
            0 => Dtype::Bytes,
            1 => Dtype::I8,
            2 => Dtype::I16,
            3 => Dtype::I32,
            4 => Dtype::U8,
            5 => Dtype::U16,
            6 => Dtype::I4,
            _ => return None,
        })
    }

    /// Bytes of a `(rows, cols)` tensor; `None` where that leaves 64 bits.
    #[must_use]
    pub const fn bytes(self, rows: u32, cols: u32) -> Option<u64> {
        let row = match self {
            Dtype::Bytes | Dtype::I8 | Dtype::U8 => cols as u64,
            Dtype::I16 | Dtype::U16 => cols as u64 * 2,
            Dtype::I32 => cols as u64 * 4,
            Dtype::I4 => (cols as u64).div_ceil(2),
        };
        row.checked_mul(rows as u64)
    }
}

/// The order in which a weight matrix is stored. Every core reads every order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Order {
    /// (outputs, inputs), row by row. The only order of version 1; interleaved ones will have numbers of their own.
    RowMajor = 0,
}

impl Order {
    /// From its code in a directory entry.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Order> {
        match code {
            0 => Some(Order::RowMajor),
            _ => None,
        }
    }
}

/// Whose weights these are. 128 bits of SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fingerprint(pub [u8; 16]);

impl core::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// `x` rounded up to a multiple of [`ALIGN`].
#[must_use]
pub const fn align_up(x: usize) -> usize {
    x.next_multiple_of(ALIGN)
}

/// CRC-32/ISO-HDLC, the one of zip and Ethernet.
pub(crate) static CRC: crc::Crc<u32, Tables> = crc::Crc::<u32, Tables>::new(&crc::CRC_32_ISO_HDLC);

/// The tables that the checksum is computed with: 1 KiB, a byte at a time; under an operating system 16 KiB, 16 bytes at a
/// time, for images of hundreds of megabytes. The checksum is the same.
#[cfg(target_os = "none")]
pub(crate) type Tables = crc::Table<1>;
#[cfg(not(target_os = "none"))]
pub(crate) type Tables = crc::Table<16>;

/// Little-endian fields of a byte string; `None` beyond its end.
pub(crate) const fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    match array_at::<2>(bytes, at) {
        Some(b) => Some(u16::from_le_bytes(*b)),
        None => None,
    }
}

pub(crate) const fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    match array_at::<4>(bytes, at) {
        Some(b) => Some(u32::from_le_bytes(*b)),
        None => None,
    }
}

pub(crate) const fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    match array_at::<1>(bytes, at) {
        Some(b) => Some(b[0]),
        None => None,
    }
}

pub(crate) const fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    match bytes.split_at_checked(at) {
        Some((_, tail)) => tail.first_chunk::<N>(),
        None => None,
    }
}

/// Whether `bytes[from .. to]` are all there and all 0: reserved, and used by no later version.
pub(crate) const fn zeros_at(bytes: &[u8], from: usize, to: usize) -> bool {
    let Some(mut rest) = slice_at(bytes, from, to.saturating_sub(from)) else {
        return false;
    };
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != 0 {
            return false;
        }
        rest = tail;
    }
    true
}

/// `bytes[at .. at + len]`, or `None`.
pub(crate) const fn slice_at(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    match bytes.split_at_checked(at) {
        Some((_, tail)) => match tail.split_at_checked(len) {
            Some((part, _)) => Some(part),
            None => None,
        },
        None => None,
    }
}
