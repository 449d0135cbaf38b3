//! The images in flash, and the memory they are run in. `models/story` tells what they are.

use ranklet::{
    Image, include_image,
    model::{Arena, CacheType, Plan},
};

/// The base: a Llama of 64 dimensions in five blocks, 512 tokens of vocabulary.
pub static BASE: Image = include_image!("../../../../models/story/story.rkl");
/// An adapter that has read Jane Austen.
pub static AUSTEN: Image = include_image!("../../../../models/story/austen.rkl");
/// An adapter that has read the Psalms.
pub static PSALM: Image = include_image!("../../../../models/story/psalm.rkl");

/// Keys and values in 16 bits: 32 tokens a call, and texts of 112.
pub const WIDE: Plan<'_> = Plan::of(&BASE).tokens(32).context(112);
/// The same in 8.
pub const NARROW: Plan<'_> = WIDE.cache(CacheType::I8);
/// Everything that changes while it writes, but for the stack.
pub static ARENA: Arena<{ WIDE.bytes() }> = Arena::new();

/// The first tokens of held-out text, `input_ids` of `models/story/golden.safetensors`: "And Abram went up out of Egypt, he, and
/// his wife, and all that he had, and Lot with him, into the s".
pub const HELD_OUT: [u32; 40] = [
    0, 296, 382, 67, 83, 334, 266, 357, 364, 423, 270, 445, 72, 90, 455, 13, 310, 13, 269, 326, 301, 71, 70, 13, 269,
    361, 298, 310, 461, 13, 269, 324, 80, 85, 339, 331, 13, 477, 260, 263,
];
