//! [`Pass`]: one stack over one sequence, in bounded units.
//!
//! | unit | of |
//! |---|---|
//! | embed | a tile of tokens |
//! | keys (encoder) | a tile in a block: every token's keys and values must be there before the first looks at them |
//! | block | a tile in a block: attention, cross-attention, feed-forward |
//! | end | a tile: the last norm |
//! | cross | a tile of the encoder's output, for a block of the decoder |

use super::block::BlockOf;
use super::network::{Given, Network, Span, Token};
use super::scratch::{SequenceScratch, TILE};
use super::sequence::{Sequence, Source};
use super::store::Cache;
use crate::fixed::{Block, Tile};
use crate::layer::ShapeError;
use crate::layer::normalize::Normalize;
use crate::model::run::{RunError, check_adapters};
use crate::model::spec::{Stack, Transformer};
use crate::model::{Active, Model};

/// Where a pass stands. `first`: of the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Embed { first: usize },
    Keys { layer: u16, first: usize },
    Block { layer: u16, first: usize },
    End { first: usize },
    Cross { layer: u16, first: usize },
    Done,
}

/// One stack over one sequence, under way. Between units its state lies in the scratch and in the cache, which must be
/// left alone meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'p, 'm> {
    net: Network<'p, 'm>,
    stack: Stack,
    sequence: Sequence<'p>,
    /// Position of the first token.
    base: usize,
    unit: Unit,
}

impl<'p, 'm> Pass<'p, 'm> {
    /// Begins a pass of the encoder.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn encode(
        model: &'p Model<'m>,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
        sequence: Sequence<'p>,
        adapters: &'p [Active<'p>],
    ) -> Result<Pass<'p, 'm>, RunError> {
        let t = model.transformer()?;
        let capacity = scratch.encoder.shape.capacity;
        let pass = Pass::start(model, t, scratch, Stack::Encoder, sequence, adapters, capacity)?;
        for (i, valid) in scratch.encoder_valid.iter_mut().enumerate() {
            *valid = u8::from(sequence.is_valid(i));
        }
        if t.has_cross() {
            check_store(t, cache, scratch)?;
            cache.clear();
            for (to, &from) in cache.source_valid.iter_mut().zip(scratch.encoder_valid.iter()) {
                *to = from;
            }
        }
        Ok(pass)
    }

    /// Begins a pass of the decoder over the next tokens of a text.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn decode(
        model: &'p Model<'m>,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
        sequence: Sequence<'p>,
        adapters: &'p [Active<'p>],
    ) -> Result<Pass<'p, 'm>, RunError> {
        let t = model.transformer()?;
        let limit = scratch.lengths.tokens;
        let mut pass = Pass::start(model, t, scratch, Stack::Decoder, sequence, adapters, limit)?;
        check_store(t, cache, scratch)?;
        if t.has_cross() && cache.source_len == 0 {
            return Err(RunError::NoSource);
        }
        pass.base = cache.len;
        let needed = cache.len + sequence.len();
        let capacity = cache.capacity().min(t.positions);
        if needed > capacity {
            return Err(RunError::Context { needed, capacity });
        }
        for (i, valid) in cache.valid.iter_mut().skip(cache.len).take(sequence.len()).enumerate() {
            *valid = u8::from(sequence.is_valid(i));
        }
        Ok(pass)
    }

    /// What both stacks check.
    fn start(
        model: &'p Model<'m>,
        t: &'p Transformer,
        scratch: &mut SequenceScratch<'_>,
        stack: Stack,
        sequence: Sequence<'p>,
        adapters: &'p [Active<'p>],
        limit: usize,
    ) -> Result<Pass<'p, 'm>, RunError> {
        if t.blocks(stack) == 0 {
            return Err(RunError::Architecture);
        }
        scratch.check(model.spec(), t)?;
        check_adapters(model, adapters)?;
        check_sequence(model, t, sequence, limit)?;
        scratch.len = 0;
        let net = Network { model, t, adapters, learns: None, masks: None };
        Ok(Pass { net, stack, sequence, base: 0, unit: Unit::Embed { first: 0 } })
    }

    /// Runs the next unit; returns whether there are more.
    ///
    /// # Errors
    /// [`RunError::Shape`] where scratch or cache are another plan's.
    pub fn advance(&mut self, scratch: &mut SequenceScratch<'_>, cache: &mut Cache<'_>) -> Result<bool, RunError> {
        let blocks = self.net.t.blocks(self.stack);
        let encoder = self.stack == Stack::Encoder;
        let block_or_keys =
            |layer| if encoder { Unit::Keys { layer, first: 0 } } else { Unit::Block { layer, first: 0 } };
        self.unit = match self.unit {
            Unit::Embed { first } => {
                self.embed(self.span(first), scratch)?;
                self.next(first, |first| Unit::Embed { first }).unwrap_or(block_or_keys(0))
            }
            Unit::Keys { layer, first } => {
                self.keys(layer, self.span(first), scratch)?;
                let next = self.next(first, |first| Unit::Keys { layer, first });
                next.unwrap_or(Unit::Block { layer, first: 0 })
            }
            Unit::Block { layer, first } => {
                self.block(layer, self.span(first), scratch, cache)?;
                let next = self.next(first, |first| Unit::Block { layer, first });
                let behind = if layer + 1 < blocks { block_or_keys(layer + 1) } else { Unit::End { first: 0 } };
                next.unwrap_or(behind)
            }
            Unit::End { first } => {
                self.end(self.span(first), scratch)?;
                let cross = encoder && self.net.t.has_cross();
                let behind = if cross { Unit::Cross { layer: 0, first: 0 } } else { Unit::Done };
                self.next(first, |first| Unit::End { first }).unwrap_or(behind)
            }
            Unit::Cross { layer, first } => {
                self.cross_keys(layer, self.span(first), scratch, cache)?;
                let last = layer + 1 == self.net.t.decoder;
                let behind = if last { Unit::Done } else { Unit::Cross { layer: layer + 1, first: 0 } };
                self.next(first, |first| Unit::Cross { layer, first }).unwrap_or(behind)
            }
            Unit::Done => return Ok(false),
        };
        if self.unit != Unit::Done {
            return Ok(true);
        }
        scratch.len = self.sequence.len();
        match self.stack {
            Stack::Encoder => cache.source_len = if self.net.t.has_cross() { scratch.len } else { 0 },
            Stack::Decoder => cache.len = self.base + scratch.len,
        }
        Ok(false)
    }

    /// The block that the next unit is of, or, if it is not of one, how many have been finished: for whoever looks at the
    /// stream from outside.
    #[must_use]
    pub const fn layer(&self) -> u16 {
        match self.unit {
            Unit::Embed { .. } => 0,
            Unit::Keys { layer, .. } | Unit::Block { layer, .. } => layer,
            _ => self.net.t.blocks(self.stack),
        }
    }

    fn span(&self, first: usize) -> Span {
        let count = (self.sequence.len() - first).min(TILE);
        Span { first, count, position: self.base + first }
    }

    /// The unit of the next tile, if there is one.
    fn next(&self, first: usize, unit: impl Fn(usize) -> Unit) -> Option<Unit> {
        let next = first + TILE;
        (next < self.sequence.len()).then(|| unit(next))
    }

    const fn of(&self, stack: Stack, layer: u16) -> BlockOf<'_, 'm> {
        BlockOf { net: &self.net, stack, layer }
    }

    fn embed(&self, span: Span, scratch: &mut SequenceScratch<'_>) -> Result<(), ShapeError> {
        let (model, width) = (self.net.model, self.net.model.spec().features);
        let normalize = model.normalize();
        let mut s = scratch.split(self.net.t.dim);
        for index in span.first..span.first + span.count {
            let position = span.position + index - span.first;
            let kind = self.sequence.types.and_then(|types| types.get(index)).map_or(0, |&kind| usize::from(kind));
            let given = match self.sequence.source {
                Source::Tokens(ids) => Given::Id(ids.get(index).map_or(0, |&id| id as usize)),
                Source::Features(samples, _) => {
                    let mantissas = crate::layer::first("scratch.a", s.tiles.a, width)?;
                    let part = samples.part(index * width..(index + 1) * width);
                    let exponent = Normalize::forward(normalize.as_ref(), part, mantissas, s.rows.acc)?;
                    Given::Features(Block { mantissas, exponent })
                }
            };
            let token = Token { index, position, kind, given };
            self.net.embed(&token, &mut s.stream, s.tiles.x, s.rows)?;
        }
        Ok(())
    }

    fn keys(&self, layer: u16, span: Span, scratch: &mut SequenceScratch<'_>) -> Result<(), ShapeError> {
        let s = scratch.split(self.net.t.dim);
        self.of(self.stack, layer).keys(span, 0, &s.stream, s.encoder, s.tiles, s.rows)
    }

    fn block(
        &self,
        layer: u16,
        span: Span,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
    ) -> Result<(), ShapeError> {
        let mut s = scratch.split(self.net.t.dim);
        let block = self.of(self.stack, layer);
        let masked = self.sequence.valid.is_some();
        match self.stack {
            Stack::Encoder => {
                let valid = masked.then_some(s.encoder_valid);
                block.attend(span, 0, self.sequence.len(), valid, &mut s.stream, s.encoder, s.tiles, s.rows)?;
            }
            Stack::Decoder => {
                let (at, valid) = (usize::from(layer), Some(&*cache.valid));
                block.attend(span, at, 0, valid, &mut s.stream, &mut cache.own, s.tiles, s.rows)?;
                let (keys, valid) = (cache.source_len, &*cache.source_valid);
                block.cross(span, at, keys, valid, &mut s.stream, &cache.cross, s.tiles, s.rows)?;
            }
        }
        block.feed(span, &mut s.stream, s.tiles, s.rows)
    }

    fn end(&self, span: Span, scratch: &mut SequenceScratch<'_>) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        let s = scratch.split(dim);
        let hidden = s.hidden.get_mut(span.first * dim..(span.first + span.count) * dim).unwrap_or_default();
        let exponents = s.hidden_exponents.get_mut(span.first..span.first + span.count).unwrap_or_default();
        for (i, (out, e)) in hidden.chunks_exact_mut(dim).zip(exponents).enumerate() {
            *e = self.net.end(self.stack, span.first + i, &s.stream, out, s.rows.acc)?;
        }
        Ok(())
    }

    fn cross_keys(
        &self,
        layer: u16,
        span: Span,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
    ) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        let s = scratch.split(dim);
        let memory = Tile {
            mantissas: s.hidden.get(span.first * dim..(span.first + span.count) * dim).unwrap_or(&[]),
            exponents: s.hidden_exponents.get(span.first..span.first + span.count).unwrap_or(&[]),
        };
        self.of(Stack::Decoder, layer).cross_keys(span, usize::from(layer), memory, &mut cache.cross, s.tiles, s.rows)
    }
}

/// Whether a sequence is one that the network takes, of at most `limit` tokens.
pub(crate) fn check_sequence(
    model: &Model<'_>,
    t: &Transformer,
    sequence: Sequence<'_>,
    limit: usize,
) -> Result<(), RunError> {
    let (found, limit) = (sequence.len(), limit.min(t.positions));
    if found == 0 || found > limit {
        return Err(RunError::Length { found, limit });
    }
    let exactly = |expected: usize, found: Option<usize>| match found {
        Some(found) if found != expected => Err(RunError::Input { expected, found }),
        _ => Ok(()),
    };
    exactly(found, sequence.types.map(<[u8]>::len))?;
    exactly(found, sequence.valid.map(<[bool]>::len))?;
    match sequence.source {
        Source::Tokens(ids) => {
            if t.vocab == 0 {
                return Err(RunError::InputKind);
            }
            if let Some((index, &found)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= t.vocab) {
                return Err(RunError::Token { index, found, vocab: t.vocab });
            }
        }
        Source::Features(samples, steps) => {
            if t.vocab != 0 {
                return Err(RunError::InputKind);
            }
            exactly(steps * model.spec().features, Some(samples.len()))?;
        }
    }
    if let Some((index, &found)) = sequence
        .types
        .and_then(|types| types.iter().enumerate().find(|(_, found)| t.types > 0 && usize::from(**found) >= t.types))
    {
        return Err(RunError::Token { index, found: u32::from(found), vocab: t.types });
    }
    Ok(())
}

/// Whether a cache has the dimensions that the network and the scratch need.
fn check_store(t: &Transformer, cache: &Cache<'_>, scratch: &SequenceScratch<'_>) -> Result<(), RunError> {
    let exactly = |operand, needed: usize, found: usize| {
        if needed == found { Ok(()) } else { Err(RunError::Shape(ShapeError { operand, needed, found })) }
    };
    let own = &cache.own.shape;
    exactly("cache's layers", usize::from(t.decoder), own.layers)?;
    exactly("cache's heads", t.kv_heads, own.heads)?;
    exactly("cache's width", t.head_dim, own.width)?;
    let keys = own.capacity.max(cache.cross.shape.capacity);
    if keys > scratch.rows.scores.len() {
        return Err(RunError::Shape(ShapeError {
            operand: "scratch.scores",
            needed: keys,
            found: scratch.rows.scores.len(),
        }));
    }
    if t.has_cross() {
        exactly("cache's source", scratch.encoder.shape.capacity, cache.cross.shape.capacity)?;
    }
    Ok(())
}
