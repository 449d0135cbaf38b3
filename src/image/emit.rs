//! The emitter: the only code that writes images, on the host and on a device.

use super::layout::*;
use embedded_io::Write;

/// A section to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewSection<'a> {
    /// See [`section`].
    pub kind: u16,
    /// The linear layer it belongs to, or [`NONE`].
    pub site: u16,
    /// Element type.
    pub dtype: Dtype,
    /// How its elements are laid out.
    pub order: Order,
    /// Of all its values.
    pub exponent: i16,
    /// First dimension.
    pub rows: u32,
    /// Second dimension.
    pub cols: u32,
    /// Its bytes, little-endian; as many as `dtype`, `rows` and `cols` say.
    pub data: &'a [u8],
}

impl<'a> NewSection<'a> {
    /// A section of opaque bytes that belongs to no layer.
    #[must_use]
    pub const fn bytes(kind: u16, data: &'a [u8]) -> NewSection<'a> {
        NewSection {
            kind,
            site: NONE,
            dtype: Dtype::Bytes,
            order: Order::RowMajor,
            exponent: 0,
            rows: 1,
            cols: data.len() as u32,
            data,
        }
    }
}

/// An image to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// Base or adapter.
    pub kind: Kind,
    /// See [`Head::source`](super::Head::source).
    pub source: Fingerprint,
    /// See [`Head::image`](super::Head::image).
    pub image: Fingerprint,
    /// The spec's bytes.
    pub spec: &'a [u8],
    /// In the order in which they are to stand.
    pub sections: &'a [NewSection<'a>],
}

/// Why an image cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EmitError<E> {
    /// A section's data has another length than its shape.
    Shape {
        /// Its index.
        index: usize,
    },
    /// More than 65535 sections, a spec beyond 64 KiB, or an image beyond 4 GiB.
    TooLarge,
    /// The writer failed.
    Write(E),
}

impl<E: core::fmt::Debug> core::fmt::Display for EmitError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            EmitError::Shape { index } => write!(f, "section {index}: its data has another length than its shape"),
            EmitError::TooLarge => write!(f, "more sections, spec or bytes than the format can hold"),
            EmitError::Write(e) => write!(f, "writing failed: {e:?}"),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for EmitError<E> {}

impl NewImage<'_> {
    /// Bytes of the head.
    #[must_use]
    pub const fn head_len(&self) -> usize {
        align_up(HEADER + ENTRY * self.sections.len() + self.spec.len() + 4)
    }

    /// Bytes of the image.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.sections.iter().fold(self.head_len(), |at, s| align_up(at + s.data.len()))
    }

    /// Writes the image, front to back.
    ///
    /// # Errors
    /// Nothing has been written unless the error is [`EmitError::Write`].
    pub fn write_to<W: Write>(&self, out: &mut W) -> Result<(), EmitError<W::Error>> {
        for (index, s) in self.sections.iter().enumerate() {
            if s.dtype.bytes(s.rows, s.cols) != Some(s.data.len() as u64) {
                return Err(EmitError::Shape { index });
            }
        }
        let (Ok(total), Ok(sections), Ok(spec)) =
            (u32::try_from(self.total_len()), u16::try_from(self.sections.len()), u16::try_from(self.spec.len()))
        else {
            return Err(EmitError::TooLarge);
        };

        let mut head = Summed { out, digest: CRC.digest() };
        head.put(&MAGIC)?;
        head.put(&VERSION.to_le_bytes())?;
        head.put(&(self.kind as u16).to_le_bytes())?;
        head.put(&(self.head_len() as u32).to_le_bytes())?;
        head.put(&total.to_le_bytes())?;
        head.put(&sections.to_le_bytes())?;
        head.put(&spec.to_le_bytes())?;
        head.put(&self.payload_crc().to_le_bytes())?;
        head.put(&[0; 8])?; // security version, reserved
        head.put(&self.source.0)?;
        head.put(&self.image.0)?;
        let mut at = self.head_len();
        for s in self.sections {
            head.put(&s.kind.to_le_bytes())?;
            head.put(&s.site.to_le_bytes())?;
            head.put(&[s.dtype as u8, s.order as u8])?;
            head.put(&s.exponent.to_le_bytes())?;
            head.put(&(at as u32).to_le_bytes())?;
            head.put(&(s.data.len() as u32).to_le_bytes())?;
            head.put(&s.rows.to_le_bytes())?;
            head.put(&s.cols.to_le_bytes())?;
            head.put(&[0; 8])?;
            at = align_up(at + s.data.len());
        }
        head.put(self.spec)?;
        let used = HEADER + ENTRY * self.sections.len() + self.spec.len() + 4;
        head.put(padding(used))?;
        let crc = head.digest.finalize().to_le_bytes();
        out.write_all(&crc).map_err(EmitError::Write)?;

        for s in self.sections {
            out.write_all(s.data).map_err(EmitError::Write)?;
            out.write_all(padding(s.data.len())).map_err(EmitError::Write)?;
        }
        Ok(())
    }

    fn payload_crc(&self) -> u32 {
        let mut digest = CRC.digest();
        for s in self.sections {
            digest.update(s.data);
            digest.update(padding(s.data.len()));
        }
        digest.finalize()
    }
}

/// A writer that keeps the CRC of what went through.
struct Summed<'w, W> {
    out: &'w mut W,
    digest: crc::Digest<'static, u32>,
}

impl<W: Write> Summed<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), EmitError<W::Error>> {
        self.digest.update(bytes);
        self.out.write_all(bytes).map_err(EmitError::Write)
    }
}

/// The zeros from `len` to the next multiple of 16.
fn padding(len: usize) -> &'static [u8] {
    const ZEROS: [u8; ALIGN] = [0; ALIGN];
    ZEROS.get(..align_up(len) - len).unwrap_or(&[])
}
