//! The buffers of a transformer, and how long each must be.

use super::store::{Cache, CacheType, Plane, Store, StoreShape};
use crate::fixed::Exp;
use crate::layer::residual::{Mantissas, StreamMut};
use crate::layer::{Linear, ShapeError, linear};
use crate::memory::{Workspace, carved_bytes};
use crate::model::plan::max;
use crate::model::spec::{Flags, Spec, Transformer};

/// Tokens that go through a layer together.
pub(crate) const TILE: usize = 4;

/// What a plan says of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequencePlan {
    /// Tokens a call, at most.
    pub(crate) tokens: usize,
    /// Tokens of the encoder's input, where a decoder looks at it.
    pub(crate) source: usize,
    /// Tokens that a decoder remembers.
    pub(crate) context: usize,
    /// How it remembers them.
    pub(crate) cache: CacheType,
}

/// How many values each buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceLengths {
    /// Rows of the stream.
    pub(crate) tokens: usize,
    pub(crate) narrow: usize,
    pub(crate) wide: usize,
    pub(crate) hidden: usize,
    /// Of one layer of the encoder.
    pub(crate) encoder: StoreShape,
    /// Of the decoder's layers.
    pub(crate) own: StoreShape,
    pub(crate) cross: StoreShape,
    pub(crate) tile: usize,
    /// A tile of the stream's width.
    pub(crate) x: usize,
    /// A tile of the widest layer inside a block.
    pub(crate) a: usize,
    pub(crate) b: usize,
    /// One token of the feed-forward's width.
    pub(crate) c: usize,
    pub(crate) heads: usize,
    /// Keys that a token can see.
    pub(crate) keys: usize,
    pub(crate) acc: usize,
    pub(crate) outputs: usize,
    pub(crate) cache: CacheType,
    /// As the plan has it.
    pub(crate) planned: SequencePlan,
}

impl SequenceLengths {
    pub(crate) const fn of(spec: &Spec, t: &Transformer, plan: SequencePlan) -> SequenceLengths {
        let encoder_tokens = if t.encoder == 0 {
            0
        } else if t.has_cross() {
            plan.source
        } else {
            plan.tokens
        };
        let decoder_tokens = if t.decoder == 0 { 0 } else { plan.tokens };
        let context = if t.decoder == 0 { 0 } else { max(plan.context, plan.tokens) };
        let tokens = max(encoder_tokens, decoder_tokens);
        let tile = if tokens < TILE { tokens } else { TILE };
        let (heads, width) = (t.kv_heads, t.head_dim);
        let encoder = StoreShape { layers: (t.encoder > 0) as usize, heads, capacity: encoder_tokens, width };
        let own = StoreShape { layers: t.decoder as usize, heads, capacity: context, width };
        let cross_layers = if t.has_cross() { t.decoder as usize } else { 0 };
        let cross = StoreShape { layers: cross_layers, heads, capacity: encoder_tokens, width };
        let wide = t.flags.has(Flags::WIDE);
        let inside = max(max(t.query_width(), t.kv_width()), t.hidden);
        let a = tile * max(inside, spec.features);
        let b = tile * max(t.query_width(), if t.flags.has(Flags::GATED) { t.hidden } else { 0 });
        let acc = max(max(Linear::acc_len(t.dim, inside, tile), Linear::acc_len(inside, t.dim, tile)), spec.outputs);
        SequenceLengths {
            tokens,
            narrow: if wide { 0 } else { tokens * t.dim },
            wide: if wide { tokens * t.dim } else { 0 },
            hidden: tokens * t.dim,
            encoder,
            own,
            cross,
            tile,
            x: tile * t.dim,
            a,
            b,
            c: max(t.hidden, t.dim),
            heads: t.heads,
            keys: max(encoder_tokens, context),
            acc: max(acc, spec.features),
            outputs: spec.outputs,
            cache: plan.cache,
            planned: plan,
        }
    }

    /// Bytes of the scratch.
    pub(crate) const fn scratch_bytes(&self) -> usize {
        carved_bytes::<i16>(self.narrow)
            + carved_bytes::<i32>(self.wide)
            + 2 * carved_bytes::<Exp>(self.tokens)
            + carved_bytes::<i16>(self.hidden)
            + store_bytes(&self.encoder, CacheType::I16)
            + carved_bytes::<u8>(self.encoder.capacity)
            + carved_bytes::<i16>(self.x)
            + carved_bytes::<i16>(self.a)
            + carved_bytes::<i16>(self.b)
            + carved_bytes::<i16>(self.c)
            + 3 * carved_bytes::<Exp>(self.tile)
            + carved_bytes::<Exp>(self.heads)
            + carved_bytes::<i32>(self.heads)
            + carved_bytes::<i32>(self.keys)
            + carved_bytes::<i16>(self.keys)
            + carved_bytes::<i64>(self.acc)
            + carved_bytes::<i16>(self.outputs)
    }

    /// Bytes of the cache.
    pub(crate) const fn cache_bytes(&self) -> usize {
        store_bytes(&self.own, self.cache)
            + carved_bytes::<u8>(self.own.capacity)
            + store_bytes(&self.cross, self.cache)
            + carved_bytes::<u8>(self.cross.capacity)
    }
}

const fn store_bytes(shape: &StoreShape, cache: CacheType) -> usize {
    let mantissas = match cache {
        CacheType::I16 => carved_bytes::<i16>(shape.elements()),
        CacheType::I8 => carved_bytes::<i8>(shape.elements()),
    };
    mantissas + carved_bytes::<Exp>(shape.rows())
}

/// The buffers that a transformer computes in. What a call leaves there serves the calls that ask for its outputs, and
/// means nothing after the next.
#[derive(Debug)]
pub struct SequenceScratch<'a> {
    /// The residual stream, in 16 bits or in 32: one of the two is empty. `(tokens, dim)`.
    pub(crate) narrow: &'a mut [i16],
    pub(crate) wide: &'a mut [i32],
    pub(crate) stream_exponents: &'a mut [Exp],
    /// What a stack ends with, `(tokens, dim)`.
    pub(crate) hidden: &'a mut [i16],
    pub(crate) hidden_exponents: &'a mut [Exp],
    /// How many of them are the last call's.
    pub(crate) len: usize,
    pub(crate) encoder: Store<'a>,
    pub(crate) encoder_valid: &'a mut [u8],
    pub(crate) tile: Tiles<'a>,
    pub(crate) rows: Rows<'a>,
    pub(crate) outputs: &'a mut [i16],
    pub(crate) lengths: SequenceLengths,
}

/// Tiles of tokens, with their exponents.
#[derive(Debug)]
pub(crate) struct Tiles<'a> {
    pub(crate) x: &'a mut [i16],
    pub(crate) x_exponents: &'a mut [Exp],
    pub(crate) a: &'a mut [i16],
    pub(crate) a_exponents: &'a mut [Exp],
    pub(crate) b: &'a mut [i16],
    pub(crate) b_exponents: &'a mut [Exp],
}

/// What one token, or one head, needs.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) c: &'a mut [i16],
    pub(crate) head_exponents: &'a mut [Exp],
    pub(crate) sum_exponents: &'a mut [i32],
    pub(crate) scores: &'a mut [i32],
    pub(crate) weights: &'a mut [i16],
    pub(crate) acc: &'a mut [i64],
    /// Dropped inputs; empty in inference.
    pub(crate) masked: &'a mut [i16],
    /// What layers need on the way back; empty in inference.
    pub(crate) vector: &'a mut [i16],
    pub(crate) rank: &'a mut [i16],
}

impl Rows<'_> {
    /// The part that layers compute in.
    pub(crate) fn linear(&mut self) -> linear::Scratch<'_> {
        linear::Scratch { acc: self.acc, vector: self.vector, rank: self.rank, masked: self.masked }
    }
}

impl<'a> SequenceScratch<'a> {
    pub(crate) fn carve(l: SequenceLengths, memory: &mut Workspace<'a>) -> SequenceScratch<'a> {
        SequenceScratch {
            narrow: memory.carve(l.narrow),
            wide: memory.carve(l.wide),
            stream_exponents: memory.carve(l.tokens),
            hidden: memory.carve(l.hidden),
            hidden_exponents: memory.carve(l.tokens),
            len: 0,
            encoder: carve_store(l.encoder, CacheType::I16, memory),
            encoder_valid: memory.carve(l.encoder.capacity),
            tile: Tiles {
                x: memory.carve(l.x),
                x_exponents: memory.carve(l.tile),
                a: memory.carve(l.a),
                a_exponents: memory.carve(l.tile),
                b: memory.carve(l.b),
                b_exponents: memory.carve(l.tile),
            },
            rows: Rows {
                c: memory.carve(l.c),
                head_exponents: memory.carve(l.heads),
                sum_exponents: memory.carve(l.heads),
                scores: memory.carve(l.keys),
                weights: memory.carve(l.keys),
                acc: memory.carve(l.acc),
                masked: &mut [],
                vector: &mut [],
                rank: &mut [],
            },
            outputs: memory.carve(l.outputs),
            lengths: l,
        }
    }

    /// The parts, borrowed at once.
    pub(crate) fn split(&mut self, dim: usize) -> Split<'_, 'a> {
        let mantissas = if self.lengths.wide > 0 { Mantissas::Wide(self.wide) } else { Mantissas::Narrow(self.narrow) };
        Split {
            stream: StreamMut { mantissas, exponents: self.stream_exponents, dim },
            hidden: self.hidden,
            hidden_exponents: self.hidden_exponents,
            encoder: &mut self.encoder,
            encoder_valid: self.encoder_valid,
            tiles: &mut self.tile,
            rows: &mut self.rows,
        }
    }

    /// Whether the buffers are those of a plan of this network.
    pub(crate) fn check(&self, spec: &Spec, t: &Transformer) -> Result<(), ShapeError> {
        let l = &self.lengths;
        let needed = SequenceLengths::of(spec, t, l.planned);
        let buffers = [
            ("scratch.stream", needed.narrow, l.narrow),
            ("scratch.stream", needed.wide, l.wide),
            ("scratch.hidden", needed.hidden, l.hidden),
            ("scratch.encoder", needed.encoder.elements(), l.encoder.elements()),
            ("scratch.encoder", needed.encoder.rows(), l.encoder.rows()),
            ("scratch.a", needed.a, l.a),
            ("scratch.b", needed.b, l.b),
            ("scratch.c", needed.c, l.c),
            ("scratch.heads", needed.heads, l.heads),
            ("scratch.acc", needed.acc, l.acc),
            ("scratch.outputs", needed.outputs, l.outputs),
        ];
        match buffers.iter().find(|(_, needed, found)| needed != found) {
            Some(&(operand, needed, found)) => Err(ShapeError { operand, needed, found }),
            None => Ok(()),
        }
    }

    /// Vectors that the last call left: the hidden state of each of its tokens.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no call has left any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A scratch's parts, the stream in one piece.
#[derive(Debug)]
pub(crate) struct Split<'s, 'a> {
    pub(crate) stream: StreamMut<'s>,
    pub(crate) hidden: &'s mut [i16],
    pub(crate) hidden_exponents: &'s mut [Exp],
    pub(crate) encoder: &'s mut Store<'a>,
    pub(crate) encoder_valid: &'s [u8],
    pub(crate) tiles: &'s mut Tiles<'a>,
    pub(crate) rows: &'s mut Rows<'a>,
}

impl<'a> Cache<'a> {
    pub(crate) fn carve(l: SequenceLengths, memory: &mut Workspace<'a>) -> Cache<'a> {
        Cache {
            own: carve_store(l.own, l.cache, memory),
            valid: memory.carve(l.own.capacity),
            len: 0,
            cross: carve_store(l.cross, l.cache, memory),
            source_valid: memory.carve(l.cross.capacity),
            source_len: 0,
        }
    }
}

pub(crate) fn carve_store<'a>(shape: StoreShape, cache: CacheType, memory: &mut Workspace<'a>) -> Store<'a> {
    let plane = match cache {
        CacheType::I16 => Plane::I16(memory.carve(shape.elements())),
        CacheType::I8 => Plane::I8(memory.carve(shape.elements())),
    };
    Store { plane, exponents: memory.carve(shape.rows()), shape }
}
