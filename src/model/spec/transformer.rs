//! What a transformer is: its numbers, and where each of its layers, tables and norms stands.
//!
//! ```text
//! spec of a transformer (architecture 2), behind the 32 bytes that every spec starts with; offsets from there
//!
//!   0     4        8       12          16    18      20         22         24        26        28
//!   +-----+--------+-------+-----------+-----+-------+----------+----------+---------+---------+-------+
//!   | dim | hidden | vocab | positions |types| heads | kv heads | head dim | encoder | decoder | flags |
//!   | u32 | u32    | u32   | u32       | u16 | u16   | u16      | u16      | u16     | u16     | u32   |
//!   +-----+--------+-------+-----------+-----+-------+----------+----------+---------+---------+-------+
//!  32          33           34     35     36             40         42       44           48         50
//!   +----------+------------+------+------+--------------+----------+--------+------------+----------+---+
//!   | position | activation | pool | 0    | ε mantissa   | exponent | 0      | score mant.| exponent | 0 |
//!   | u8       | u8         | u8   | u8   | i32          | i16      | u16    | i32        | i16      |u16|
//!   +----------+------------+------+------+--------------+----------+--------+------------+----------+---+
//!  52       56      60      64     66              70                74                                 96
//!   +-------+-------+-------+------+---------------+-----------------+----------------------------------+
//!   | start | end   | pad   | rope | bias enc, dec | buckets enc, dec| reserved = 0                     |
//!   | u32   | u32   | u32   | u16  | u16, u16      | u16, u16        | 22 bytes                         |
//!   +-------+-------+-------+------+---------------+-----------------+----------------------------------+
//!  96: the records of the linear layers (32 bytes each), then of the tables (the same form, outputs = rows), then of
//!      the norms (8 bytes: weight u16, bias u16, 0 u32)
//! ```
//!
//! `start`, `end`, `pad` are tokens, or 0xFFFFFFFF; `rope`, `bias`, `buckets` and the norms' fields are indices of
//! directory entries, or 0xFFFF.
//!
//! | in this order | layers | norms |
//! |---|---|---|
//! | | the projection of features | after the embedding |
//! | each block of the encoder | q, k, v (or one for all three), o, gate, up, down | of attention, of feed-forward |
//! | | | of the encoder's end |
//! | each block of the decoder | q, k, v (or one), o, cross q, k, v, o, gate, up, down | of attention, cross, feed-forward |
//! | | pooler, head | of the decoder's end |
//!
//! What a model does not have is left out. Tables: tokens, positions, types. A decoder without an encoder (Llama,
//! GPT-2) has no cross-attention. A tied head is a layer whose record names the token table's sections.

mod check;
mod sites;

use super::{LinearSpec, RECORD, Spec, put, read, wrong};
use crate::fixed::Real;
use crate::image::head::SpecProblem;
use crate::image::layout::{u8_at, u16_at, u32_at, zeros_at};
use crate::image::{Head, ImageError};
use crate::layer::Activation;

/// Bytes of the transformer's own part of the spec.
pub const LEN: usize = 96;

/// Bytes of a norm's record.
pub const NORM_RECORD: usize = 8;

/// The largest number of heads.
pub const MAX_HEADS: usize = 128;

/// The largest number of frequencies, relative distances or buckets.
const MAX_TABLE: u32 = 1 << 16;

/// A token that there is none of.
pub const NO_TOKEN: u32 = u32::MAX;

/// How a token's place enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Position {
    /// Not at all.
    None = 0,
    /// A row of a table is added to the embedding (BERT, GPT-2).
    Learned = 1,
    /// Queries and keys are rotated (Llama).
    Rotary = 2,
    /// A bias is added to the scores of self-attention (T5).
    Relative = 3,
}

/// Which vector the head is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Pool {
    /// Every token's.
    None = 0,
    /// The first token's (BERT).
    First = 1,
    /// The last valid token's (Llama, GPT-2).
    Last = 2,
    /// The mean of the valid tokens'.
    Mean = 3,
    /// The decoder's at the place of the last end token of the encoder's input (T5).
    End = 4,
}

/// Yes-or-no parts of an architecture. A set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Flags(pub u32);

impl Flags {
    /// Norms stand before attention and feed-forward, not behind the residual sum.
    pub const PRE_NORM: Flags = Flags(1);
    /// Norms are of the root mean square, without mean.
    pub const RMS: Flags = Flags(2);
    /// The feed-forward is act(gate x) · up x.
    pub const GATED: Flags = Flags(4);
    /// One layer makes queries, keys and values of self-attention.
    pub const FUSED: Flags = Flags(8);
    /// The residual stream has 32 bits: outlier channels would drown the rest in 16.
    pub const WIDE: Flags = Flags(16);
    /// There is a norm at the end of every stack.
    pub const FINAL_NORM: Flags = Flags(32);
    /// There is a norm behind the embedding.
    pub const EMBEDDING_NORM: Flags = Flags(64);
    /// There is a layer, and tanh, between the pooled vector and the head.
    pub const POOLER: Flags = Flags(128);
    /// There is a linear layer from the input's features to `dim`.
    pub const INPUT: Flags = Flags(256);

    const KNOWN: u32 = 511;

    /// Both.
    #[must_use]
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One of the two stacks of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stack {
    /// Every token sees every valid token.
    Encoder,
    /// A token sees itself and those before it, and the encoder's, if there is one.
    Decoder,
}

/// A transformer, as its spec says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transformer {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward.
    pub hidden: usize,
    /// Rows of the token table; 0 where the input is continuous.
    pub vocab: usize,
    /// The longest sequence.
    pub positions: usize,
    /// Rows of the type table.
    pub types: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; `heads` is a multiple.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Blocks of the encoder.
    pub encoder: u16,
    /// Blocks of the decoder.
    pub decoder: u16,
    /// Yes-or-no parts.
    pub flags: Flags,
    /// How a token's place enters.
    pub position: Position,
    /// Of the feed-forward.
    pub activation: Activation,
    /// Which vector the head is given.
    pub pool: Pool,
    /// ε of all norms.
    pub epsilon: Real,
    /// What q · k is multiplied by: 1/√head_dim, or 1 (T5).
    pub score: Real,
    /// What a decoder starts with, or [`NO_TOKEN`].
    pub start: u32,
    /// What ends a text, or [`NO_TOKEN`].
    pub end: u32,
    /// What fills a sequence, or [`NO_TOKEN`].
    pub pad: u32,
    /// Section of the rotary angles, or [`NONE`](crate::image::layout::NONE).
    pub rope: u16,
    /// Sections of the relative biases of encoder and decoder, or [`NONE`](crate::image::layout::NONE).
    pub bias: [u16; 2],
    /// Sections of their buckets, or [`NONE`](crate::image::layout::NONE).
    pub buckets: [u16; 2],
}

/// The layers of one block, by the numbers of their sites; the norms, by theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSites {
    /// Queries; with [`Flags::FUSED`] queries, keys and values.
    pub query: u16,
    /// Keys and values, unless fused.
    pub key_value: Option<[u16; 2]>,
    /// The output of attention.
    pub output: u16,
    /// Query, key, value and output of cross-attention.
    pub cross: Option<[u16; 4]>,
    /// The gate.
    pub gate: Option<u16>,
    /// The first layer of the feed-forward.
    pub up: u16,
    /// Its last.
    pub down: u16,
    /// The norm of attention.
    pub attention_norm: u16,
    /// The norm of cross-attention.
    pub cross_norm: Option<u16>,
    /// The norm of the feed-forward.
    pub feed_norm: u16,
}

/// The sections of one norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormSpec {
    /// Of the weight.
    pub weight: u16,
    /// Of the bias, or [`NONE`](crate::image::layout::NONE).
    pub bias: u16,
}

impl NormSpec {
    /// The record as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; NORM_RECORD] {
        let mut out = [0; NORM_RECORD];
        put(&mut out, 0, &self.weight.to_le_bytes());
        put(&mut out, 2, &self.bias.to_le_bytes());
        out
    }
}

/// A table of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Table {
    /// A row a token of the vocabulary.
    Tokens,
    /// A row a position.
    Positions,
    /// A row a type.
    Types,
}

impl Transformer {
    pub(super) const fn parse(spec: &[u8]) -> Result<Transformer, ImageError> {
        macro_rules! at {
            ($read:ident, $offset:expr) => {
                read!($read(spec, RECORD + $offset), RECORD + $offset)
            };
        }
        let position = match at!(u8_at, 32) {
            0 => Position::None,
            1 => Position::Learned,
            2 => Position::Rotary,
            3 => Position::Relative,
            other => return wrong(RECORD + 32, SpecProblem::Unknown(other as u16)),
        };
        let activation = match Activation::from_code(at!(u8_at, 33)) {
            Some(activation) => activation,
            None => return wrong(RECORD + 33, SpecProblem::Unknown(at!(u8_at, 33) as u16)),
        };
        let pool = match at!(u8_at, 34) {
            0 => Pool::None,
            1 => Pool::First,
            2 => Pool::Last,
            3 => Pool::Mean,
            4 => Pool::End,
            other => return wrong(RECORD + 34, SpecProblem::Unknown(other as u16)),
        };
        let flags = at!(u32_at, 28);
        if flags & !Flags::KNOWN != 0 {
            return wrong(RECORD + 28, SpecProblem::Unknown((flags >> 9) as u16));
        }
        let (mut gap, gaps) = (0, [(35, 36), (42, 44), (50, 52), (74, LEN)]);
        while let Some((_, [(from, to), ..])) = gaps.split_at_checked(gap) {
            if !zeros_at(spec, RECORD + *from, RECORD + *to) {
                return wrong(RECORD + *from, SpecProblem::Reserved);
            }
            gap += 1;
        }
        Ok(Transformer {
            dim: at!(u32_at, 0) as usize,
            hidden: at!(u32_at, 4) as usize,
            vocab: at!(u32_at, 8) as usize,
            positions: at!(u32_at, 12) as usize,
            types: at!(u16_at, 16) as usize,
            heads: at!(u16_at, 18) as usize,
            kv_heads: at!(u16_at, 20) as usize,
            head_dim: at!(u16_at, 22) as usize,
            encoder: at!(u16_at, 24),
            decoder: at!(u16_at, 26),
            flags: Flags(flags),
            position,
            activation,
            pool,
            epsilon: Real::from_parts(at!(u32_at, 36) as i32, at!(u16_at, 40) as i16),
            score: Real::from_parts(at!(u32_at, 44) as i32, at!(u16_at, 48) as i16),
            start: at!(u32_at, 52),
            end: at!(u32_at, 56),
            pad: at!(u32_at, 60),
            rope: at!(u16_at, 64),
            bias: [at!(u16_at, 66), at!(u16_at, 68)],
            buckets: [at!(u16_at, 70), at!(u16_at, 72)],
        })
    }

    /// The transformer's part of the spec as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let numbers = [self.dim, self.hidden, self.vocab, self.positions];
        for (i, n) in numbers.into_iter().enumerate() {
            put(&mut out, 4 * i, &(n as u32).to_le_bytes());
        }
        let shorts = [self.types, self.heads, self.kv_heads, self.head_dim];
        for (i, n) in shorts.into_iter().enumerate() {
            put(&mut out, 16 + 2 * i, &(n as u16).to_le_bytes());
        }
        put(&mut out, 24, &self.encoder.to_le_bytes());
        put(&mut out, 26, &self.decoder.to_le_bytes());
        put(&mut out, 28, &self.flags.0.to_le_bytes());
        put(&mut out, 32, &[self.position as u8, self.activation as u8, self.pool as u8]);
        for (at, real) in [(36, self.epsilon), (44, self.score)] {
            put(&mut out, at, &real.mantissa().to_le_bytes());
            put(&mut out, at + 4, &(real.exponent() as i16).to_le_bytes());
        }
        for (i, token) in [self.start, self.end, self.pad].into_iter().enumerate() {
            put(&mut out, 52 + 4 * i, &token.to_le_bytes());
        }
        let [bias_encoder, bias_decoder] = self.bias;
        let [buckets_encoder, buckets_decoder] = self.buckets;
        let sections = [self.rope, bias_encoder, bias_decoder, buckets_encoder, buckets_decoder];
        for (i, section) in sections.into_iter().enumerate() {
            put(&mut out, 64 + 2 * i, &section.to_le_bytes());
        }
        out
    }

    /// Where the record of a table starts in the spec.
    const fn table_at(spec: &Spec, place: u16) -> usize {
        RECORD + LEN + RECORD * (spec.linears as usize + place as usize)
    }

    /// Where the spec ends.
    pub(super) const fn end(&self, spec: &Spec) -> usize {
        Transformer::table_at(spec, self.tables()) + NORM_RECORD * self.norms() as usize
    }

    /// A table, as its record says; `None` where there is none.
    #[must_use]
    pub const fn table(&self, spec: &Spec, head: &Head, bytes: &[u8], table: Table) -> Option<LinearSpec> {
        let Some((place, _)) = self.table_place(table) else {
            return None;
        };
        match LinearSpec::parse(head.spec(bytes), Transformer::table_at(spec, place)) {
            Ok(record) => Some(record),
            Err(_) => None,
        }
    }

    /// A norm's sections; `None` where there is no such norm.
    #[must_use]
    pub const fn norm(&self, spec: &Spec, head: &Head, bytes: &[u8], index: u16) -> Option<NormSpec> {
        if index >= self.norms() {
            return None;
        }
        let at = Transformer::table_at(spec, self.tables()) + NORM_RECORD * index as usize;
        match (u16_at(head.spec(bytes), at), u16_at(head.spec(bytes), at + 2)) {
            (Some(weight), Some(bias)) => Some(NormSpec { weight, bias }),
            _ => None,
        }
    }
}
