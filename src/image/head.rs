//! The head of an image, parsed by one total `const fn`: at compile time for [`Plan`](crate::model::Plan), at run
//! time for [`Model::open`](crate::model::Model::open). Bytes are allegations until they have passed here.

use super::layout::*;
use super::vocabulary::VocabularyProblem;

/// What is wrong with an image, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ImageError {
    /// The first bytes are not "RKLT": this is no ranklet image.
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// An image of another format version: convert it again with a matching `ranklet`.
    Version {
        /// The image's.
        found: u16,
        /// This crate's.
        expected: u16,
    },
    /// An adapter where a base was expected, or the other way round.
    Kind {
        /// The kind field of the image.
        found: u16,
        /// What the call needs.
        expected: Kind,
    },
    /// Fewer bytes than the image says it has: truncated.
    Length {
        /// Bytes the image needs.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The head's length is not that of its directory and spec, or the image's is smaller.
    HeadLength {
        /// As stored.
        stored: usize,
        /// As its counts make it.
        computed: usize,
    },
    /// The bytes do not stand at a multiple of 16: place them with [`include_image!`](crate::include_image).
    Misaligned {
        /// Address modulo 16.
        offset: usize,
    },
    /// The head is damaged.
    HeadCrc {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// The payload is damaged.
    PayloadCrc {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// Bytes of the head that are reserved are not 0: written by a later version.
    Reserved {
        /// The first of the field.
        offset: usize,
    },
    /// A directory entry contradicts itself or the image.
    Section {
        /// Its index in the directory.
        index: u16,
        /// What is wrong.
        problem: SectionProblem,
    },
    /// The spec contradicts itself or the directory.
    Spec {
        /// Offset in the spec.
        offset: usize,
        /// What is wrong.
        problem: SpecProblem,
    },
    /// The vocabulary contradicts itself or the model.
    Vocabulary(VocabularyProblem),
}

/// What is wrong with a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SectionProblem {
    /// A kind that this version does not know and may not skip.
    UnknownKind(u16),
    /// An element type that this version does not know.
    UnknownDtype(u8),
    /// A storage order that this version does not know.
    UnknownOrder(u8),
    /// It reaches beyond the image, into the head, or does not start at a multiple of 16.
    Range,
    /// Its length is not that of its shape.
    Shape,
    /// An exponent beyond ±1024.
    Exponent(i16),
    /// Bytes that are reserved are not 0: written by a later version.
    Reserved,
}

/// What is wrong with a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SpecProblem {
    /// Shorter than its own counts say.
    Truncated,
    /// An architecture, head, activation or role that this version does not know.
    Unknown(u16),
    /// A dimension of 0 or beyond 2^17 (of outputs: 2^18), or none where some are needed.
    Dimension(u32),
    /// One layer's outputs are not the next one's inputs.
    Chain,
    /// It names a section that is missing, or of another kind, type or shape than needed.
    Section(u16),
    /// Bytes that are reserved are not 0, or more follow than this version knows: written by a later one.
    Reserved,
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            ImageError::Magic { found } => {
                write!(f, "not a ranklet image: it starts with {found:02x?}, not with \"RKLT\"")
            }
            ImageError::Version { found, expected } => write!(
                f,
                "image format version {found}, but this build reads version {expected}; convert the checkpoint again"
            ),
            ImageError::Kind { found, expected } => {
                let name = match found {
                    1 => "a base",
                    2 => "an adapter",
                    _ => "an unknown",
                };
                let want = if expected == Kind::Base { "a base" } else { "an adapter" };
                write!(f, "{name} image (kind {found}) where {want} image is needed")
            }
            ImageError::HeadLength { stored, computed } => {
                write!(f, "damaged head: it says it has {stored} bytes, its directory and spec make {computed}")
            }
            ImageError::Length { needed, available } => {
                write!(f, "truncated: the image needs {needed} bytes, there are {available}")
            }
            ImageError::Misaligned { offset } => {
                write!(f, "the image stands {offset} bytes off a multiple of 16; place it with include_image!")
            }
            ImageError::HeadCrc { stored, computed } => {
                write!(f, "damaged head: CRC-32 {computed:08x}, stored {stored:08x}")
            }
            ImageError::PayloadCrc { stored, computed } => {
                write!(f, "damaged payload: CRC-32 {computed:08x}, stored {stored:08x}")
            }
            ImageError::Reserved { offset } => {
                write!(f, "reserved bytes from {offset} on are not 0: the image was written by a later version")
            }
            ImageError::Section { index, problem } => write!(f, "directory entry {index}: {problem:?}"),
            ImageError::Spec { offset, problem } => write!(f, "spec, byte {offset}: {problem:?}"),
            ImageError::Vocabulary(problem) => write!(f, "vocabulary: {problem}"),
        }
    }
}

impl core::error::Error for ImageError {}

/// A parsed head. What it says about lengths, sections and checksums of the head has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Base or adapter.
    pub kind: Kind,
    /// Bytes of the head, CRC included.
    pub head_len: usize,
    /// Bytes of the image.
    pub total_len: usize,
    /// Entries in the directory.
    pub sections: u16,
    /// Bytes of the spec.
    pub spec_len: usize,
    /// CRC-32 of everything behind the head.
    pub payload_crc: u32,
    /// Reserved for rollback protection; 0.
    pub security_version: u32,
    /// Of the checkpoint's weights and spec, independent of weight type and layout. An adapter must match its base.
    pub source: Fingerprint,
    /// Of exactly these bytes (base), or of the base image an adapter was made with (adapter).
    pub image: Fingerprint,
}

/// One directory entry, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Section {
    /// See [`section`].
    pub kind: u16,
    /// The linear layer it belongs to, or [`NONE`].
    pub site: u16,
    /// Element type.
    pub dtype: Dtype,
    /// How its elements are laid out.
    pub order: Order,
    /// Of all its values: `value = mantissa · 2^exponent`.
    pub exponent: i16,
    /// From the start of the image.
    pub offset: usize,
    /// In bytes.
    pub length: usize,
    /// First dimension.
    pub rows: u32,
    /// Second dimension.
    pub cols: u32,
}

macro_rules! field {
    ($option:expr, $needed:expr, $available:expr) => {
        match $option {
            Some(x) => x,
            None => return Err(ImageError::Length { needed: $needed, available: $available }),
        }
    };
}

impl Head {
    /// Parses and checks the head and the directory; reads nothing behind them.
    ///
    /// # Errors
    /// Any [`ImageError`] but `Misaligned`, `PayloadCrc` and `Spec`.
    pub const fn parse(bytes: &[u8]) -> Result<Head, ImageError> {
        let available = bytes.len();
        let found = *field!(array_at::<4>(bytes, 0), HEADER, available);
        if u32::from_le_bytes(found) != u32::from_le_bytes(MAGIC) {
            return Err(ImageError::Magic { found });
        }
        if available < HEADER {
            return Err(ImageError::Length { needed: HEADER, available });
        }
        let version = field!(u16_at(bytes, AT_VERSION), HEADER, available);
        if version != VERSION {
            return Err(ImageError::Version { found: version, expected: VERSION });
        }
        let kind = match field!(u16_at(bytes, AT_KIND), HEADER, available) {
            1 => Kind::Base,
            2 => Kind::Adapter,
            found => return Err(ImageError::Kind { found, expected: Kind::Base }),
        };
        let head_len = field!(u32_at(bytes, AT_HEAD_LEN), HEADER, available) as usize;
        let total_len = field!(u32_at(bytes, AT_TOTAL_LEN), HEADER, available) as usize;
        let sections = field!(u16_at(bytes, AT_SECTIONS), HEADER, available);
        let spec_len = field!(u16_at(bytes, AT_SPEC_LEN), HEADER, available) as usize;
        let minimum = align_up(HEADER + ENTRY * sections as usize + spec_len + 4);
        if head_len != minimum || total_len < head_len {
            return Err(ImageError::HeadLength { stored: head_len, computed: minimum });
        }
        if available < total_len {
            return Err(ImageError::Length { needed: total_len, available });
        }
        let stored = field!(u32_at(bytes, head_len - 4), head_len, available);
        let computed = CRC.checksum(field!(slice_at(bytes, 0, head_len - 4), head_len, available));
        if stored != computed {
            return Err(ImageError::HeadCrc { stored, computed });
        }
        if !zeros_at(bytes, AT_RESERVED, AT_SOURCE) {
            return Err(ImageError::Reserved { offset: AT_RESERVED });
        }
        let padding = HEADER + ENTRY * sections as usize + spec_len;
        if !zeros_at(bytes, padding, head_len - 4) {
            return Err(ImageError::Reserved { offset: padding });
        }
        let head = Head {
            kind,
            head_len,
            total_len,
            sections,
            spec_len,
            payload_crc: field!(u32_at(bytes, AT_PAYLOAD_CRC), HEADER, available),
            security_version: field!(u32_at(bytes, AT_SECURITY), HEADER, available),
            source: Fingerprint(*field!(array_at::<16>(bytes, AT_SOURCE), HEADER, available)),
            image: Fingerprint(*field!(array_at::<16>(bytes, AT_IMAGE), HEADER, available)),
        };
        let mut index = 0;
        while index < sections {
            if let Err(problem) = head.checked_section(bytes, index) {
                return Err(ImageError::Section { index, problem });
            }
            index += 1;
        }
        Ok(head)
    }

    /// Directory entry `index` of the image that this is the head of; `None` where there is none.
    #[must_use]
    pub const fn section(&self, bytes: &[u8], index: u16) -> Option<Section> {
        if index >= self.sections {
            return None;
        }
        // Checked when the head was parsed: layers are looked up for every token.
        match read_section(bytes, index) {
            Ok(section) => Some(section),
            Err(_) => None,
        }
    }

    /// The first section of a kind.
    #[must_use]
    pub const fn find(&self, bytes: &[u8], kind: u16) -> Option<Section> {
        let mut index = 0;
        while index < self.sections {
            if let Some(section) = self.section(bytes, index)
                && section.kind == kind
            {
                return Some(section);
            }
            index += 1;
        }
        None
    }

    /// The spec's bytes.
    #[must_use]
    pub const fn spec<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match slice_at(bytes, HEADER + ENTRY * self.sections as usize, self.spec_len) {
            Some(spec) => spec,
            None => &[],
        }
    }

    /// The bytes of a section.
    #[must_use]
    pub const fn bytes_of<'a>(&self, bytes: &'a [u8], section: &Section) -> &'a [u8] {
        match slice_at(bytes, section.offset, section.length) {
            Some(part) => part,
            None => &[],
        }
    }

    /// Checks what stands behind the head, and where the image stands in memory.
    ///
    /// # Errors
    /// [`ImageError::Misaligned`], [`ImageError::PayloadCrc`].
    pub fn check_payload(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let offset = bytes.as_ptr().addr() % ALIGN;
        if offset != 0 {
            return Err(ImageError::Misaligned { offset });
        }
        let payload = slice_at(bytes, self.head_len, self.total_len - self.head_len).unwrap_or(&[]);
        let computed = CRC.checksum(payload);
        if computed != self.payload_crc {
            return Err(ImageError::PayloadCrc { stored: self.payload_crc, computed });
        }
        Ok(())
    }

    /// As [`kind`](Head::kind), but an error where it is another.
    ///
    /// # Errors
    /// [`ImageError::Kind`].
    pub const fn expect_kind(&self, expected: Kind) -> Result<(), ImageError> {
        if self.kind as u16 == expected as u16 {
            Ok(())
        } else {
            Err(ImageError::Kind { found: self.kind as u16, expected })
        }
    }

    const fn checked_section(&self, bytes: &[u8], index: u16) -> Result<(), SectionProblem> {
        let section = match read_section(bytes, index) {
            Ok(section) => section,
            Err(problem) => return Err(problem),
        };
        let Section { kind, dtype, exponent, offset, length, rows, cols, .. } = section;
        if !section::is_skipped(kind) {
            if exponent < -1024 || exponent > 1024 {
                return Err(SectionProblem::Exponent(exponent));
            }
            match dtype.bytes(rows, cols) {
                Some(bytes) if bytes == length as u64 => {}
                _ => return Err(SectionProblem::Shape),
            }
            match slice_at(bytes, HEADER + ENTRY * index as usize, ENTRY) {
                Some(entry) if zeros_at(entry, ENTRY_RESERVED, ENTRY) => {}
                _ => return Err(SectionProblem::Reserved),
            }
        }
        if offset % ALIGN != 0 || offset < self.head_len || offset > self.total_len || length > self.total_len - offset
        {
            return Err(SectionProblem::Range);
        }
        Ok(())
    }
}

/// What a directory entry says.
const fn read_section(bytes: &[u8], index: u16) -> Result<Section, SectionProblem> {
    let Some(entry) = slice_at(bytes, HEADER + ENTRY * index as usize, ENTRY) else {
        return Err(SectionProblem::Range);
    };
    let (Some(kind), Some(site), Some(dtype), Some(order), Some(exponent)) = (
        u16_at(entry, ENTRY_KIND),
        u16_at(entry, ENTRY_SITE),
        u8_at(entry, ENTRY_DTYPE),
        u8_at(entry, ENTRY_ORDER),
        u16_at(entry, ENTRY_EXPONENT),
    ) else {
        return Err(SectionProblem::Range);
    };
    let (Some(offset), Some(length), Some(rows), Some(cols)) = (
        u32_at(entry, ENTRY_OFFSET),
        u32_at(entry, ENTRY_LENGTH),
        u32_at(entry, ENTRY_ROWS),
        u32_at(entry, ENTRY_COLS),
    ) else {
        return Err(SectionProblem::Range);
    };
    if !section::is_known(kind) {
        return Err(SectionProblem::UnknownKind(kind));
    }
    let (dtype, order) = if section::is_skipped(kind) {
        (Dtype::Bytes, Order::RowMajor) // Only its place matters.
    } else {
        let Some(dtype) = Dtype::from_code(dtype) else {
            return Err(SectionProblem::UnknownDtype(dtype));
        };
        let Some(order) = Order::from_code(order) else {
            return Err(SectionProblem::UnknownOrder(order));
        };
        (dtype, order)
    };
    let (offset, length) = (offset as usize, length as usize);
    Ok(Section { kind, site, dtype, order, exponent: exponent as i16, offset, length, rows, cols })
}
