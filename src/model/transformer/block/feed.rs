//! The feed-forward of a block: `down(act(up x))`, or `down(act(gate x) ⊙ up x)`.

#[cfg(feature = "train")]
mod backward;

use super::{BlockOf, From};
use crate::fixed::{Block, Exp};
use crate::layer::ShapeError;
use crate::layer::residual::StreamMut;
use crate::model::transformer::network::{Span, tile, tile_mut};
use crate::model::transformer::scratch::{Rows, Tiles};

impl BlockOf<'_, '_> {
    /// The feed-forward of a tile.
    pub(in crate::model::transformer) fn feed(
        &self,
        span: Span,
        stream: &mut StreamMut<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let (sites, hidden) = (self.sites(), self.net.t.hidden);
        self.input(sites.feed_norm, stream, span, tiles, rows)?;
        self.raise(span, tiles, rows)?;
        let out = rows.c.get_mut(..hidden).unwrap_or_default();
        let ups = tile(tiles.b, tiles.b_exponents, span.count, hidden);
        for (i, (a, e)) in tile_mut(tiles.a, tiles.a_exponents, span.count, hidden).blocks_mut().enumerate() {
            *e = self.activated(Block { mantissas: a, exponent: *e }, ups.blocks().nth(i), out, rows.acc)?;
            a.copy_from_slice(out);
        }
        self.residual(sites.down, sites.feed_norm, From::Inner, span, stream, tiles, rows)
    }

    /// From `x`, what stands before the activation: the gate in `a` and `up x` in `b`; without a gate, `up x` in `a`.
    pub(super) fn raise(&self, span: Span, tiles: &mut Tiles<'_>, rows: &mut Rows<'_>) -> Result<(), ShapeError> {
        let (sites, hidden) = (self.sites(), self.net.t.hidden);
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.net.t.dim);
        let a = tile_mut(tiles.a, tiles.a_exponents, span.count, hidden);
        match sites.gate {
            Some(gate) => {
                self.net.linear(gate, span, x, a, rows)?;
                let b = tile_mut(tiles.b, tiles.b_exponents, span.count, hidden);
                self.net.linear(sites.up, span, x, b, rows)
            }
            None => self.net.linear(sites.up, span, x, a, rows),
        }
    }

    /// What stands behind the activation, of one token. `up`: as far as there is a gate.
    pub(super) fn activated(
        &self,
        a: Block<'_>,
        up: Option<Block<'_>>,
        out: &mut [i16],
        acc: &mut [i64],
    ) -> Result<Exp, ShapeError> {
        match (self.sites().gate, up) {
            (Some(_), Some(up)) => self.net.t.activation.gate(a, up, out, acc),
            _ => self.net.t.activation.forward(a, out, acc),
        }
    }
}
