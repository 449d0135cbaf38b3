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

/// A section's entry in the directory: all of it but the bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry {
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
}

impl NewEntry {
    /// Bytes of the section; beyond what any image holds where the shape leaves 64 bits.
    const fn len(&self) -> u64 {
        match self.dtype.bytes(self.rows, self.cols) {
            Some(len) => len,
            None => u64::MAX,
        }
    }
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

    /// What the directory says of it.
    #[must_use]
    pub const fn entry(&self) -> NewEntry {
        let NewSection { kind, site, dtype, order, exponent, rows, cols, .. } = *self;
        NewEntry { kind, site, dtype, order, exponent, rows, cols }
    }
}

/// An image to be written, by one who holds all its sections at once; see [`Payload`] for one who does not.
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
        head_len(self.sections.len(), self.spec.len())
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
            if s.entry().len() != s.data.len() as u64 {
                return Err(EmitError::Shape { index });
            }
        }
        let fields = Fields {
            kind: self.kind,
            source: self.source,
            image: self.image,
            spec: self.spec,
            payload_crc: self.payload_crc(),
        };
        fields.write_head(self.sections.iter().map(NewSection::entry), out)?;
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

/// The head of an image whose [`Payload`] has been written already.
#[derive(Clone, Copy, Debug)]
pub struct NewHead<'a> {
    /// Base or adapter.
    pub kind: Kind,
    /// See [`Head::source`](super::Head::source).
    pub source: Fingerprint,
    /// See [`Head::image`](super::Head::image).
    pub image: Fingerprint,
    /// The spec's bytes.
    pub spec: &'a [u8],
    /// What [`Payload::push`] told of each section, in that order.
    pub entries: &'a [NewEntry],
    /// What [`Payload::finish`] told.
    pub payload_crc: u32,
}

impl NewHead<'_> {
    /// Writes the head: the payload stands right behind it.
    ///
    /// # Errors
    /// Nothing has been written unless the error is [`EmitError::Write`].
    pub fn write_to<W: Write>(&self, out: &mut W) -> Result<(), EmitError<W::Error>> {
        let NewHead { kind, source, image, spec, entries, payload_crc } = *self;
        Fields { kind, source, image, spec, payload_crc }.write_head(entries.iter().copied(), out)
    }
}

/// The payload of an image, one section after the other, for one who does not hold all of them at once. The head stands
/// in front of it and holds its checksum, so it is written after it, to another place: [`NewHead`].
#[derive(Debug)]
pub struct Payload<W> {
    out: W,
    crc: Crc,
    sections: usize,
}

impl<W: Write> Payload<W> {
    /// Of no sections yet.
    #[must_use]
    pub fn new(out: W) -> Payload<W> {
        Payload { out, crc: Crc(CRC.digest()), sections: 0 }
    }

    /// Writes the next section; returns its entry for the head.
    ///
    /// # Errors
    /// Nothing has been written unless the error is [`EmitError::Write`].
    pub fn push(&mut self, section: &NewSection<'_>) -> Result<NewEntry, EmitError<W::Error>> {
        let (entry, data) = (section.entry(), section.data);
        if entry.len() != data.len() as u64 {
            return Err(EmitError::Shape { index: self.sections });
        }
        for part in [data, padding(data.len())] {
            self.crc.0.update(part);
            self.out.write_all(part).map_err(EmitError::Write)?;
        }
        self.sections += 1;
        Ok(entry)
    }

    /// The writer, and the checksum of what went into it.
    #[must_use]
    pub fn finish(self) -> (W, u32) {
        (self.out, self.crc.0.finalize())
    }
}

/// The checksum while it grows.
struct Crc(crc::Digest<'static, u32, Tables>);

impl core::fmt::Debug for Crc {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Crc")
    }
}

/// What a head says beside its directory.
struct Fields<'a> {
    kind: Kind,
    source: Fingerprint,
    image: Fingerprint,
    spec: &'a [u8],
    payload_crc: u32,
}

impl Fields<'_> {
    fn write_head<W: Write>(
        &self,
        entries: impl ExactSizeIterator<Item = NewEntry> + Clone,
        out: &mut W,
    ) -> Result<(), EmitError<W::Error>> {
        let head_len = head_len(entries.len(), self.spec.len());
        let total = entries
            .clone()
            .try_fold(head_len as u64, |at, e| at.checked_add(e.len())?.checked_next_multiple_of(ALIGN as u64));
        let (Some(Ok(total)), Ok(sections), Ok(spec)) =
            (total.map(u32::try_from), u16::try_from(entries.len()), u16::try_from(self.spec.len()))
        else {
            return Err(EmitError::TooLarge);
        };
        let used = HEADER + ENTRY * entries.len() + self.spec.len() + 4;
        let mut head = Summed { out, digest: CRC.digest() };
        head.put(&MAGIC)?;
        head.put(&VERSION.to_le_bytes())?;
        head.put(&(self.kind as u16).to_le_bytes())?;
        head.put(&(head_len as u32).to_le_bytes())?;
        head.put(&total.to_le_bytes())?;
        head.put(&sections.to_le_bytes())?;
        head.put(&spec.to_le_bytes())?;
        head.put(&self.payload_crc.to_le_bytes())?;
        head.put(&[0; 8])?; // security version, reserved
        head.put(&self.source.0)?;
        head.put(&self.image.0)?;
        let mut at = head_len;
        for e in entries {
            let len = e.len() as usize; // Below `total`.
            head.put(&e.kind.to_le_bytes())?;
            head.put(&e.site.to_le_bytes())?;
            head.put(&[e.dtype as u8, e.order as u8])?;
            head.put(&e.exponent.to_le_bytes())?;
            head.put(&(at as u32).to_le_bytes())?;
            head.put(&(len as u32).to_le_bytes())?;
            head.put(&e.rows.to_le_bytes())?;
            head.put(&e.cols.to_le_bytes())?;
            head.put(&[0; 8])?;
            at = align_up(at + len);
        }
        head.put(self.spec)?;
        head.put(padding(used))?;
        let crc = head.digest.finalize().to_le_bytes();
        out.write_all(&crc).map_err(EmitError::Write)
    }
}

/// Bytes of a head.
const fn head_len(sections: usize, spec: usize) -> usize {
    align_up(HEADER + ENTRY * sections + spec + 4)
}

/// A writer that keeps the CRC of what went through.
struct Summed<'w, W> {
    out: &'w mut W,
    digest: crc::Digest<'static, u32, Tables>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Section by section with the head afterwards, or all at once: the same bytes; and the same refusals.
    #[test]
    fn both_ways_write_the_same_image() {
        let weights = NewSection {
            kind: section::WEIGHT,
            site: 3,
            dtype: Dtype::I16,
            rows: 3,
            cols: 5,
            ..NewSection::bytes(0, &[7; 30])
        };
        let sections = [NewSection::bytes(section::METADATA, b"{}"), weights, NewSection::bytes(section::NAMES, &[])];
        let (kind, source, image, spec) = (Kind::Base, Fingerprint([1; 16]), Fingerprint([2; 16]), &[9; 37]);
        let whole = NewImage { kind, source, image, spec, sections: &sections };
        let mut expected = vec![0; whole.total_len()];
        whole.write_to(&mut &mut expected[..]).unwrap();

        let (mut found, mut behind) = (vec![0; whole.head_len()], vec![0; whole.total_len() - whole.head_len()]);
        let mut payload = Payload::new(&mut behind[..]);
        let entries: Vec<NewEntry> = sections.iter().map(|s| payload.push(s).unwrap()).collect();
        let short = NewSection { rows: 4, ..weights };
        assert!(matches!(payload.push(&short), Err(EmitError::Shape { index: 3 })));
        let (rest, payload_crc) = payload.finish();
        assert!(rest.is_empty());
        let head = NewHead { kind, source, image, spec, entries: &entries, payload_crc };
        head.write_to(&mut &mut found[..]).unwrap();
        found.append(&mut behind);
        assert_eq!(found, expected);

        let huge = NewEntry { rows: u32::MAX, cols: u32::MAX, ..weights.entry() };
        let many = NewHead { entries: &[huge, huge], ..head };
        assert!(matches!(many.write_to(&mut &mut found[..]), Err(EmitError::TooLarge)));
    }
}
