//! A transformer with the adapters of one call, and what all its stacks do: tokens come in, hidden states go out.

use super::scratch::Rows;
use crate::fixed::block::requantize;
use crate::fixed::{Block, Exp, Tile, TileMut};
use crate::layer::dropout::Masks;
use crate::layer::residual::StreamMut;
use crate::layer::{ShapeError, embedding, first};
use crate::model::adapter::Loras;
use crate::model::spec::transformer::Table;
use crate::model::spec::{Stack, Transformer};
use crate::model::{Active, Model};
#[cfg(feature = "train")]
use crate::train::learner::Gradients;

/// A transformer with the adapters of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network<'p, 'm> {
    pub(crate) model: &'p Model<'m>,
    pub(crate) t: &'p Transformer,
    pub(crate) adapters: &'p [Active<'p>],
    /// The one that learns, and the masks of its inputs: while training only.
    pub(crate) learns: Option<Active<'p>>,
    pub(crate) masks: Option<Masks>,
}

/// The tokens of a tile: their rows in the stream, and the position of the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) position: usize,
}

/// A tile of `count` tokens of `width` values in a buffer.
pub(crate) fn tile_mut<'b>(m: &'b mut [i16], e: &'b mut [Exp], count: usize, width: usize) -> TileMut<'b> {
    TileMut {
        mantissas: m.get_mut(..count * width).unwrap_or_default(),
        exponents: e.get_mut(..count).unwrap_or_default(),
    }
}

/// The same, to be read.
pub(crate) fn tile<'b>(m: &'b [i16], e: &'b [Exp], count: usize, width: usize) -> Tile<'b> {
    Tile { mantissas: m.get(..count * width).unwrap_or(&[]), exponents: e.get(..count).unwrap_or(&[]) }
}

/// A token that comes in.
pub(crate) struct Token<'g> {
    /// Its row in the stream.
    pub(crate) index: usize,
    pub(crate) position: usize,
    pub(crate) kind: usize,
    pub(crate) given: Given<'g>,
}

/// What stands for it.
pub(crate) enum Given<'g> {
    /// Its number in the vocabulary.
    Id(usize),
    /// Features, normalised.
    Features(Block<'g>),
}

impl<'p> Network<'p, '_> {
    /// What the adapters have on one layer, for tokens from number `first` on.
    pub(super) fn loras(&self, site: u16, inputs: usize, first: usize) -> Loras<'_> {
        let dropout = self.masks.and_then(|m| m.at(site, first * inputs));
        Loras::new(self.adapters, site).learning(self.learns.as_ref(), dropout)
    }

    /// `y = W x + b + adapters`, for a tile.
    pub(super) fn linear(
        &self,
        site: u16,
        span: Span,
        x: Tile<'_>,
        y: TileMut<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let layer = self.model.linear(site);
        layer.forward(x, self.loras(site, layer.inputs, span.first), y, &mut rows.linear())
    }

    /// Adds `W x + b + adapters` to a stream, for a tile.
    pub(super) fn add_linear(
        &self,
        site: u16,
        span: Span,
        x: Tile<'_>,
        stream: &mut StreamMut<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let layer = self.model.linear(site);
        let loras = self.loras(site, layer.inputs, span.first);
        layer.forward_rows(x, loras, &mut rows.linear(), &mut |i, row| stream.add_row(span.first + i, row))
    }

    /// The way back through a layer, for a tile: its adapter's gradients, and, where somebody needs it, that of its input.
    #[cfg(feature = "train")]
    #[allow(clippy::too_many_arguments)] // The operands of one layer.
    pub(super) fn linear_back(
        &self,
        site: u16,
        span: Span,
        x: Tile<'_>,
        dy: Tile<'_>,
        dx: Option<TileMut<'_>>,
        rows: &mut Rows<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let layer = self.model.linear(site);
        let loras = self.loras(site, layer.inputs, span.first);
        // A pair that is switched off neither gives nor learns.
        let gradient = self.learns.and_then(|a| a.lora(site)).and_then(|_| learn.of(site));
        layer.backward(x, dy, loras, gradient, dx, &mut rows.linear())
    }

    /// Puts a token into the stream: its rows of the tables, or its features, projected (into `x`, `(dim)`) where the network
    /// does.
    pub(crate) fn embed(
        &self,
        token: &Token<'_>,
        stream: &mut StreamMut<'_>,
        x: &mut [i16],
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let mut exponent = self.sum_of(token, x, rows)?;
        let acc = first("scratch.acc", rows.acc, self.t.dim)?;
        if let Some(norm) = self.t.embedding_norm() {
            exponent = self.model.norm(self.t, norm).forward_row(acc, exponent)?;
        }
        stream.store(token.index, acc, exponent);
        Ok(())
    }

    /// What comes in, before the norm behind it: into `rows.acc`; returns its exponent.
    pub(super) fn sum_of(&self, token: &Token<'_>, x: &mut [i16], rows: &mut Rows<'_>) -> Result<i32, ShapeError> {
        let (t, model) = (self.t, self.model);
        let [tokens, positions, types] =
            [Table::Tokens, Table::Positions, Table::Types].map(|table| model.table(table));
        let position = (positions.as_ref(), token.position);
        let kind = (types.as_ref(), token.kind);
        Ok(match token.given {
            Given::Id(id) => {
                let acc = first("scratch.acc", rows.acc, t.dim)?;
                embedding::sum([(tokens.as_ref(), id), position, kind], None, acc)
            }
            Given::Features(features) => {
                let mut exponents = [features.exponent];
                let mut projected = features.mantissas;
                if let Some(site) = t.input_site() {
                    let span = Span { first: token.index, count: 1, position: token.position };
                    let given = Tile { mantissas: features.mantissas, exponents: &[features.exponent] };
                    let y = TileMut { mantissas: first("scratch.x", x, t.dim)?, exponents: &mut exponents };
                    self.linear(site, span, given, y, rows)?;
                    projected = x.get(..t.dim).unwrap_or(&[]);
                }
                let [exponent] = exponents;
                let projected = Block { mantissas: projected, exponent };
                let acc = first("scratch.acc", rows.acc, t.dim)?;
                embedding::sum([position, kind], Some(projected), acc)
            }
        })
    }

    /// The hidden state that a stack ends with, of one row of the stream: `(dim)`, canonical.
    pub(crate) fn end(
        &self,
        stack: Stack,
        row: usize,
        stream: &StreamMut<'_>,
        out: &mut [i16],
        acc: &mut [i64],
    ) -> Result<Exp, ShapeError> {
        let acc = first("scratch.acc", acc, self.t.dim)?;
        let exponent = stream.load(row, acc);
        match self.t.final_norm(stack) {
            Some(norm) => self.model.norm(self.t, norm).forward(acc, exponent, out),
            None => Ok(requantize(acc, exponent, out)),
        }
    }

    /// The way back through [`end`](Network::end): from `dy` to the gradient of a row of the stream. `dx`: at least `(dim)`.
    #[cfg(feature = "train")]
    #[allow(clippy::too_many_arguments)] // The buffers of one token.
    pub(super) fn end_back(
        &self,
        stack: Stack,
        row: usize,
        stream: &StreamMut<'_>,
        dy: Block<'_>,
        gradient: &mut StreamMut<'_>,
        dx: &mut [i16],
        acc: &mut [i64],
    ) -> Result<(), ShapeError> {
        let dim = self.t.dim;
        let (acc, rest) = acc.split_at_mut_checked(dim).unwrap_or_default();
        let mut out = dy;
        if let Some(norm) = self.t.final_norm(stack) {
            let dx = first("scratch.row", dx, dim)?;
            let exponent = stream.load(row, acc);
            let exponent = self.model.norm(self.t, norm).backward(acc, exponent, dy, dx, rest)?;
            out = Block { mantissas: dx, exponent };
        }
        gradient.put(row, out, acc);
        Ok(())
    }
}
