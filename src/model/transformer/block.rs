//! One block on one tile of tokens: keys and values, attention, feed-forward.
//!
//! ```text
//! norms before:  x += O(attend(norm x))      x += down(act(up(norm x)))
//! norms behind:  x = norm(x + O(attend x))   x = norm(x + down(act(up x)))
//! ```

mod attend;
#[cfg(feature = "train")]
mod backward;
mod feed;

#[cfg(feature = "train")]
pub(super) use attend::{Looks, Sight, Sums};

use super::network::{Network, Span, tile, tile_mut};
use super::scratch::{Rows, Tiles};
use crate::fixed::{Tile, TileMut};
use crate::layer::residual::StreamMut;
use crate::layer::{Linear, Norm, ShapeError};
use crate::model::spec::{BlockSites, Flags, Stack};
use core::ops::Range;

/// One block of one stack.
#[derive(Clone, Copy)]
pub(super) struct BlockOf<'p, 'm> {
    pub(super) net: &'p Network<'p, 'm>,
    pub(super) stack: Stack,
    pub(super) layer: u16,
}

/// Where the last layer of a sub-layer takes its input from.
#[derive(Clone, Copy)]
enum From {
    /// Of attention: `b`.
    Heads,
    /// Of the feed-forward: `a`.
    Inner,
}

/// The rows of a layer that make queries, keys and values together.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl<'m> BlockOf<'_, 'm> {
    fn sites(&self) -> BlockSites {
        self.net.t.block(self.stack, self.layer)
    }

    fn pre_norm(&self) -> bool {
        self.net.t.flags.has(Flags::PRE_NORM)
    }

    /// The rows of queries, keys or values in a layer that makes all three.
    fn rows_of(&self, part: Part) -> Range<usize> {
        let (query, kv) = (self.net.t.query_width(), self.net.t.kv_width());
        match part {
            Part::Query => 0..query,
            Part::Key => query..query + kv,
            Part::Value => query + kv..query + 2 * kv,
        }
    }

    /// Queries, keys or values of self-attention.
    fn part(&self, part: Part, span: Span, x: Tile<'_>, y: TileMut<'_>, rows: &mut Rows<'_>) -> Result<(), ShapeError> {
        let sites = self.sites();
        let Some([key, value]) = sites.key_value else {
            let range = self.rows_of(part);
            let layer: Linear<'m> = self.net.model.linear(sites.query).rows(range.clone());
            let loras = self.net.loras(sites.query, layer.inputs, span.first).rows(range);
            return layer.forward(x, loras, y, &mut rows.linear());
        };
        let site = match part {
            Part::Query => sites.query,
            Part::Key => key,
            Part::Value => value,
        };
        self.net.linear(site, span, x, y, rows)
    }

    /// The input of a sub-layer: the normalised stream, or, where norms stand behind, the stream itself; into `x`.
    fn input(
        &self,
        norm: u16,
        stream: &StreamMut<'_>,
        span: Span,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        let norm: Option<Norm<'_>> = self.pre_norm().then(|| self.net.model.norm(self.net.t, norm));
        let mut x = tile_mut(tiles.x, tiles.x_exponents, span.count, dim);
        for (i, (x, e)) in x.blocks_mut().enumerate() {
            let acc = rows.acc.get_mut(..dim).unwrap_or_default();
            *e = match (&norm, stream.narrow(span.first + i)) {
                (None, Some(block)) => {
                    x.copy_from_slice(block.mantissas);
                    block.exponent
                }
                (None, None) => {
                    let exponent = stream.load(span.first + i, acc);
                    crate::fixed::block::requantize(acc, exponent, x)
                }
                (Some(norm), _) => {
                    let exponent = stream.load(span.first + i, acc);
                    norm.forward(acc, exponent, x)?
                }
            };
        }
        Ok(())
    }

    /// The last layer of a sub-layer, from `from`: adds what it gives to the stream, and normalises the sum where norms stand
    /// behind.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    fn residual(
        &self,
        site: u16,
        norm: u16,
        from: From,
        span: Span,
        stream: &mut StreamMut<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let (t, dim) = (self.net.t, self.net.t.dim);
        let from = match from {
            From::Heads => tile(tiles.b, tiles.b_exponents, span.count, t.query_width()),
            From::Inner => tile(tiles.a, tiles.a_exponents, span.count, t.hidden),
        };
        if t.flags.has(Flags::WIDE) && self.pre_norm() {
            return self.net.add_linear(site, span, from, stream, rows);
        }
        self.net.linear(site, span, from, tile_mut(tiles.x, tiles.x_exponents, span.count, dim), rows)?;
        let norm: Option<Norm<'_>> = (!self.pre_norm()).then(|| self.net.model.norm(t, norm));
        for (i, block) in tile(tiles.x, tiles.x_exponents, span.count, dim).blocks().enumerate() {
            let acc = rows.acc.get_mut(..dim).unwrap_or_default();
            let mut exponent = stream.sum(span.first + i, block, acc);
            if let Some(norm) = &norm {
                exponent = norm.forward_row(acc, exponent)?;
            }
            stream.store(span.first + i, acc, exponent);
        }
        Ok(())
    }
}
