//! A whole network: its [`spec`], its memory [`plan`], the [`run`]ner, and the adapters it runs with.

pub mod adapter;
pub mod arena;
pub mod must_fit;
pub mod plan;
pub mod run;
pub mod spec;
pub mod transformer;

pub use adapter::{Active, Adapter, AdapterError, AdapterParts};
pub use arena::{Arena, ArenaError, Workspace};
pub use plan::{LearnLengths, Plan, Scratch, Train};
pub use run::{RunError, Runner};
pub use spec::{HeadKind, LinearSpec, Roles, Spec};
pub use transformer::{Cache, CacheType, Pass, Sequence, SequenceScratch};

use crate::fixed::Block;
use crate::image::layout::{Dtype, section};
use crate::image::{Fingerprint, Head, ImageError, Section, Vocabulary, VocabularyProblem};
use crate::kernel::{I4, Weights};
use crate::layer::normalize::{Input, Normalize};
use crate::layer::{Linear, Vector};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A frozen base, checked and read in place. It never holds adapters: those are given to each call.
///
/// ```
/// # fn run(base: &[u8]) -> Result<(), ranklet::image::ImageError> {
/// let model = ranklet::model::Model::open(base)?;
/// let spec = model.spec();
/// assert_eq!(model.linear(0).inputs, spec.features);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    bytes: &'a [u8],
    head: Head,
    spec: Spec,
}

impl<'a> Model<'a> {
    /// Checks an image once, payload included; after that no accessor can fail. The bytes must be memory-mapped
    /// (internal flash, XIP) and stand at a multiple of 16.
    ///
    /// # Errors
    /// What is wrong with the image, and where.
    pub fn open(bytes: &'a [u8]) -> Result<Model<'a>, ImageError> {
        let head = Head::parse(bytes)?;
        let spec = Spec::parse(&head, bytes)?;
        head.check_payload(bytes)?;
        check_vocabulary(&head, &spec, bytes).map_err(ImageError::Vocabulary)?;
        Ok(Model { bytes, head, spec })
    }

    /// The architecture.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The head of the image: fingerprints, directory.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The image.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Of the checkpoint: an adapter must have been made for the same.
    #[must_use]
    pub const fn source(&self) -> Fingerprint {
        self.head.source
    }

    /// CRC-32 of the payload as it stands in flash now: proves that nothing has written the base.
    #[must_use]
    pub fn payload_crc_now(&self) -> u32 {
        let payload = self.bytes.get(self.head.head_len..self.head.total_len).unwrap_or(&[]);
        crate::image::layout::CRC.checksum(payload)
    }

    /// What the spec says of layer `site`; `None` where there is none.
    #[must_use]
    pub const fn linear_spec(&self, site: u16) -> Option<LinearSpec> {
        self.spec.linear(&self.head, self.bytes, site)
    }

    /// The name of a site, as the checkpoint has it; "" where the image holds no names.
    #[must_use]
    pub fn site_name(&self, site: u16) -> &'a str {
        let names = self.head.find(self.bytes, section::NAMES);
        let names = names.map_or(&[][..], |s| self.head.bytes_of(self.bytes, &s));
        core::str::from_utf8(names).unwrap_or("").split('\n').nth(usize::from(site)).unwrap_or("")
    }

    /// What each token writes, where the image says so: language models of a small vocabulary do.
    ///
    /// ```
    /// # fn show(model: &ranklet::model::Model<'_>, written: &[u32], uart: &mut impl embedded_io::Write) {
    /// if let Some(vocabulary) = model.vocabulary() {
    ///     for &id in written.iter().take_while(|&&id| !vocabulary.is_end(id)) {
    ///         let _ = uart.write_all(vocabulary.bytes_of(id));
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn vocabulary(&self) -> Option<Vocabulary<'a>> {
        let section = self.head.find(self.bytes, section::VOCABULARY)?;
        Vocabulary::of(self.head.bytes_of(self.bytes, &section)).ok()
    }

    /// Layer `site`, ready to be used; an empty layer, which every operation refuses, where there is none.
    #[must_use]
    pub fn linear(&self, site: u16) -> Linear<'a> {
        let Some(s) = self.linear_spec(site) else {
            return Linear {
                weights: Weights::I8(&[]),
                inputs: 1,
                outputs: 1,
                scales: &[],
                exponent: 0,
                bias: None,
                activation: crate::layer::Activation::None,
            };
        };
        self.linear_of(&s)
    }

    /// The layer, or the table, that a record describes.
    fn linear_of(&self, s: &LinearSpec) -> Linear<'a> {
        let weight = self.head.section(self.bytes, s.weight);
        let exponent_of = |section: Option<Section>| section.map_or(0, |s| s.exponent);
        let row_scale = self.head.section(self.bytes, s.row_scale);
        let weights = match weight.map(|w| w.dtype) {
            Some(Dtype::I16) => Weights::I16(self.slice(weight)),
            Some(Dtype::I4) => Weights::I4(I4 {
                nibbles: self.slice(weight),
                groups: self.slice(self.head.section(self.bytes, s.groups)),
            }),
            _ => Weights::I8(self.slice(weight)),
        };
        let bias = self.head.section(self.bytes, s.bias);
        Linear {
            weights,
            inputs: s.inputs,
            outputs: s.outputs,
            scales: self.slice(row_scale),
            exponent: exponent_of(row_scale),
            bias: bias.map(|b| Vector { mantissas: self.slice(Some(b)), exponent: b.exponent }),
            activation: s.activation,
        }
    }

    /// The input's normalisation, if the image has one.
    #[must_use]
    pub fn normalize(&self) -> Option<Normalize<'a>> {
        let mean = self.head.section(self.bytes, self.spec.mean)?;
        let scale = self.head.section(self.bytes, self.spec.scale)?;
        Some(Normalize {
            mean: self.slice(Some(mean)),
            mean_exponent: mean.exponent,
            scale: self.slice(Some(scale)),
            scale_exponent: scale.exponent,
        })
    }

    /// Runs the network on one input, with the given adapters (none, one, or several, which add up).
    ///
    /// The output block lies in `scratch`: logits, or values by the spec's [`HeadKind`].
    ///
    /// # Errors
    /// An input of another size than the spec's `features`; an adapter of another base; scratch that was split by the
    /// plan of a smaller network.
    pub fn infer<'s>(
        &self,
        scratch: &'s mut Scratch<'_>,
        input: Input<'_>,
        adapters: &[Active<'_>],
    ) -> Result<Block<'s>, RunError> {
        let mut runner = Runner::start(self, scratch, input, adapters)?;
        while runner.advance(scratch)? {}
        Ok(runner.output(scratch))
    }

    fn slice<T: FromBytes + Immutable + KnownLayout>(&self, section: Option<Section>) -> &'a [T] {
        section.and_then(|s| <[T]>::ref_from_bytes(self.head.bytes_of(self.bytes, &s)).ok()).unwrap_or_default()
    }
}

fn check_vocabulary(head: &Head, spec: &Spec, bytes: &[u8]) -> Result<(), VocabularyProblem> {
    let Some(section) = head.find(bytes, section::VOCABULARY) else { return Ok(()) };
    let vocabulary = Vocabulary::parse(head.bytes_of(bytes, &section))?;
    let (found, expected) = (vocabulary.len() as u32, spec.transformer().map_or(0, |t| t.vocab as u32));
    if found == expected { Ok(()) } else { Err(VocabularyProblem::Tokens { found, expected }) }
}
