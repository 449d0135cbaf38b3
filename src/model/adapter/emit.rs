//! The emitter of adapter images, for a converter on the host and for a learner on the device.

use super::LORA_SPEC;
use crate::image::layout::{Dtype, NONE, section};
use crate::image::{EmitError, Fingerprint, Kind, LoraRecord, NewImage, NewSection, Order};
use zerocopy::IntoBytes;

/// The parts of an adapter image: what a learner holds, and what a converter makes.
#[derive(Clone, Copy, Debug)]
pub struct AdapterParts<'a> {
    /// Of the base's checkpoint.
    pub source: Fingerprint,
    /// Of the base's image.
    pub image: Fingerprint,
    /// In ascending order of their sites.
    pub records: &'a [LoraRecord],
    /// The rounded upper halves of A and B.
    pub high: &'a [i16],
    /// The signed lower halves; empty for an adapter that will only be used.
    pub low: &'a [i16],
    /// A JSON object, or nothing.
    pub metadata: &'a [u8],
}

impl AdapterParts<'_> {
    /// Writes the image.
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn write_to<W: embedded_io::Write>(&self, out: &mut W) -> Result<(), EmitError<W::Error>> {
        let plane = |kind, values: &[i16]| NewSection {
            kind,
            site: NONE,
            dtype: Dtype::I16,
            order: Order::RowMajor,
            exponent: 0,
            rows: 1,
            cols: values.len() as u32,
            data: &[],
        };
        let mut sections = heapless::Vec::<NewSection<'_>, 4>::new();
        let mut add = |section| sections.push(section).map_err(|_| EmitError::TooLarge);
        add(NewSection::bytes(section::LORA_RECORDS, self.records.as_bytes()))?;
        add(NewSection { data: self.high.as_bytes(), ..plane(section::LORA_HIGH, self.high) })?;
        // What is empty is left out: an image says only what it holds.
        if !self.low.is_empty() {
            add(NewSection { data: self.low.as_bytes(), ..plane(section::LORA_LOW, self.low) })?;
        }
        if !self.metadata.is_empty() {
            add(NewSection::bytes(section::METADATA, self.metadata))?;
        }
        let (kind, spec) = (Kind::Adapter, &LORA_SPEC);
        NewImage { kind, source: self.source, image: self.image, spec, sections: &sections }.write_to(out)
    }
}
