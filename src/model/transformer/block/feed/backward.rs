//! The way back through a feed-forward. What stands inside is computed again.

use crate::fixed::Block;
use crate::layer::ShapeError;
use crate::layer::residual::StreamMut;
use crate::model::transformer::block::BlockOf;
use crate::model::transformer::learn::Desk;
use crate::model::transformer::network::{Span, tile, tile_mut};
use crate::train::learner::Gradients;

impl BlockOf<'_, '_> {
    /// From the gradient behind the feed-forward of a tile, the one before it, in place; and those of its adapters.
    ///
    /// `stream`: what went in. `through`: whether anybody needs the gradient before it.
    pub(in crate::model::transformer) fn feed_back(
        &self,
        span: Span,
        stream: &StreamMut<'_>,
        gradient: &mut StreamMut<'_>,
        through: bool,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let (sites, hidden, dim, count) = (self.sites(), self.net.t.hidden, self.net.t.dim, span.count);
        self.input(sites.feed_norm, stream, span, &mut desk.tiles, &mut desk.rows)?;
        self.raise(span, &mut desk.tiles, &mut desk.rows)?;
        // c: what stood behind the activation.
        let (tiles, rows) = (&mut desk.tiles, &mut desk.rows);
        let ups = tile(tiles.b, tiles.b_exponents, count, hidden);
        let pairs = tile(tiles.a, tiles.a_exponents, count, hidden).blocks().enumerate();
        let mut c = tile_mut(desk.back.c, desk.back.c_exponents, count, hidden);
        for ((i, a), (out, e)) in pairs.zip(c.blocks_mut()) {
            *e = self.activated(a, ups.blocks().nth(i), out, rows.acc)?;
        }
        if !self.pre_norm() {
            let c = tile(desk.back.c, desk.back.c_exponents, count, hidden);
            let d = tile_mut(desk.back.d, desk.back.d_exponents, count, dim);
            self.net.linear(sites.down, span, c, d, rows)?;
            self.back_behind(sites.feed_norm, span, stream, gradient, desk)?;
        }

        let inner = through || learn.learns(sites.up) || sites.gate.is_some_and(|gate| learn.learns(gate));
        let dy = gradient.tile(span.first, count).unwrap_or(tile(&[], &[], 0, 0));
        let back = &mut desk.back;
        let c = tile(back.c, back.c_exponents, count, hidden);
        let d = tile_mut(back.d, back.d_exponents, count, hidden);
        self.net.linear_back(sites.down, span, c, dy, inner.then_some(d), &mut desk.rows, learn)?;
        if !inner {
            return Ok(());
        }
        self.back_through_activation(span, desk)?;

        let (tiles, back) = (&desk.tiles, &mut desk.back);
        let x = tile(tiles.x, tiles.x_exponents, count, dim);
        let a = tile(tiles.a, tiles.a_exponents, count, hidden);
        let c = through.then_some(tile_mut(back.c, back.c_exponents, count, dim));
        let first = sites.gate.unwrap_or(sites.up);
        self.net.linear_back(first, span, x, a, c, &mut desk.rows, learn)?;
        if sites.gate.is_some() {
            let b = tile(tiles.b, tiles.b_exponents, count, hidden);
            let d = through.then_some(tile_mut(back.d, back.d_exponents, count, dim));
            self.net.linear_back(sites.up, span, x, b, d, &mut desk.rows, learn)?;
        }
        if !through {
            return Ok(());
        }
        for i in 0..count {
            let c = tile(desk.back.c, desk.back.c_exponents, count, dim).blocks().nth(i);
            let d = tile(desk.back.d, desk.back.d_exponents, count, dim).blocks().nth(i);
            let d = d.filter(|_| sites.gate.is_some());
            self.back_before(
                sites.feed_norm,
                span.first + i,
                [c, d, None],
                stream,
                gradient,
                &mut desk.rows,
                desk.back.row,
            )?;
        }
        Ok(())
    }

    /// From the gradient behind the activation, in `d`, the one before it, in `a`; with a gate that of the gate in `a` and the
    /// other's in `b`.
    fn back_through_activation(&self, span: Span, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let (hidden, count, activation) = (self.net.t.hidden, span.count, self.net.t.activation);
        let Desk { tiles, rows, back } = desk;
        let one = rows.c.get_mut(..hidden).unwrap_or_default();
        let two = back.row.get_mut(..hidden).unwrap_or_default();
        let dy = tile(back.d, back.d_exponents, count, hidden);
        let mut a = tile_mut(tiles.a, tiles.a_exponents, count, hidden);
        let mut b = tile_mut(tiles.b, tiles.b_exponents, count, hidden);
        let mut ups = b.blocks_mut();
        for ((a, e), dy) in a.blocks_mut().zip(dy.blocks()) {
            let gate = Block { mantissas: a, exponent: *e };
            match (self.sites().gate, ups.next()) {
                (Some(_), Some((up, up_exponent))) => {
                    let up_block = Block { mantissas: up, exponent: *up_exponent };
                    (*e, *up_exponent) = activation.gate_backward(gate, up_block, dy, one, two, rows.acc)?;
                    up.copy_from_slice(two);
                }
                _ => *e = activation.backward_from(gate, dy, one, rows.acc)?,
            }
            a.copy_from_slice(one);
        }
        Ok(())
    }
}
