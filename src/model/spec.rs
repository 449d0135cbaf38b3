//! What a network is: its architecture, layers and head, as the image's spec says.
//!
//! ```text
//! spec of a multilayer perceptron (architecture 1)
//!
//!   0      2      4          8         12        14      16       18               32
//!   +------+------+----------+---------+---------+-------+--------+----------------+
//!   | arch | head | features | outputs | linears | mean  | scale  | reserved = 0   |
//!   | u16  | u16  | u32      | u32     | u16     | u16   | u16    | 14 bytes       |
//!   +------+------+----------+---------+---------+-------+--------+----------------+
//!  32 + 32·i: one record a linear layer, in the order of the data's way
//!
//!   0        4         8      12           13      14       16      18     20       22             32
//!   +--------+---------+------+------------+-------+--------+-------+------+--------+--------------+
//!   | inputs | outputs | role | activation | flags | weight | scale | bias | groups | reserved = 0 |
//!   | u32    | u32     | u32  | u8         | u8 =0 | u16    | u16   | u16  | u16    | 10 bytes     |
//!   +--------+---------+------+------------+-------+--------+-------+------+--------+--------------+
//! ```
//!
//! `mean`, `scale`, `weight`, `bias`, `groups` are indices of directory entries, or 0xFFFF. The directory and the
//! spec together are all that a memory plan needs, so both are read by `const fn`.
//!
//! Architecture 2, the transformer, starts with the same 32 bytes; [`transformer`] tells what follows.

pub mod transformer;

pub use transformer::{BlockSites, Flags, Pool, Position, Stack, Transformer};

use crate::image::head::SpecProblem;
use crate::image::layout::{Dtype, NONE, section, u8_at, u16_at, u32_at, zeros_at};
use crate::image::{Head, ImageError, Kind, Section};
use crate::kernel::{I4, MAX_DIM, MAX_OUTPUTS};
use crate::layer::Activation;

/// Bytes of the fixed part, and of each record.
pub const RECORD: usize = 32;

/// The largest number of linear layers.
pub const MAX_LINEARS: u16 = 1024;

/// What the last vector means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HeadKind {
    /// Nothing in particular: features for somebody else.
    None = 0,
    /// One logit a class, exclusive.
    Classification = 1,
    /// One logit a label, each yes or no.
    Binary = 2,
    /// Values.
    Regression = 3,
    /// One logit a token of the vocabulary: the next token.
    Language = 4,
}

/// The part that a linear layer plays: adapters are chosen by it. A set of bits; sets are joined by `|`, and in constants
/// by [`or`](Roles::or).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Roles(pub u32);

impl Roles {
    /// A hidden layer.
    pub const HIDDEN: Roles = Roles(1);
    /// The last layer of a network with a head.
    pub const HEAD: Roles = Roles(2);
    /// Queries of an attention.
    pub const Q: Roles = Roles(4);
    /// Keys of an attention.
    pub const K: Roles = Roles(8);
    /// Values of an attention.
    pub const V: Roles = Roles(16);
    /// The output of an attention.
    pub const O: Roles = Roles(32);
    /// The gate of a feed-forward.
    pub const GATE: Roles = Roles(64);
    /// The first layer of a feed-forward.
    pub const UP: Roles = Roles(128);
    /// The last layer of a feed-forward.
    pub const DOWN: Roles = Roles(256);
    /// Said of the four of a cross-attention, beside their own.
    pub const CROSS: Roles = Roles(512);
    /// The layer between the pooled vector and the head.
    pub const POOLER: Roles = Roles(1024);
    /// The projection of continuous features.
    pub const INPUT: Roles = Roles(2048);
    /// One layer for queries, keys and values together.
    pub const QKV: Roles = Roles(4 + 8 + 16);
    /// Every linear layer.
    pub const ALL: Roles = Roles(u32::MAX);

    /// Both.
    #[must_use]
    pub const fn or(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Whether the sets have a role in common.
    #[must_use]
    pub const fn meets(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }
}

impl core::ops::BitOr for Roles {
    type Output = Roles;

    fn bitor(self, other: Roles) -> Roles {
        self.or(other)
    }
}

/// What stands between input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// The linear layers, one after the other.
    Mlp,
    /// Blocks of attention and feed-forward.
    Transformer(Transformer),
}

/// A network, as its spec says. Checked against the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What the last vector means.
    pub head: HeadKind,
    /// Width of the input; 0 where it is tokens.
    pub features: usize,
    /// Width of the output.
    pub outputs: usize,
    /// Linear layers. Each is a site that can carry an adapter; sites are counted from 0 along the data's way.
    pub linears: u16,
    /// Section of the input's mean, or [`NONE`].
    pub mean: u16,
    /// Section of the input's scale, or [`NONE`].
    pub scale: u16,
    /// What stands between.
    pub body: Body,
}

/// One linear layer, as its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// Its part in the network.
    pub role: Roles,
    /// What follows the sum.
    pub activation: Activation,
    /// Section of the weights.
    pub weight: u16,
    /// Section of the row scales.
    pub row_scale: u16,
    /// Section of the bias, or [`NONE`].
    pub bias: u16,
    /// Section of the group scales of 4-bit weights, or [`NONE`].
    pub groups: u16,
}

macro_rules! read {
    ($option:expr, $offset:expr) => {
        match $option {
            Some(x) => x,
            None => return Err(ImageError::Spec { offset: $offset, problem: SpecProblem::Truncated }),
        }
    };
}
use read;

const fn wrong<T>(offset: usize, problem: SpecProblem) -> Result<T, ImageError> {
    Err(ImageError::Spec { offset, problem })
}

impl Spec {
    /// Parses the spec of a base image, and checks every layer against the directory and its neighbours.
    ///
    /// # Errors
    /// [`ImageError::Kind`] for an adapter, [`ImageError::Spec`] with the offset of the first contradiction.
    pub const fn parse(head: &Head, bytes: &[u8]) -> Result<Spec, ImageError> {
        if let Err(e) = head.expect_kind(Kind::Base) {
            return Err(e);
        }
        let spec = head.spec(bytes);
        let architecture = read!(u16_at(spec, 0), 0);
        let kind = match read!(u16_at(spec, 2), 2) {
            0 => HeadKind::None,
            1 => HeadKind::Classification,
            2 => HeadKind::Binary,
            3 => HeadKind::Regression,
            4 => HeadKind::Language,
            other => return wrong(2, SpecProblem::Unknown(other)),
        };
        let body = match architecture {
            1 => Body::Mlp,
            2 => match Transformer::parse(spec) {
                Ok(t) => Body::Transformer(t),
                Err(e) => return Err(e),
            },
            _ => return wrong(0, SpecProblem::Unknown(architecture)),
        };
        let this = Spec {
            head: kind,
            features: read!(u32_at(spec, 4), 4) as usize,
            outputs: read!(u32_at(spec, 8), 8) as usize,
            linears: read!(u16_at(spec, 12), 12),
            mean: read!(u16_at(spec, 14), 14),
            scale: read!(u16_at(spec, 16), 16),
            body,
        };
        if this.linears == 0 || this.linears > MAX_LINEARS {
            return wrong(12, SpecProblem::Dimension(this.linears as u32));
        }
        let mut i = 0;
        while i < this.linears {
            let at = this.linear_at(i);
            let linear = match LinearSpec::parse(spec, at) {
                Ok(linear) => linear,
                Err(e) => return Err(e),
            };
            if let Err(e) = linear.check(head, bytes, at) {
                return Err(e);
            }
            i += 1;
        }
        let checked = match this.body {
            Body::Mlp => this.check_chain(head, bytes),
            Body::Transformer(ref t) => t.check(&this, head, bytes),
        };
        if let Err(e) = checked {
            return Err(e);
        }
        let features = this.features as u32;
        if !section_is(head, bytes, this.mean, section::INPUT_MEAN, Dtype::I32, 1, features, true) {
            return wrong(14, SpecProblem::Section(this.mean));
        }
        if !section_is(head, bytes, this.scale, section::INPUT_SCALE, Dtype::I32, 1, features, this.mean == NONE) {
            return wrong(16, SpecProblem::Section(this.scale));
        }
        if (this.mean == NONE) != (this.scale == NONE) {
            return wrong(14, SpecProblem::Section(this.mean));
        }
        if !zeros_at(spec, 18, RECORD) {
            return wrong(18, SpecProblem::Reserved);
        }
        let end = match this.body {
            Body::Mlp => RECORD * (this.linears as usize + 1),
            Body::Transformer(ref t) => t.end(&this),
        };
        if spec.len() != end {
            return wrong(end, SpecProblem::Reserved);
        }
        Ok(this)
    }

    /// The layers of a multilayer perceptron: each one's outputs are the next one's inputs.
    const fn check_chain(&self, head: &Head, bytes: &[u8]) -> Result<(), ImageError> {
        if matches!(self.head, HeadKind::Language) {
            return wrong(2, SpecProblem::Unknown(self.head as u16));
        }
        let mut width = self.features;
        let mut i = 0;
        while let Some(linear) = self.linear(head, bytes, i) {
            if linear.inputs != width {
                return wrong(self.linear_at(i), SpecProblem::Chain);
            }
            width = linear.outputs;
            i += 1;
        }
        if width != self.outputs { wrong(8, SpecProblem::Chain) } else { Ok(()) }
    }

    /// Where the record of a layer starts in the spec.
    const fn linear_at(&self, index: u16) -> usize {
        let fixed = match self.body {
            Body::Mlp => RECORD,
            Body::Transformer(_) => RECORD + transformer::LEN,
        };
        fixed + RECORD * index as usize
    }

    /// The transformer, if it is one.
    #[must_use]
    pub const fn transformer(&self) -> Option<&Transformer> {
        match &self.body {
            Body::Mlp => None,
            Body::Transformer(t) => Some(t),
        }
    }

    /// Layer `index` of a checked spec; `None` where there is none.
    #[must_use]
    pub const fn linear(&self, head: &Head, bytes: &[u8], index: u16) -> Option<LinearSpec> {
        if index >= self.linears {
            return None;
        }
        match LinearSpec::parse(head.spec(bytes), self.linear_at(index)) {
            Ok(linear) => Some(linear),
            Err(_) => None,
        }
    }

    /// The fixed part as bytes, to be followed by one [`LinearSpec::to_bytes`] a layer; for a transformer, by
    /// [`Transformer::to_bytes`] first.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let architecture: u16 = match self.body {
            Body::Mlp => 1,
            Body::Transformer(_) => 2,
        };
        put(&mut out, 0, &architecture.to_le_bytes());
        put(&mut out, 2, &(self.head as u16).to_le_bytes());
        put(&mut out, 4, &(self.features as u32).to_le_bytes());
        put(&mut out, 8, &(self.outputs as u32).to_le_bytes());
        put(&mut out, 12, &self.linears.to_le_bytes());
        put(&mut out, 14, &self.mean.to_le_bytes());
        put(&mut out, 16, &self.scale.to_le_bytes());
        out
    }
}

impl LinearSpec {
    const fn parse(spec: &[u8], at: usize) -> Result<LinearSpec, ImageError> {
        let role = read!(u32_at(spec, at + 8), at + 8);
        let code = read!(u8_at(spec, at + 12), at + 12);
        let activation = match Activation::from_code(code) {
            // The others stand between layers, and are no part of one.
            Some(fused @ (Activation::None | Activation::Relu)) => fused,
            _ => return wrong(at + 12, SpecProblem::Unknown(code as u16)),
        };
        let flags = read!(u8_at(spec, at + 13), at + 13);
        if flags != 0 {
            return wrong(at + 13, SpecProblem::Unknown(flags as u16));
        }
        Ok(LinearSpec {
            inputs: read!(u32_at(spec, at), at) as usize,
            outputs: read!(u32_at(spec, at + 4), at + 4) as usize,
            role: Roles(role),
            activation,
            weight: read!(u16_at(spec, at + 14), at + 14),
            row_scale: read!(u16_at(spec, at + 16), at + 16),
            bias: read!(u16_at(spec, at + 18), at + 18),
            groups: read!(u16_at(spec, at + 20), at + 20),
        })
    }

    const fn check(&self, head: &Head, bytes: &[u8], at: usize) -> Result<(), ImageError> {
        if self.inputs == 0 || self.inputs > MAX_DIM {
            return wrong(at, SpecProblem::Dimension(self.inputs as u32));
        }
        if self.outputs == 0 || self.outputs > MAX_OUTPUTS {
            return wrong(at + 4, SpecProblem::Dimension(self.outputs as u32));
        }
        let (rows, cols) = (self.outputs as u32, self.inputs as u32);
        let Some(weight) = head.section(bytes, self.weight) else {
            return wrong(at + 14, SpecProblem::Section(self.weight));
        };
        let four_bits = matches!(weight.dtype, Dtype::I4);
        if weight.kind != section::WEIGHT
            || !matches!(weight.dtype, Dtype::I8 | Dtype::I16 | Dtype::I4)
            || weight.rows != rows
            || weight.cols != cols
        {
            return wrong(at + 14, SpecProblem::Section(self.weight));
        }
        if !section_is(head, bytes, self.row_scale, section::ROW_SCALE, Dtype::U16, 1, rows, false) {
            return wrong(at + 16, SpecProblem::Section(self.row_scale));
        }
        if !section_is(head, bytes, self.bias, section::BIAS, Dtype::I32, 1, rows, true) {
            return wrong(at + 18, SpecProblem::Section(self.bias));
        }
        let groups = I4::row_groups(self.inputs) as u32;
        let matches = section_is(head, bytes, self.groups, section::GROUP_SCALE, Dtype::U8, rows, groups, !four_bits);
        if !matches || (self.groups == NONE) == four_bits {
            return wrong(at + 20, SpecProblem::Section(self.groups));
        }
        if zeros_at(head.spec(bytes), at + 22, at + RECORD) { Ok(()) } else { wrong(at + 22, SpecProblem::Reserved) }
    }

    /// The record as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        put(&mut out, 0, &(self.inputs as u32).to_le_bytes());
        put(&mut out, 4, &(self.outputs as u32).to_le_bytes());
        put(&mut out, 8, &self.role.0.to_le_bytes());
        put(&mut out, 12, &[self.activation as u8, 0]);
        put(&mut out, 14, &self.weight.to_le_bytes());
        put(&mut out, 16, &self.row_scale.to_le_bytes());
        put(&mut out, 18, &self.bias.to_le_bytes());
        put(&mut out, 20, &self.groups.to_le_bytes());
        out
    }
}

/// Whether section `index` is of this kind, type and shape; [`NONE`] passes where it may.
#[allow(clippy::too_many_arguments)] // One question with many parts; a struct would say no more.
const fn section_is(
    head: &Head,
    bytes: &[u8],
    index: u16,
    kind: u16,
    dtype: Dtype,
    rows: u32,
    cols: u32,
    optional: bool,
) -> bool {
    if index == NONE {
        return optional;
    }
    match head.section(bytes, index) {
        Some(Section { kind: k, dtype: d, rows: r, cols: c, .. }) => {
            k == kind && d as u8 == dtype as u8 && r == rows && c == cols
        }
        None => false,
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(part) = out.get_mut(at..at + bytes.len()) {
        part.copy_from_slice(bytes);
    }
}
