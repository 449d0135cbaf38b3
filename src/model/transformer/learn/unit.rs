//! The order of the units of one sample.
//!
//! ```text
//! forward    embed → (keys | cross keys)? → block → …  → memory (between the stacks) → …
//! head       a token, or the pooled vector: loss, and back to the stream
//! backward   (embed again | a block again, for the input)? → (keys | cross keys)? → again → feed → (cross: queries, pairs, inputs, memory)? → queries, pairs, inputs
//!            → the block below …  → end (between the stacks) → …  → the projection of features
//! ```
//!
//! It ends behind the lowest layer that learns.

use super::keeps::Keeps;
use super::shape::{Side, place_of};
use crate::layer::gradient::GradScale;
use crate::model::spec::{Stack, Transformer};
use crate::model::transformer::scratch::TILE;
use crate::train::Part;

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tokens come in.
    Embed,
    /// Keys and values of an encoder's block.
    Keys,
    /// Keys and values of the encoder's output.
    CrossKeys,
    /// A block.
    Block,
    /// What the encoder ends with.
    Memory,
    /// From the stream to the loss and back.
    Head,
    /// The input of a block, looked up again.
    EmbedAgain,
    /// Keys and values, computed again.
    KeysAgain,
    CrossKeysAgain,
    /// Attention, computed again.
    Again,
    /// Back through the feed-forward.
    Feed,
    /// Back through attention to the encoder's output.
    CrossQueries,
    CrossPairs,
    CrossInputs,
    CrossMemory,
    /// Back through attention.
    Queries,
    Pairs,
    Inputs,
    /// Back through what the encoder ends with.
    End,
    /// The adapter of the features' projection.
    Projection,
}

/// A unit of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) step: Step,
    pub(crate) stack: Stack,
    pub(crate) layer: u16,
    /// Of keys and values.
    pub(crate) head: usize,
    /// Whether the block is run for the input of the one above, once more.
    pub(crate) rebuilds: bool,
    /// The tile's first token.
    pub(crate) first: usize,
    /// Of the gradients of one head's keys and values.
    pub(crate) scales: [GradScale; 2],
}

impl Unit {
    /// What it is of.
    pub(crate) const fn part(&self) -> Part {
        match self.step {
            Step::Embed | Step::Keys | Step::CrossKeys | Step::Block if self.rebuilds => Part::Again,
            Step::Embed | Step::Keys | Step::CrossKeys | Step::Block | Step::Memory => Part::Forward,
            Step::Head => Part::Loss,
            Step::EmbedAgain | Step::KeysAgain | Step::CrossKeysAgain | Step::Again => Part::Again,
            Step::Feed | Step::End => Part::Backward,
            Step::CrossPairs | Step::Pairs => Part::Attention,
            Step::CrossQueries
            | Step::CrossInputs
            | Step::CrossMemory
            | Step::Queries
            | Step::Inputs
            | Step::Projection => Part::Projections,
        }
    }

    /// Whether gradients come of it.
    pub(crate) const fn goes_back(&self) -> bool {
        !matches!(self.part(), Part::Forward)
    }

    /// What it needs of the buffers that share their memory.
    pub(crate) const fn side(&self) -> Side {
        match self.part() {
            Part::Attention | Part::Projections => Side::Attention,
            _ => Side::Stream,
        }
    }

    /// Whether it computes a part of the loss.
    pub(crate) const fn is_head(&self) -> bool {
        matches!(self.step, Step::Head)
    }
}

/// What the order depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course<'p> {
    pub(crate) t: &'p Transformer,
    /// Tokens of the stack that the head looks at, and of the encoder below it.
    pub(crate) own: usize,
    pub(crate) source: usize,
    /// The lowest layer that learns.
    pub(crate) lowest: u16,
    /// Which inputs of blocks are kept.
    pub(crate) keeps: Keeps,
    /// Whether every token has an output of its own.
    pub(crate) by_token: bool,
}

impl Course<'_> {
    /// The stack that the head looks at.
    pub(crate) const fn last(&self) -> Stack {
        if self.t.decoder > 0 { Stack::Decoder } else { Stack::Encoder }
    }

    /// Tokens of a stack.
    pub(crate) const fn tokens(&self, stack: Stack) -> usize {
        match stack {
            Stack::Encoder if self.t.has_cross() => self.source,
            _ => self.own,
        }
    }

    /// The place of a block among all.
    pub(crate) fn place(&self, stack: Stack, layer: u16) -> usize {
        let below = if stack == Stack::Decoder { self.t.encoder } else { 0 };
        usize::from(below) + usize::from(layer)
    }

    /// The place of a unit among the blocks: behind them all is the head.
    pub(crate) fn place_of(&self, unit: &Unit) -> usize {
        match unit.step {
            Step::Head => usize::from(self.t.encoder) + usize::from(self.t.decoder),
            // Still of the block above.
            Step::End => usize::from(self.t.encoder),
            // Of the block that is rebuilt.
            _ => self.place(unit.stack, unit.layer) + usize::from(unit.rebuilds),
        }
    }

    /// The lowest block that a gradient goes through.
    pub(crate) const fn low(&self) -> usize {
        place_of(self.t, self.lowest)
    }

    /// Where the encoder's last stream is kept, if it is: behind all others.
    pub(crate) fn end_slot(&self) -> Option<usize> {
        (self.t.has_cross() && self.low() < usize::from(self.t.encoder)).then(|| self.keeps.slots())
    }

    /// Tokens that the tiles of a step go over.
    fn length(&self, unit: &Unit) -> usize {
        match unit.step {
            Step::CrossKeys | Step::CrossKeysAgain | Step::CrossMemory => self.source,
            Step::Head => 1,
            _ => self.tokens(unit.stack),
        }
    }

    /// The first unit.
    pub(crate) fn start(&self) -> Unit {
        let stack = if self.t.encoder > 0 { Stack::Encoder } else { Stack::Decoder };
        Unit { step: Step::Embed, stack, layer: 0, head: 0, rebuilds: false, first: 0, scales: [GradScale::EMPTY; 2] }
    }

    /// The first unit of a block, by its place among all of a network with one stack; of the head, behind them all.
    pub(crate) fn behind(&self, place: usize) -> Unit {
        let start = Unit { stack: self.last(), ..self.start() };
        if place < usize::from(self.t.blocks(self.last())) {
            self.enter_block(start, place as u16)
        } else {
            Unit { step: Step::Head, ..start }
        }
    }

    /// The unit behind one; `None` where the sample is done.
    pub(crate) fn next(&self, unit: Unit) -> Option<Unit> {
        let by_token = unit.step == Step::Head && self.by_token;
        let (step, length) = if by_token { (1, self.own) } else { (TILE, self.length(&unit)) };
        let first = unit.first + step;
        if first < length {
            return Some(Unit { first, ..unit });
        }
        let to = |step| Some(Unit { step, first: 0, head: 0, ..unit });
        let cross = unit.stack == Stack::Decoder && self.t.has_cross();
        let sites = self.t.block(unit.stack, unit.layer);
        match unit.step {
            Step::Embed => Some(self.enter_block(Unit { first: 0, ..unit }, 0)),
            Step::EmbedAgain if unit.rebuilds => Some(self.enter_block(Unit { first: 0, ..unit }, unit.layer)),
            Step::EmbedAgain => Some(self.again(unit, unit.stack, unit.layer)),
            Step::Keys | Step::CrossKeys => to(Step::Block),
            Step::Block if unit.rebuilds => Some(self.again(unit, unit.stack, unit.layer + 1)),
            Step::Block if unit.layer + 1 < self.t.blocks(unit.stack) => {
                Some(self.enter_block(Unit { first: 0, ..unit }, unit.layer + 1))
            }
            Step::Block if unit.stack != self.last() => to(Step::Memory),
            Step::Block => to(Step::Head),
            Step::Memory => to(Step::Embed).map(|u| Unit { stack: Stack::Decoder, layer: 0, ..u }),
            Step::Head => {
                let layer = self.t.blocks(self.last()).saturating_sub(1);
                (self.place(self.last(), layer) >= self.low()).then(|| self.reenter(unit, self.last(), layer))
            }
            Step::KeysAgain | Step::CrossKeysAgain => to(Step::Again),
            Step::Again => to(Step::Feed),
            // The layers of a block are numbered in the order of forward.
            Step::Feed if self.lowest >= sites.gate.unwrap_or(sites.up) => None,
            Step::Feed if cross => to(Step::CrossQueries),
            Step::Feed => to(Step::Queries),
            Step::CrossQueries if sites.cross.is_some_and(|[.., output]| self.lowest >= output) => None,
            Step::CrossQueries => to(Step::CrossPairs),
            Step::CrossPairs | Step::Pairs if unit.head + 1 < self.t.kv_heads => {
                Some(Unit { first: 0, head: unit.head + 1, ..unit })
            }
            Step::CrossPairs => to(Step::CrossInputs),
            Step::CrossInputs => to(Step::CrossMemory),
            Step::CrossMemory if sites.cross.is_some_and(|[query, ..]| self.lowest >= query) => None,
            Step::CrossMemory => to(Step::Queries),
            Step::Queries if self.lowest >= sites.output => None,
            Step::Queries => to(Step::Pairs),
            Step::Pairs => to(Step::Inputs),
            Step::Inputs => self.below(unit),
            Step::End => Some(self.reenter(unit, Stack::Encoder, self.t.encoder.saturating_sub(1))),
            Step::Projection => None,
        }
    }

    fn enter_block(&self, unit: Unit, layer: u16) -> Unit {
        let step = match unit.stack {
            Stack::Encoder => Step::Keys,
            Stack::Decoder if self.t.has_cross() => Step::CrossKeys,
            Stack::Decoder => Step::Block,
        };
        Unit { step, layer, ..unit }
    }

    /// The way back into a block: first its input, if that is not kept.
    fn reenter(&self, unit: Unit, stack: Stack, layer: u16) -> Unit {
        if self.keeps.keeps(self.place(stack, layer)) {
            return self.again(unit, stack, layer);
        }
        let Some(below) = layer.checked_sub(1) else {
            return Unit { step: Step::EmbedAgain, stack, layer, head: 0, first: 0, ..unit };
        };
        let unit = Unit { stack, rebuilds: true, head: 0, first: 0, ..unit };
        if self.keeps.keeps(self.place(stack, below)) {
            self.enter_block(unit, below)
        } else {
            Unit { step: Step::EmbedAgain, layer: below, ..unit }
        }
    }

    /// The way back into a block whose input is there.
    fn again(&self, unit: Unit, stack: Stack, layer: u16) -> Unit {
        let step = match stack {
            Stack::Encoder => Step::KeysAgain,
            Stack::Decoder if self.t.has_cross() => Step::CrossKeysAgain,
            Stack::Decoder => Step::Again,
        };
        Unit { step, stack, layer, head: 0, rebuilds: false, first: 0, ..unit }
    }

    /// Behind the last unit of a block.
    fn below(&self, unit: Unit) -> Option<Unit> {
        let input = self.t.input_site();
        if self.place(unit.stack, unit.layer) > self.low() {
            return Some(match unit.layer.checked_sub(1) {
                Some(layer) => self.reenter(unit, unit.stack, layer),
                None => Unit { step: Step::End, stack: Stack::Encoder, first: 0, ..unit },
            });
        }
        input.filter(|&site| site == self.lowest).map(|_| Unit { step: Step::Projection, first: 0, ..unit })
    }

    /// Whether anybody needs the gradient below the layer `site`.
    pub(crate) const fn through(&self, site: u16) -> bool {
        self.lowest < site
    }
}
