//! Adapters: checked once against their base, then used in place, in flash or RAM. [`emit`] writes them.

pub mod emit;

pub use emit::AdapterParts;

use super::Model;
use crate::fixed::Real;
use crate::image::layout::{Dtype, section};
use crate::image::record::RecordProblem;
use crate::image::{Fingerprint, Head, ImageError, Kind, LoraRecord, Section};
use crate::layer::linear::Extras;
use crate::layer::{Dropout, Lora};
use core::ops::Range;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Why an adapter cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum AdapterError {
    /// The image is not a sound adapter image.
    Image(ImageError),
    /// It was made for another checkpoint. Re-quantizing a base does not change its source fingerprint; other
    /// weights or another architecture do.
    Base {
        /// Of the model.
        expected: Fingerprint,
        /// In the adapter.
        found: Fingerprint,
    },
    /// A section that every adapter has is missing, or has another type: its kind.
    Missing(u16),
    /// The spec in the image is not one of an adapter.
    Spec,
    /// A record contradicts the base or the planes.
    Record {
        /// Its index.
        index: usize,
        /// What is wrong.
        problem: RecordProblem,
    },
}

impl core::fmt::Display for AdapterError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AdapterError::Image(e) => e.fmt(f),
            AdapterError::Base { expected, found } => write!(
                f,
                "the adapter was made for the checkpoint {found}, but this base comes from {expected}; \
                 convert the adapter for this base, or flash the base it was made for"
            ),
            AdapterError::Missing(kind) => write!(f, "the adapter image has no (usable) section of kind {kind}"),
            AdapterError::Spec => write!(f, "the image's spec is not that of an adapter"),
            AdapterError::Record { index, problem } => write!(f, "adapter record {index}: {problem:?}"),
        }
    }
}

impl core::error::Error for AdapterError {}

impl From<ImageError> for AdapterError {
    fn from(e: ImageError) -> Self {
        AdapterError::Image(e)
    }
}

/// The architecture field of an adapter image's spec: low-rank pairs. The spec is these two bytes and 14 zeros.
pub const LORA_SPEC: [u8; 16] = [0x01, 0x4C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An adapter image, checked against its base and read in place.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    bytes: &'a [u8],
    head: Head,
    records: &'a [LoraRecord],
    high: &'a [i16],
    low: &'a [i16],
    same_image: bool,
}

impl<'a> Adapter<'a> {
    /// Checks an adapter image once: its bytes, its base, every record. After that no accessor can fail.
    ///
    /// # Errors
    /// See [`AdapterError`]. An adapter made with another quantization of the same checkpoint is welcome;
    /// [`same_image`](Adapter::same_image) tells.
    pub fn open(model: &Model<'_>, bytes: &'a [u8]) -> Result<Adapter<'a>, AdapterError> {
        let head = Head::parse(bytes)?;
        head.expect_kind(Kind::Adapter)?;
        head.check_payload(bytes)?;
        if head.source != model.source() {
            return Err(AdapterError::Base { expected: model.source(), found: head.source });
        }
        if head.spec(bytes) != LORA_SPEC {
            return Err(AdapterError::Spec);
        }
        let records = table(&head, bytes, section::LORA_RECORDS, Dtype::Bytes)?;
        let high = table(&head, bytes, section::LORA_HIGH, Dtype::I16)?;
        let low = match head.find(bytes, section::LORA_LOW) {
            Some(_) => table(&head, bytes, section::LORA_LOW, Dtype::I16)?,
            None => &[],
        };
        if !low.is_empty() && low.len() != high.len() {
            return Err(AdapterError::Missing(section::LORA_LOW));
        }
        check_records(model, records, high.len())?;
        let same_image = head.image == model.head().image;
        Ok(Adapter { bytes, head, records, high, low, same_image })
    }

    /// The adapter at its own scaling.
    #[must_use]
    pub const fn view(&self) -> Active<'a> {
        Active { records: self.records, high: self.high, factor: Real::ONE, source: self.head.source }
    }

    /// The adapter with its scaling multiplied by `factor`; 0 switches it off, a negative one subtracts it.
    #[must_use]
    pub const fn scaled(&self, factor: Real) -> Active<'a> {
        self.view().scaled(factor)
    }

    /// One record a layer, in ascending order of their sites.
    #[must_use]
    pub const fn records(&self) -> &'a [LoraRecord] {
        self.records
    }

    /// The high plane: what inference reads.
    #[must_use]
    pub const fn high(&self) -> &'a [i16] {
        self.high
    }

    /// The low plane: what training continues from; empty where the image holds none.
    #[must_use]
    pub const fn low(&self) -> &'a [i16] {
        self.low
    }

    /// Whether it was made with exactly this base image, not just the same checkpoint.
    #[must_use]
    pub const fn same_image(&self) -> bool {
        self.same_image
    }

    /// The head of the image.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The JSON object of the METADATA section; "" where there is none.
    #[must_use]
    pub fn metadata(&self) -> &'a str {
        let section = self.head.find(self.bytes, section::METADATA);
        core::str::from_utf8(section.map_or(&[], |s| self.head.bytes_of(self.bytes, &s))).unwrap_or("")
    }
}

/// An adapter as one call uses it: a pointer and a factor. Switching between adapters costs nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Active<'a> {
    records: &'a [LoraRecord],
    high: &'a [i16],
    factor: Real,
    source: Fingerprint,
}

impl<'a> Active<'a> {
    /// From parts whose records have been checked against the base of this fingerprint.
    #[cfg(feature = "train")]
    pub(crate) const fn new(records: &'a [LoraRecord], high: &'a [i16], source: Fingerprint) -> Active<'a> {
        Active { records, high, factor: Real::ONE, source }
    }

    /// The same with its scaling multiplied by `factor`.
    #[must_use]
    pub const fn scaled(self, factor: Real) -> Active<'a> {
        Active { factor: self.factor.mul(factor), ..self }
    }

    /// Of the base it belongs to.
    #[must_use]
    pub const fn source(&self) -> Fingerprint {
        self.source
    }

    /// Whether it is a DoRA on any layer.
    #[cfg(feature = "train")]
    pub(crate) fn has_gain(&self) -> bool {
        self.records.iter().any(|r| r.gain_of(self.high).is_some())
    }

    /// Everything that it does on the layers that are `below`.
    #[cfg(all(feature = "train", feature = "store"))]
    pub(crate) fn hash(&self, below: impl Fn(u16) -> bool, digest: &mut crate::fixed::hash::Digest) {
        use zerocopy::IntoBytes;
        digest.word(self.factor.mantissa() as u32);
        digest.word(self.factor.exponent() as u32);
        for r in self.records.iter().filter(|r| below(r.site)) {
            digest.bytes(r.as_bytes());
            digest.bytes(r.a_of(self.high).as_bytes());
            digest.bytes(r.b_of(self.high).as_bytes());
            for extra in [r.gain_of(self.high), r.bias_of(self.high)] {
                digest.bytes(extra.map_or(&[], |(values, _)| values.as_bytes()));
            }
        }
    }

    /// The pair on layer `site`, if it adapts that layer and is not switched off.
    #[must_use]
    pub fn lora(&self, site: u16) -> Option<Lora<'a>> {
        let index = self.records.binary_search_by_key(&site, |r| r.site).ok()?;
        let r = self.records.get(index)?;
        let scaling = r.scaling().mul(self.factor);
        (!self.factor.is_zero() && (!scaling.is_zero() || r.has_extras())).then(|| Lora {
            rank: usize::from(r.rank),
            a: r.a_of(self.high),
            a_exponent: LoraRecord::high_exponent(r.a_exponent),
            b: r.b_of(self.high),
            b_exponent: LoraRecord::high_exponent(r.b_exponent),
            scaling,
            dropout: None,
            extras: Extras { gain: r.gain_of(self.high), bias: r.bias_of(self.high), factor: self.factor },
        })
    }
}

/// What the adapters of a call have on one layer: the one that learns, if any, and then the others.
///
/// One type for all callers, so that a layer is compiled once; and a small one, for layers walk it several times.
#[derive(Clone, Debug)]
pub(crate) struct Loras<'a> {
    learns: Option<&'a Active<'a>>,
    /// Of the one that learns.
    dropout: Option<Dropout>,
    others: &'a [Active<'a>],
    site: u16,
    /// The outputs that are wanted, unless all are.
    rows: Option<Range<usize>>,
}

impl<'a> Loras<'a> {
    pub(crate) const fn new(others: &'a [Active<'a>], site: u16) -> Loras<'a> {
        Loras { learns: None, dropout: None, others, site, rows: None }
    }

    /// With the one that learns, and the mask of its input.
    pub(crate) const fn learning(self, learns: Option<&'a Active<'a>>, dropout: Option<Dropout>) -> Loras<'a> {
        Loras { learns, dropout, ..self }
    }

    /// For the layer that has only some of the outputs.
    pub(crate) fn rows(self, rows: Range<usize>) -> Loras<'a> {
        Loras { rows: Some(rows), ..self }
    }
}

impl<'a> Iterator for Loras<'a> {
    type Item = Lora<'a>;

    fn next(&mut self) -> Option<Lora<'a>> {
        loop {
            // Nothing is moved where there is no adapter, which is every layer of a plain network.
            let (one, dropout) = match self.learns.take() {
                Some(learns) => (learns, self.dropout),
                None => {
                    let (one, others) = self.others.split_first()?;
                    self.others = others;
                    (one, None)
                }
            };
            if let Some(lora) = one.lora(self.site) {
                let lora = Lora { dropout, ..lora };
                return Some(match &self.rows {
                    Some(rows) => lora.rows(rows.clone()),
                    None => lora,
                });
            }
        }
    }
}

/// Checks records against the base and the planes they point into.
pub(crate) fn check_records(model: &Model<'_>, records: &[LoraRecord], plane: usize) -> Result<(), AdapterError> {
    let mut previous = None;
    for (index, r) in records.iter().enumerate() {
        let wrong = |problem| AdapterError::Record { index, problem };
        if previous.is_some_and(|p| r.site <= p) {
            return Err(wrong(RecordProblem::Site));
        }
        previous = Some(r.site);
        let layer = model.linear_spec(r.site).map(|l| (l.inputs as u32, l.outputs as u32));
        r.check(layer, plane).map_err(wrong)?;
    }
    Ok(())
}

fn table<'a, T: FromBytes + Immutable + KnownLayout>(
    head: &Head,
    bytes: &'a [u8],
    kind: u16,
    dtype: Dtype,
) -> Result<&'a [T], AdapterError> {
    let found: Option<Section> = head.find(bytes, kind).filter(|s| s.dtype == dtype);
    found.and_then(|s| <[T]>::ref_from_bytes(head.bytes_of(bytes, &s)).ok()).ok_or(AdapterError::Missing(kind))
}
