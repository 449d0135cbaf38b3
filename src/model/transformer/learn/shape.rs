//! How long the buffers of a transformer are while it learns.

use super::keeps::Keeps;
use crate::fixed::Exp;
use crate::layer::gradient::TILE as GRADIENT_TILE;
use crate::memory::carved_bytes;
use crate::model::plan::max;
use crate::model::spec::{Flags, Spec, Stack, Transformer};
use crate::model::transformer::scratch::{SequencePlan, TILE};
use crate::model::transformer::store::StoreShape;

/// What a plan says of learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LearnPlan {
    pub(crate) sequence: SequencePlan,
    pub(crate) rank: usize,
    pub(crate) dropout: bool,
    /// Whether an output can be given its gradient, token by token.
    pub(crate) cotangents: bool,
    /// Whether the inputs of every second block are kept only.
    pub(crate) lean: bool,
    /// The lowest layer that learns.
    pub(crate) lowest: u16,
}

impl LearnPlan {
    /// Which inputs of blocks are kept.
    pub(crate) const fn keeps(&self, t: &Transformer) -> Keeps {
        Keeps { blocks: t.encoder as usize + t.decoder as usize, floor: place_of(t, self.lowest), lean: self.lean }
    }
}

/// How many values each buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LearnShape {
    pub(crate) dim: usize,
    /// Tokens of the stack that the head looks at, and of the encoder below it.
    pub(crate) own: usize,
    pub(crate) source: usize,
    pub(crate) wide_stream: bool,
    /// Inputs of blocks that are kept.
    pub(crate) slots: usize,
    pub(crate) kv: StoreShape,
    pub(crate) cross: StoreShape,
    pub(crate) queries: StoreShape,
    /// Gradients of one head's keys, and of its values.
    pub(crate) accumulators: usize,
    /// The encoder's output, and its gradient.
    pub(crate) memory: usize,
    pub(crate) d_memory: usize,
    pub(crate) ids: usize,
    pub(crate) kinds: usize,
    pub(crate) features: usize,
    pub(crate) outputs: usize,
    pub(crate) cotangents: usize,

    /// What a unit of a block computes in, one of its attention's way back, and one of what is behind all blocks: in the same memory.
    pub(crate) block: DeskShape,
    pub(crate) pairs: DeskShape,
    pub(crate) head: DeskShape,
}

/// How many values the buffers of one unit hold. Contents mean nothing between units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeskShape {
    pub(crate) dim: usize,
    pub(crate) tile: usize,
    /// The widest vector.
    pub(crate) row: usize,
    pub(crate) heads: usize,
    pub(crate) keys: usize,
    pub(crate) weights: usize,
    pub(crate) slopes: usize,
    pub(crate) acc: usize,
    pub(crate) vector: usize,
    pub(crate) rank: usize,
    pub(crate) masked: usize,
    pub(crate) outputs: usize,
}

/// What the larger buffers of a sample are for, one after the other.
#[cfg(feature = "train")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The stream, and the target until the loss is known.
    Stream,
    /// The way back through attention: queries, and the gradients of keys and values.
    Attention,
}

/// The place of a block among those of both stacks, or, for a layer behind them, how many there are.
pub(crate) const fn place_of(t: &Transformer, site: u16) -> usize {
    let mut place = 0;
    let mut at = 0;
    while at < 2 {
        let stack = if at == 0 { Stack::Encoder } else { Stack::Decoder };
        let mut layer = 0;
        while layer < t.blocks(stack) {
            if site <= t.block(stack, layer).down {
                return place;
            }
            place += 1;
            layer += 1;
        }
        at += 1;
    }
    place
}

impl LearnShape {
    pub(crate) const fn of(spec: &Spec, t: &Transformer, plan: LearnPlan) -> LearnShape {
        let own = plan.sequence.tokens;
        let source = if t.has_cross() { plan.sequence.source } else { 0 };
        let tokens = max(own, source);
        let all = own + source;
        let keeps = plan.keeps(t);
        // Beside inputs what the encoder ends with, where its gradient is needed.
        let encoder_learns = t.has_cross() && keeps.floor < t.encoder as usize;
        let slots = keeps.slots() + encoder_learns as usize;
        let (heads, width) = (t.kv_heads, t.head_dim);
        let inside = if t.flags.has(Flags::FUSED) { t.query_width() + 2 * t.kv_width() } else { t.query_width() };
        let row = max(max(t.dim, t.hidden), max(max(inside, t.kv_width()), spec.features));
        let tile = if tokens < TILE { tokens } else { TILE };
        LearnShape {
            dim: t.dim,
            own,
            source,
            wide_stream: t.flags.has(Flags::WIDE),
            slots,
            kv: StoreShape { layers: 1, heads, capacity: tokens, width },
            cross: StoreShape { layers: t.has_cross() as usize, heads, capacity: source, width },
            queries: StoreShape { layers: 1, heads: t.heads, capacity: tokens, width },
            accumulators: tokens * width,
            memory: source * t.dim,
            d_memory: if encoder_learns { source * t.dim } else { 0 },
            ids: if t.vocab > 0 { all } else { 0 },
            kinds: if t.types > 0 { all } else { 0 },
            features: if t.vocab > 0 { 0 } else { all * spec.features },
            outputs: spec.outputs,
            cotangents: if plan.cotangents { own * spec.outputs } else { 0 },
            block: DeskShape {
                dim: t.dim,
                tile,
                row,
                heads: t.heads,
                keys: tokens,
                weights: tokens,
                slopes: 0,
                // A lean plan takes one token at a time through forward.
                acc: max(2 * t.dim, if plan.lean { row } else { tile * row }),
                vector: row,
                rank: 2 * plan.rank * if tile < GRADIENT_TILE { tile } else { GRADIENT_TILE },
                masked: if plan.dropout { tile * row } else { 0 },
                outputs: 0,
            },
            pairs: DeskShape {
                dim: 0,
                tile,
                row: width,
                heads: 0,
                keys: tokens,
                weights: tile * tokens,
                slopes: tile * tokens,
                acc: width,
                vector: 0,
                rank: 0,
                masked: 0,
                outputs: 0,
            },
            head: DeskShape {
                dim: t.dim,
                tile: 1,
                row: t.dim,
                heads: 0,
                keys: 0,
                weights: 0,
                slopes: 0,
                acc: max(2 * t.dim, spec.outputs),
                vector: max(t.dim, spec.outputs),
                rank: 2 * plan.rank,
                masked: if plan.dropout { t.dim } else { 0 },
                outputs: spec.outputs,
            },
        }
    }

    /// Tokens of a stack, at most.
    pub(crate) const fn tokens(&self) -> usize {
        max(self.own, self.source)
    }

    /// Bytes of a stream's mantissas.
    const fn stream_bytes(&self, rows: usize) -> usize {
        if self.wide_stream { carved_bytes::<i32>(rows * self.dim) } else { carved_bytes::<i16>(rows * self.dim) }
    }

    /// Bytes of what is kept between units.
    pub(crate) const fn work_bytes(&self) -> usize {
        let tokens = self.tokens();
        let middle = if self.source > 0 { tokens } else { 0 };
        let stream = self.stream_bytes(tokens)
            + carved_bytes::<Exp>(tokens)
            + carved_bytes::<u32>(self.own)
            + carved_bytes::<i16>(self.outputs)
            + carved_bytes::<i16>(self.cotangents)
            + carved_bytes::<Exp>(if self.cotangents > 0 { self.own } else { 0 });
        let attention = store_bytes(&self.queries) + 2 * carved_bytes::<i32>(self.accumulators);
        max(stream, attention)
            + self.stream_bytes(middle)
            + carved_bytes::<Exp>(middle)
            + self.stream_bytes(self.slots * tokens)
            + carved_bytes::<Exp>(self.slots * tokens)
            + carved_bytes::<i16>(tokens * self.dim)
            + carved_bytes::<Exp>(tokens)
            + store_bytes(&self.kv)
            + store_bytes(&self.cross)
            + carved_bytes::<i16>(self.memory)
            + carved_bytes::<Exp>(self.source)
            + carved_bytes::<i32>(self.d_memory)
            + carved_bytes::<Exp>(if self.d_memory > 0 { self.source } else { 0 })
            + carved_bytes::<u32>(self.ids)
            + carved_bytes::<u8>(self.kinds)
            + carved_bytes::<u8>(self.own + self.source)
            + carved_bytes::<i16>(self.features)
            + carved_bytes::<Exp>(if self.features > 0 { self.own + self.source } else { 0 })
    }

    /// Bytes of what a unit computes in.
    pub(crate) const fn desk_bytes(&self) -> usize {
        max(max(self.block.bytes(), self.pairs.bytes()), self.head.bytes())
    }
}

impl DeskShape {
    /// Bytes of all buffers.
    const fn bytes(&self) -> usize {
        carved_bytes::<i16>(self.tile * self.dim)
            + 4 * carved_bytes::<i16>(self.tile * self.row)
            + 5 * carved_bytes::<Exp>(self.tile)
            + 2 * carved_bytes::<i16>(self.row)
            + carved_bytes::<Exp>(self.heads)
            + carved_bytes::<i32>(self.heads)
            + carved_bytes::<i32>(self.keys)
            + carved_bytes::<i16>(self.weights)
            + carved_bytes::<i32>(self.slopes)
            + carved_bytes::<i64>(self.acc)
            + carved_bytes::<i16>(self.masked)
            + carved_bytes::<i16>(self.vector)
            + carved_bytes::<i16>(self.rank)
            + 2 * carved_bytes::<i16>(self.outputs)
    }
}

const fn store_bytes(shape: &StoreShape) -> usize {
    carved_bytes::<i16>(shape.elements()) + carved_bytes::<Exp>(shape.rows())
}
