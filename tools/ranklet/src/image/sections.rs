//! A base image while it is put together: sections go to a temporary file as they come, so that memory holds one of them.
//!
//! The head stands in front, and its length, checksums and fingerprints are known last: the finished image is that head
//! and then the temporary file's bytes.

use super::Sink;
use super::base::{Converted, LayerReport};
use anyhow::{Context, Result, ensure};
use ranklet::image::layout::{Dtype, NONE, SKIPPABLE, section};
use ranklet::image::{Fingerprint, Kind, NewEntry, NewHead, NewSection, Order, Payload};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use tempfile::SpooledTempFile;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 18;

/// Where sections wait until the image is written.
#[derive(Debug)]
pub struct Spool(SpooledTempFile);

impl Spool {
    /// In memory: for small models.
    #[must_use]
    pub fn memory() -> Spool {
        Spool(SpooledTempFile::new(usize::MAX))
    }

    /// In a nameless file of the directory in which `output` will stand, where there has to be room for it anyway; it is
    /// gone when the conversion ends, however it ends. (Directories for temporary files are often kept in memory.)
    #[must_use]
    pub fn beside(output: &Path) -> Spool {
        let directory = output.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Spool(SpooledTempFile::new_in(PIECE, directory))
    }
}

/// A section to be added.
pub(super) struct Part {
    kind: u16,
    site: u16,
    dtype: Dtype,
    exponent: i16,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
}

/// A section of a layer, or, with [`NONE`], of none.
pub(super) fn part(kind: u16, site: u16, dtype: Dtype, exponent: i16, rows: usize, cols: usize, data: Vec<u8>) -> Part {
    Part { kind, site, dtype, exponent, rows, cols, data }
}

/// The sections so far.
pub(super) struct Sections {
    entries: Vec<NewEntry>,
    payload: Payload<Sink<SpooledTempFile>>,
}

impl Sections {
    pub(super) fn new(spool: Spool) -> Sections {
        Sections { entries: vec![], payload: Payload::new(Sink(spool.0)) }
    }

    /// Adds one and returns its index in the directory.
    pub(super) fn push(&mut self, part: Part) -> Result<u16> {
        let index = u16::try_from(self.entries.len()).context("more sections than an image can hold, 65535")?;
        let Part { kind, site, dtype, exponent, rows, cols, data } = part;
        let (rows, cols) = (rows as u32, cols as u32);
        let new = NewSection { kind, site, dtype, order: Order::RowMajor, exponent, rows, cols, data: &data };
        self.entries.push(self.payload.push(&new).context("cannot write the image's sections to a temporary file")?);
        Ok(index)
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) -> Result<()> {
        let data = text.as_bytes().to_vec();
        self.push(part(kind, NONE, Dtype::Bytes, 0, 1, data.len(), data)).map(|_| ())
    }

    /// Closes the image.
    ///
    /// The `image` fingerprint is the truncated SHA-256 of the image as it stands with that field zero (and the head's CRC
    /// to match): so that anybody can compute it from a finished file.
    pub(super) fn finish(self, source: Fingerprint, spec: &[u8], layers: Vec<LayerReport>) -> Result<Unwritten> {
        let Sections { entries, payload } = self;
        let (Sink(payload), payload_crc) = payload.finish();
        let head = |image| -> Result<Vec<u8>> {
            let mut out = Sink::default();
            let new = NewHead { kind: Kind::Base, source, image, spec, entries: &entries, payload_crc };
            new.write_to(&mut out).context("cannot write the image")?;
            Ok(out.0)
        };
        let (image, parameters) = (Fingerprint::default(), parameters(&entries));
        let head_bytes = head(image)?;
        let mut unwritten = Unwritten { source, image, layers, parameters, head: head_bytes, entries: vec![], payload };
        let mut hash = Sha256::new();
        unwritten.pieces(|piece| {
            hash.update(piece);
            Ok(())
        })?;
        unwritten.image.0.iter_mut().zip(hash.finalize().iter()).for_each(|(o, h)| *o = *h);
        unwritten.head = head(unwritten.image)?;
        unwritten.entries = entries;
        Ok(unwritten)
    }
}

/// Parameters, counted as PyTorch counts them: see [`super::parameters`], which reads them from the finished image.
fn parameters(entries: &[NewEntry]) -> u64 {
    let counted = [section::WEIGHT, section::BIAS, section::NORM_WEIGHT, section::RELATIVE_BIAS];
    let counted = entries.iter().filter(|e| counted.contains(&e.kind));
    counted.map(|e| u64::from(e.rows) * u64::from(e.cols)).sum()
}

/// A base image that is complete, but for being written to its place.
#[derive(Debug)]
pub struct Unwritten {
    /// Of the checkpoint.
    pub source: Fingerprint,
    /// Of the image's bytes.
    pub image: Fingerprint,
    /// One a layer.
    pub layers: Vec<LayerReport>,
    /// Weights and biases, tables, norms and relative biases.
    pub parameters: u64,
    head: Vec<u8>,
    entries: Vec<NewEntry>,
    payload: SpooledTempFile,
}

impl Unwritten {
    /// Writes it, front to back; returns how many bytes that were.
    ///
    /// # Errors
    /// Those of reading the temporary file back, and of writing.
    pub fn write_to(&mut self, out: &mut impl Write) -> Result<u64> {
        self.pieces(|piece| out.write_all(piece))
    }

    /// In memory.
    ///
    /// # Errors
    /// As [`write_to`](Unwritten::write_to).
    pub fn into_memory(mut self) -> Result<Converted> {
        let mut bytes = vec![];
        self.write_to(&mut bytes)?;
        Ok(Converted { bytes, source: self.source, image: self.image, layers: self.layers })
    }

    /// The image without its weights, which are zeros: enough for whatever reads head, spec and the small sections, and
    /// of a large model next to nothing in memory, for pages of zeros that nobody touches are not there.
    pub(super) fn skeleton(&mut self) -> Result<Vec<u8>> {
        let ends =
            |at: usize, e: &NewEntry| at + (e.dtype.bytes(e.rows, e.cols).unwrap_or(0) as usize).next_multiple_of(16);
        let mut bytes = vec![0; self.entries.iter().fold(self.head.len(), ends)];
        bytes[..self.head.len()].copy_from_slice(&self.head);
        let mut at = self.head.len();
        for e in &self.entries {
            let end = ends(at, e);
            if e.kind != section::WEIGHT && e.kind & SKIPPABLE == 0 {
                self.payload.seek(io::SeekFrom::Start((at - self.head.len()) as u64))?;
                self.payload.read_exact(&mut bytes[at..end]).context("cannot read the temporary file back")?;
            }
            at = end;
        }
        Ok(bytes)
    }

    /// Head and payload in pieces; returns their length, which has to be that of the head's directory.
    fn pieces(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<u64> {
        let back = "cannot read the temporary file back";
        each(&self.head)?;
        let mut done = self.head.len() as u64;
        self.payload.rewind().context(back)?;
        let mut piece = vec![0; PIECE];
        loop {
            match self.payload.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    each(&piece[..n])?;
                    done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context(back),
            }
        }
        let total = self.head.get(12..16).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        ensure!(done == u64::from(total), "the temporary file holds {done} bytes of an image of {total}");
        Ok(done)
    }
}
