//! What is learned: the digits of `models/digits`, seen by a camera that was mounted sideways.

use crate::fixture::{Fixture, Sample};
use ranklet_cli::base::Base;
use ranklet_cli::quantize::WeightType;
use std::path::Path;

/// A base and the data to adapt it with.
#[derive(Debug)]
pub struct Task {
    /// The base, with `i8` weights.
    pub fixture: Fixture,
    /// To be trained on.
    pub train: Vec<Sample>,
    /// Not to be trained on.
    pub held_out: Vec<Sample>,
}

/// Side of an image.
const SIDE: usize = 8;
/// `digits.bin`: header, then records of pixels and a label; see `models/digits/README.md`.
const HEADER: usize = 16;
const RECORD: usize = SIDE * SIDE + 1;

impl Task {
    /// The digits, turned by 90°: the device part to be trained on, the test part held out.
    ///
    /// # Panics
    /// Where the files of `models/digits` are missing or of another layout.
    #[must_use]
    pub fn digits() -> Task {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
        let base = Base::open(&directory.join("base")).expect("models/digits/base");
        let data = std::fs::read(directory.join("digits.bin")).expect("models/digits/digits.bin");
        assert_eq!(data[..8], *b"RKDG\x01\x00\x41\x00", "digits.bin: another layout");
        let count = |at: usize| usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
        let (upright, device, test) = (count(8), count(10), count(12));
        let mut records = data[HEADER..].chunks_exact(RECORD).map(turned).skip(upright);
        let train: Vec<Sample> = records.by_ref().take(device).collect();
        let held_out: Vec<Sample> = records.take(test).collect();
        assert_eq!((train.len(), held_out.len()), (device, test), "digits.bin: truncated");
        Task { fixture: Fixture::new(base, WeightType::I8), train, held_out }
    }
}

/// A quarter turn clockwise.
fn turned(record: &[u8]) -> Sample {
    let pixel = |i: usize| record[(SIDE - 1 - i % SIDE) * SIDE + i / SIDE];
    let raw = (0..SIDE * SIDE).map(|i| i16::from(pixel(i))).collect();
    Sample { raw, exponent: 0, class: usize::from(record[SIDE * SIDE]) }
}
