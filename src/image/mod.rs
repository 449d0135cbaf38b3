//! The flash format: layout, checked view, emitter.
//!
//! Little-endian; the head comes first and has its own CRC, so that [`Plan::of`](crate::model::Plan::of) can read it
//! at compile time; the payload's CRC is checked when an image is opened. Tensors stand at multiples of 16 bytes and
//! are read in place. Bytes are allegations until checked once; after that no accessor can fail.
//!
//! * [`layout`]: where every field stands
//! * [`head`]: header and directory, parsed by one total `const fn`
//! * [`record`]: the pairs (A, B) of an adapter
//! * [`vocabulary`]: what each token writes
//! * [`emit`]: the only code that writes images

pub mod emit;
pub mod head;
pub mod layout;
pub mod record;
pub mod vocabulary;

pub use emit::{EmitError, NewEntry, NewHead, NewImage, NewSection, Payload};
pub use head::{Head, ImageError, Section};
pub use layout::{Dtype, Fingerprint, Kind, Order};
pub use record::{LoraRecord, MAX_RANK};
pub use vocabulary::{Vocabulary, VocabularyProblem};

/// An image that was built into the firmware, at a multiple of 16: made by [`include_image!`](crate::include_image).
#[derive(Clone, Copy, Debug)]
pub struct Image(&'static [u8]);

impl Image {
    /// Wraps bytes that stand at a multiple of 16. [`include_image!`](crate::include_image) sees to that; whether it
    /// is so is checked again when the image is opened.
    #[must_use]
    pub const fn new(bytes: &'static [u8]) -> Image {
        Image(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'static [u8] {
        self.0
    }
}

impl core::ops::Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

/// Gives a type the alignment that images need. Used by [`include_image!`](crate::include_image).
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// Builds an image file into the firmware, aligned to 16 bytes: a constant expression of type
/// [`Image`]. The path is relative to the file that calls it, as with
/// [`include_bytes!`].
///
/// ```ignore
/// static BASE: ranklet::image::Image = ranklet::include_image!("base.rkl");
/// ```
#[macro_export]
macro_rules! include_image {
    ($path:expr $(,)?) => {{
        static BYTES: &$crate::image::Aligned<[u8]> = &$crate::image::Aligned(*::core::include_bytes!($path));
        $crate::image::Image::new(&BYTES.0)
    }};
}
