//! What each unit does with the buffers.

use super::desk::Desk;
use super::unit::{Course, Step, Unit};
use super::work::Work;
use crate::fixed::{Block, Exp, Real, Tile, TileMut};
use crate::layer::{ShapeError, first};
use crate::model::spec::Stack;
use crate::model::transformer::block::{BlockOf, Looks, Sight, Sums};
use crate::model::transformer::network::{Given, Network, Span, Token, tile};
use crate::model::transformer::scratch::TILE;
use crate::train::learner::Gradients;
use crate::train::loss::Staged;
use crate::train::score::Scored;

/// One sample on its way through a transformer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lesson<'p, 'm> {
    pub(crate) net: Network<'p, 'm>,
    pub(crate) course: Course<'p>,
    pub(crate) objective: Objective,
}

/// What the sample should have come out as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Objective {
    /// The pooled output.
    Pooled {
        staged: Staged,
        /// The vector that is pooled, unless it is their mean.
        index: Option<usize>,
    },
    /// A class for each token that has a label; `share`: one over their number.
    Tokens { share: Real },
    /// The gradient of every token's output.
    Cotangents,
}

impl<'p, 'm> Lesson<'p, 'm> {
    const fn of(&self, unit: &Unit) -> BlockOf<'_, 'm> {
        BlockOf { net: &self.net, stack: unit.stack, layer: unit.layer }
    }

    fn span(&self, unit: &Unit, tokens: usize) -> Span {
        Span { first: unit.first, count: (tokens - unit.first.min(tokens)).min(TILE), position: unit.first }
    }

    /// Whether a tile is the last of a stack.
    fn ends(&self, unit: &Unit) -> bool {
        unit.first + TILE >= self.course.tokens(unit.stack)
    }

    /// Where a stack's tokens begin among those of the sample.
    fn offset(&self, stack: Stack) -> usize {
        if stack == self.course.last() { self.course.source } else { 0 }
    }

    /// Runs a unit; returns the loss, where it computed one.
    pub(crate) fn run(
        &self,
        unit: &mut Unit,
        work: &mut Work<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<Option<Scored>, ShapeError> {
        let tokens = self.course.tokens(unit.stack);
        let span = self.span(unit, tokens);
        match unit.step {
            Step::Embed | Step::EmbedAgain => self.embed(unit, span, work, desk)?,
            Step::Keys | Step::KeysAgain => {
                self.keep_or_fetch(unit, work);
                let stream = &work.stream.all();
                self.of(unit).keys(span, 0, stream, &mut work.kv, &mut desk.tiles, &mut desk.rows)?;
            }
            Step::CrossKeys | Step::CrossKeysAgain => {
                self.keep_or_fetch(unit, work);
                let span = self.span(unit, self.course.source);
                let memory = memory_of(&work.memory, span, self.net.t.dim);
                self.of(unit).cross_keys(span, 0, memory, &mut work.cross, &mut desk.tiles, &mut desk.rows)?;
            }
            Step::Block | Step::Again => self.forward(unit, span, work, desk)?,
            Step::Memory => self.memory(span, work, desk)?,
            Step::Head => return self.head(unit, work, desk, learn),
            Step::Feed => {
                let sites = self.net.t.block(unit.stack, unit.layer);
                let through = self.course.through(sites.gate.unwrap_or(sites.up));
                let (stream, gradient) = (&work.stream.all(), &mut work.gradient.all());
                self.of(unit).feed_back(span, stream, gradient, through, desk, learn)?;
            }
            Step::CrossQueries => {
                let sight = Sight {
                    looks: Looks::Cross,
                    keys: self.course.source,
                    valid: Some(source(work.valid, &self.course)),
                };
                let (stream, gradient) = (&work.middle.all(), &mut work.gradient.all());
                let (kv, queries) = (&work.cross, &mut work.queries);
                self.of(unit).queries_back(&sight, span, stream, gradient, kv, queries, desk, learn)?;
            }
            Step::CrossPairs => {
                let sight = Sight {
                    looks: Looks::Cross,
                    keys: self.course.source,
                    valid: Some(source(work.valid, &self.course)),
                };
                let (last, block) = (self.ends(unit), self.of(unit));
                let sums = &mut Sums { dk: work.dk, dv: work.dv, scales: &mut unit.scales };
                let (kv, queries) = (&mut work.cross, &mut work.queries);
                block.pairs_back(&sight, unit.head, span, kv, queries, sums, last, desk)?;
            }
            Step::CrossInputs => {
                let query = self.net.t.block(unit.stack, unit.layer).cross.map_or(0, |[query, ..]| query);
                let (stream, gradient) = (&work.middle.all(), &mut work.gradient.all());
                let (kv, queries, through) = (&work.cross, &work.queries, self.course.through(query));
                self.of(unit).inputs_back(Looks::Cross, span, stream, gradient, kv, queries, through, desk, learn)?;
            }
            Step::CrossMemory => {
                let span = self.span(unit, self.course.source);
                let memory = memory_of(&work.memory, span, self.net.t.dim);
                let d_memory = self.course.end_slot().map(|_| work.d_memory.all());
                self.of(unit).memory_back(span, memory, d_memory, &work.cross, desk, learn)?;
            }
            Step::Queries => {
                let sight = self.sight(unit.stack, tokens, work.valid);
                let slot = self.slot(unit, work);
                let (stream, gradient) = (&work.slots.from(slot), &mut work.gradient.all());
                let (kv, queries) = (&work.kv, &mut work.queries);
                self.of(unit).queries_back(&sight, span, stream, gradient, kv, queries, desk, learn)?;
            }
            Step::Pairs => {
                let sight = self.sight(unit.stack, tokens, work.valid);
                let (last, block) = (self.ends(unit), self.of(unit));
                let sums = &mut Sums { dk: work.dk, dv: work.dv, scales: &mut unit.scales };
                let (kv, queries) = (&mut work.kv, &mut work.queries);
                block.pairs_back(&sight, unit.head, span, kv, queries, sums, last, desk)?;
            }
            Step::Inputs => {
                let slot = self.slot(unit, work);
                let (stream, gradient) = (&work.slots.from(slot), &mut work.gradient.all());
                let through = self.course.through(self.net.t.block(unit.stack, unit.layer).query);
                let (kv, queries) = (&work.kv, &work.queries);
                self.of(unit).inputs_back(Looks::Own, span, stream, gradient, kv, queries, through, desk, learn)?;
            }
            Step::End => self.end(span, work, desk)?,
            Step::Projection => self.projection(unit.stack, span, work, desk, learn)?,
        }
        Ok(None)
    }

    fn sight<'v>(&self, stack: Stack, tokens: usize, valid: &'v [u8]) -> Sight<'v> {
        let from = self.offset(stack);
        Sight { looks: Looks::Own, keys: tokens, valid: valid.get(from..from + tokens) }
    }

    /// Where the input of a unit's block is, in vectors.
    fn slot(&self, unit: &Unit, work: &Work<'_>) -> usize {
        self.course.keeps.slot(self.course.place_of(unit)) * work.rows
    }

    /// With the first unit of a block: keeps its input, or brings it back.
    fn keep_or_fetch(&self, unit: &Unit, work: &mut Work<'_>) {
        if unit.first > 0 {
            return;
        }
        let (place, tokens) = (self.course.place(unit.stack, unit.layer), self.course.tokens(unit.stack));
        let (keeps, slot) = (self.course.keeps, self.slot(unit, work));
        let kept = keeps.keeps(place);
        match unit.step {
            // It waits where that of the block above will be, unless it is kept.
            Step::Keys | Step::CrossKeys | Step::Block if unit.rebuilds => {
                let from = if kept { keeps.slot(place) * work.rows } else { slot };
                work.stream.copy_from(&work.slots, from, tokens);
            }
            // What only frozen blocks would need.
            Step::Keys | Step::CrossKeys | Step::Block
                if !kept || place + usize::from(keeps.lean) < self.course.low() => {}
            Step::Keys | Step::CrossKeys | Step::Block => work.stream.copy_to(&mut work.slots, slot, tokens),
            // It has just been computed again.
            _ if !kept && unit.layer > 0 => work.stream.copy_to(&mut work.slots, slot, tokens),
            _ => work.stream.copy_from(&work.slots, slot, tokens),
        }
    }

    fn embed(&self, unit: &Unit, span: Span, work: &mut Work<'_>, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let (stack, slot) = (unit.stack, self.slot(unit, work));
        let mut stream = if unit.step == Step::EmbedAgain { work.slots.from(slot) } else { work.stream.all() };
        let width = self.net.model.spec().features;
        for index in span.first..span.first + span.count {
            let at = self.offset(stack) + index;
            let kind = work.kinds.get(at).map_or(0, |&kind| usize::from(kind));
            let given = if self.net.t.vocab > 0 {
                Given::Id(work.ids.get(at).map_or(0, |&id| id as usize))
            } else {
                Given::Features(Block {
                    mantissas: work.features.mantissas.get(at * width..(at + 1) * width).unwrap_or(&[]),
                    exponent: work.features.exponents.get(at).copied().unwrap_or(Exp::ZERO),
                })
            };
            let token = Token { index, position: index, kind, given };
            self.net.embed(&token, &mut stream, desk.tiles.x, &mut desk.rows)?;
        }
        Ok(())
    }

    /// A block on a tile; or, again, as far as its feed-forward.
    fn forward(&self, unit: &Unit, span: Span, work: &mut Work<'_>, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let again = unit.step == Step::Again;
        if unit.stack == Stack::Decoder && !self.net.t.has_cross() {
            self.keep_or_fetch(unit, work);
        }
        let tokens = self.course.tokens(unit.stack);
        let block = self.of(unit);
        let sight = self.sight(unit.stack, tokens, work.valid);
        let stream = &mut work.stream.all();
        let (tiles, rows) = (&mut desk.tiles, &mut desk.rows);
        block.attend(span, 0, tokens, sight.valid, stream, &mut work.kv, tiles, rows)?;
        if unit.stack == Stack::Decoder && self.net.t.has_cross() {
            if again {
                let acc = rows.acc.get_mut(..self.net.t.dim).unwrap_or_default();
                let mut middle = work.middle.all();
                for token in span.first..span.first + span.count {
                    let exponent = stream.load(token, acc);
                    middle.store(token, acc, exponent);
                }
            }
            let valid = source(work.valid, &self.course);
            block.cross(span, 0, self.course.source, valid, stream, &work.cross, tiles, rows)?;
        }
        if again { Ok(()) } else { block.feed(span, stream, tiles, rows) }
    }

    /// The encoder's hidden states.
    fn memory(&self, span: Span, work: &mut Work<'_>, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        if let Some(slot) = self.course.end_slot().filter(|_| span.first == 0) {
            work.stream.copy_to(&mut work.slots, slot * work.rows, self.course.source);
            work.d_memory.clear();
        }
        let stream = &work.stream.all();
        for row in span.first..span.first + span.count {
            let out = work.memory.mantissas.get_mut(row * dim..(row + 1) * dim).unwrap_or_default();
            let exponent = self.net.end(Stack::Encoder, row, stream, out, desk.rows.acc)?;
            if let Some(e) = work.memory.exponents.get_mut(row) {
                *e = exponent;
            }
        }
        Ok(())
    }

    /// From the gradient of the encoder's hidden states to that of its last stream.
    fn end(&self, span: Span, work: &mut Work<'_>, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let (dim, slot) = (self.net.t.dim, self.course.end_slot().unwrap_or(0) * work.rows);
        for token in span.first..span.first + span.count {
            let acc = first("scratch.acc", desk.rows.acc, dim)?;
            let dy = first("scratch.c", desk.rows.c, dim)?;
            let exponent = work.d_memory.all().load(token, acc);
            let exponent = crate::fixed::block::requantize(acc, exponent, dy);
            let stream = work.slots.from(slot);
            self.net.end_back(
                Stack::Encoder,
                token,
                &stream,
                Block { mantissas: dy, exponent },
                &mut work.gradient.all(),
                desk.back.row,
                desk.rows.acc,
            )?;
        }
        Ok(())
    }

    /// The gradient of the adapter on the features' projection.
    fn projection(
        &self,
        stack: Stack,
        span: Span,
        work: &mut Work<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let (t, width) = (self.net.t, self.net.model.spec().features);
        let Some(site) = t.input_site() else { return Ok(()) };
        let at = self.offset(stack) + span.first;
        let x = Tile {
            mantissas: work.features.mantissas.get(at * width..(at + span.count) * width).unwrap_or(&[]),
            exponents: work.features.exponents.get(at..at + span.count).unwrap_or(&[]),
        };
        let gradient = &mut work.gradient.all();
        if let Some(norm) = t.embedding_norm() {
            // What went into the norm: as forward had it.
            let norm = self.net.model.norm(t, norm);
            for (i, x) in x.blocks().enumerate() {
                let index = span.first + i;
                let kind = work.kinds.get(self.offset(stack) + index).map_or(0, |&kind| usize::from(kind));
                let token = Token { index, position: index, kind, given: Given::Features(x) };
                let exponent = self.net.sum_of(&token, desk.tiles.x, &mut desk.rows)?;
                let (row, acc) = desk.rows.acc.split_at_mut_checked(t.dim).unwrap_or_default();
                let Some(dy) = gradient.narrow(index) else { continue };
                let dx = first("scratch.row", desk.back.row, t.dim)?;
                let exponent = norm.backward(row, exponent, dy, dx, acc)?;
                gradient.put(index, Block { mantissas: dx, exponent }, row);
            }
        }
        let dy = gradient.tile(span.first, span.count).unwrap_or(tile(&[], &[], 0, 0));
        self.net.linear_back(site, span, x, dy, None, &mut desk.rows, learn)
    }
}

/// Which tokens of the encoder count.
fn source<'v>(valid: &'v [u8], course: &Course<'_>) -> &'v [u8] {
    valid.get(..course.source).unwrap_or(&[])
}

fn memory_of<'w>(memory: &'w TileMut<'_>, span: Span, dim: usize) -> Tile<'w> {
    Tile {
        mantissas: memory.mantissas.get(span.first * dim..(span.first + span.count) * dim).unwrap_or(&[]),
        exponents: memory.exponents.get(span.first..span.first + span.count).unwrap_or(&[]),
    }
}
