//! What a spec must say, so that nothing that comes of it can fail later.

use super::{Flags, MAX_HEADS, MAX_TABLE, NORM_RECORD, Pool, Position, Stack, Table, Transformer};
use crate::image::head::SpecProblem;
use crate::image::layout::{Dtype, NONE, section, zeros_at};
use crate::image::{Head, ImageError};
use crate::kernel::{MAX_DIM, MAX_OUTPUTS};
use crate::layer::Activation;
use crate::model::spec::{HeadKind, LinearSpec, MAX_LINEARS, RECORD, Roles, Spec, section_is, wrong};

impl Transformer {
    /// Checks everything that the layers' own records do not say.
    pub(in crate::model::spec) const fn check(&self, spec: &Spec, head: &Head, bytes: &[u8]) -> Result<(), ImageError> {
        if let Err(e) = self.check_numbers(spec) {
            return Err(e);
        }
        let mut site = 0;
        while let Some(linear) = spec.linear(head, bytes, site) {
            let (role, inputs, outputs) = self.expected(spec, site);
            let plain = matches!(linear.activation, Activation::None);
            if linear.role.0 != role.0 || linear.inputs != inputs || linear.outputs != outputs || !plain {
                return wrong(spec.linear_at(site), SpecProblem::Chain);
            }
            site += 1;
        }
        let mut place = 0;
        while place < 3 {
            let table = match place {
                0 => Table::Tokens,
                1 => Table::Positions,
                _ => Table::Types,
            };
            if let Some((index, rows)) = self.table_place(table) {
                let at = Transformer::table_at(spec, index);
                let record = match LinearSpec::parse(head.spec(bytes), at) {
                    Ok(record) => record,
                    Err(e) => return Err(e),
                };
                if record.inputs != self.dim || record.outputs != rows || record.bias != NONE {
                    return wrong(at, SpecProblem::Chain);
                }
                if let Err(e) = record.check(head, bytes, at) {
                    return Err(e);
                }
            }
            place += 1;
        }
        let dim = self.dim as u32;
        let mut index = 0;
        while index < self.norms() {
            let at = Transformer::table_at(spec, self.tables()) + NORM_RECORD * index as usize;
            let Some(norm) = self.norm(spec, head, bytes, index) else {
                return wrong(at, SpecProblem::Truncated);
            };
            if !section_is(head, bytes, norm.weight, section::NORM_WEIGHT, Dtype::I32, 1, dim, false) {
                return wrong(at, SpecProblem::Section(norm.weight));
            }
            if !section_is(head, bytes, norm.bias, section::BIAS, Dtype::I32, 1, dim, true) {
                return wrong(at + 2, SpecProblem::Section(norm.bias));
            }
            if !zeros_at(head.spec(bytes), at + 4, at + NORM_RECORD) {
                return wrong(at + 4, SpecProblem::Reserved);
            }
            index += 1;
        }
        self.check_positions(head, bytes)
    }

    const fn check_numbers(&self, spec: &Spec) -> Result<(), ImageError> {
        macro_rules! within {
            ($value:expr, $least:expr, $most:expr, $offset:expr) => {
                if $value < $least || $value > $most {
                    return wrong($offset, SpecProblem::Dimension($value as u32));
                }
            };
        }
        within!(self.dim, 1, MAX_DIM, RECORD);
        within!(self.hidden, 1, MAX_DIM, RECORD + 4);
        if self.vocab > MAX_OUTPUTS {
            return wrong(RECORD + 8, SpecProblem::Dimension(self.vocab as u32));
        }
        within!(self.positions, 1, MAX_DIM, RECORD + 12);
        within!(self.heads, 1, MAX_HEADS, RECORD + 18);
        within!(self.kv_heads, 1, self.heads, RECORD + 20);
        within!(self.head_dim, 1, MAX_DIM / MAX_HEADS, RECORD + 22);
        within!(self.encoder as usize + self.decoder as usize, 1, MAX_LINEARS as usize, RECORD + 24);
        if spec.features > MAX_DIM {
            return wrong(4, SpecProblem::Dimension(spec.features as u32));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(RECORD + 20, SpecProblem::Dimension(self.kv_heads as u32));
        }
        if (self.vocab == 0) == (spec.features == 0) || (self.vocab > 0 && self.flags.has(Flags::INPUT)) {
            return wrong(4, SpecProblem::Dimension(spec.features as u32));
        }
        if self.vocab == 0 && !self.flags.has(Flags::INPUT) && spec.features != self.dim {
            return wrong(4, SpecProblem::Dimension(spec.features as u32));
        }
        if self.flags.has(Flags::WIDE) && !self.flags.has(Flags::PRE_NORM) {
            return wrong(RECORD + 28, SpecProblem::Unknown(Flags::WIDE.0 as u16));
        }
        let headless = matches!(spec.head, HeadKind::None);
        if headless && (spec.outputs != self.dim || self.flags.has(Flags::POOLER)) {
            return wrong(8, SpecProblem::Dimension(spec.outputs as u32));
        }
        if matches!(self.pool, Pool::End) && (!self.has_cross() || headless) {
            return wrong(RECORD + 34, SpecProblem::Unknown(self.pool as u16));
        }
        let linears = self.blocks_end() + self.flags.has(Flags::POOLER) as u32 + !headless as u32;
        if linears != spec.linears as u32 {
            return wrong(12, SpecProblem::Dimension(spec.linears as u32));
        }
        if self.epsilon.is_negative() || self.score.is_negative() {
            return wrong(RECORD + 36, SpecProblem::Dimension(0));
        }
        Ok(())
    }

    const fn check_positions(&self, head: &Head, bytes: &[u8]) -> Result<(), ImageError> {
        let rotary = matches!(self.position, Position::Rotary);
        if rotary && !self.head_dim.is_multiple_of(2) {
            return wrong(RECORD + 22, SpecProblem::Dimension(self.head_dim as u32));
        }
        let frequencies = (self.head_dim / 2) as u32;
        let matches = section_is(head, bytes, self.rope, section::ROPE, Dtype::I32, 1, frequencies, !rotary);
        if !matches || (self.rope == NONE) == rotary {
            return wrong(RECORD + 64, SpecProblem::Section(self.rope));
        }
        let relative = matches!(self.position, Position::Relative);
        let [bias_encoder, bias_decoder] = self.bias;
        let [buckets_encoder, buckets_decoder] = self.buckets;
        let encoder = (bias_encoder, buckets_encoder, 2, relative && self.encoder > 0, RECORD + 66);
        let decoder = (bias_decoder, buckets_decoder, 1, relative && self.decoder > 0, RECORD + 68);
        match self.check_relative(head, bytes, encoder) {
            Ok(()) => self.check_relative(head, bytes, decoder),
            Err(e) => Err(e),
        }
    }

    /// The bias and the buckets of one stack.
    const fn check_relative(
        &self,
        head: &Head,
        bytes: &[u8],
        (bias, buckets, directions, needed, offset): (u16, u16, u32, bool, usize),
    ) -> Result<(), ImageError> {
        if !needed {
            return if bias == NONE && buckets == NONE { Ok(()) } else { wrong(offset, SpecProblem::Section(bias)) };
        }
        match (head.section(bytes, bias), head.section(bytes, buckets)) {
            (Some(b), Some(d)) => {
                let sound = b.kind == section::RELATIVE_BIAS
                    && matches!(b.dtype, Dtype::I32)
                    && b.rows as usize == self.heads
                    && b.cols >= 1
                    && b.cols <= 256
                    && d.kind == section::BUCKETS
                    && matches!(d.dtype, Dtype::U8)
                    && d.rows == directions
                    && d.cols >= 1
                    && d.cols <= MAX_TABLE;
                if sound { Ok(()) } else { wrong(offset, SpecProblem::Section(bias)) }
            }
            _ => wrong(offset, SpecProblem::Section(bias)),
        }
    }

    /// What a layer must be: its role, inputs and outputs.
    const fn expected(&self, spec: &Spec, site: u16) -> (Roles, usize, usize) {
        let (dim, query, kv) = (self.dim, self.query_width(), self.kv_width());
        if self.flags.has(Flags::INPUT) && site == 0 {
            return (Roles::INPUT, spec.features, dim);
        }
        if site as u32 >= self.blocks_end() {
            let pooler = self.flags.has(Flags::POOLER) && site as u32 == self.blocks_end();
            return if pooler { (Roles::POOLER, dim, dim) } else { (Roles::HEAD, dim, spec.outputs) };
        }
        let in_blocks = site - self.flags.has(Flags::INPUT) as u16;
        let encoder = self.encoder * self.stride(Stack::Encoder);
        let (stack, place) = if in_blocks < encoder {
            (Stack::Encoder, in_blocks % self.stride(Stack::Encoder))
        } else {
            (Stack::Decoder, (in_blocks - encoder) % self.stride(Stack::Decoder))
        };
        let attention = self.attention_sites();
        let cross = if matches!(stack, Stack::Decoder) && self.has_cross() { 4 } else { 0 };
        if place < attention && self.flags.has(Flags::FUSED) {
            return if place == 0 { (Roles::QKV, dim, query + 2 * kv) } else { (Roles::O, query, dim) };
        }
        if place < attention + cross {
            let mark = if place < attention { Roles(0) } else { Roles::CROSS };
            let of_four = if place < attention { place } else { place - attention };
            return match of_four {
                0 => (Roles::Q.or(mark), dim, query),
                1 => (Roles::K.or(mark), dim, kv),
                2 => (Roles::V.or(mark), dim, kv),
                _ => (Roles::O.or(mark), query, dim),
            };
        }
        let of_feed = place - attention - cross + !self.flags.has(Flags::GATED) as u16;
        match of_feed {
            0 => (Roles::GATE, dim, self.hidden),
            1 => (Roles::UP, dim, self.hidden),
            _ => (Roles::DOWN, self.hidden, dim),
        }
    }
}
