//! Attention of a block: keys and values into a store, queries against them.

#[cfg(feature = "train")]
mod backward;

#[cfg(feature = "train")]
pub(in crate::model::transformer) use backward::{Looks, Sight, Sums};

use super::{BlockOf, From, Part};
use crate::fixed::{Exp, Tile};
use crate::layer::attention::{self, Attention, Visible};
use crate::layer::residual::StreamMut;
use crate::layer::{Rope, ShapeError};
use crate::model::spec::Stack;
use crate::model::transformer::network::{Span, tile, tile_mut};
use crate::model::transformer::parts::cross_attention;
use crate::model::transformer::scratch::{Rows, Tiles};
use crate::model::transformer::store::{Side, Store};

impl BlockOf<'_, '_> {
    /// Keys and values of a tile, from what stands in `x`, into a store. `site`s of a cross-attention are given.
    fn keep(
        &self,
        span: Span,
        cross: Option<[u16; 2]>,
        layer: usize,
        store: &mut Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let (width, kv) = (self.net.t.head_dim, self.net.t.kv_width());
        let rope: Option<Rope<'_>> = if cross.is_none() { self.net.model.rope(self.net.t) } else { None };
        for (side, part) in [(Side::Keys, Part::Key), (Side::Values, Part::Value)] {
            let x = tile(tiles.x, tiles.x_exponents, span.count, self.net.t.dim);
            let mut y = tile_mut(tiles.a, tiles.a_exponents, span.count, kv);
            match cross {
                None => self.part(part, span, x, y.reborrow(), rows)?,
                Some([key, value]) => {
                    self.net.linear(if side == Side::Keys { key } else { value }, span, x, y.reborrow(), rows)?;
                }
            }
            for (i, (row, &mut e)) in y.blocks_mut().enumerate() {
                let position = span.position + i;
                for (head, m) in row.chunks_exact_mut(width).enumerate() {
                    let e = match (&rope, side) {
                        (Some(rope), Side::Keys) => rope.forward(position as u32, m, e, rows.acc),
                        _ => e,
                    };
                    store.put(layer, side, head, position, m, e);
                }
            }
        }
        Ok(())
    }

    /// Keys and values of self-attention of a tile, into row `layer` of a store.
    pub(in crate::model::transformer) fn keys(
        &self,
        span: Span,
        layer: usize,
        stream: &StreamMut<'_>,
        store: &mut Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        self.input(self.sites().attention_norm, stream, span, tiles, rows)?;
        self.keep(span, None, layer, store, tiles, rows)
    }

    /// Keys and values of cross-attention of a tile of the encoder's output, which is given, into row `layer` of a store.
    pub(in crate::model::transformer) fn cross_keys(
        &self,
        span: Span,
        layer: usize,
        memory: Tile<'_>,
        store: &mut Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let Some([_, key, value, _]) = self.sites().cross else { return Ok(()) };
        let mut x = tile_mut(tiles.x, tiles.x_exponents, span.count, self.net.t.dim);
        for ((to, e), from) in x.blocks_mut().zip(memory.blocks()) {
            to.copy_from_slice(from.mantissas);
            *e = from.exponent;
        }
        self.keep(span, Some([key, value]), layer, store, tiles, rows)
    }

    /// Self-attention of a tile. `decoder`: keys and values of this tile are made first, and nobody looks ahead.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn attend(
        &self,
        span: Span,
        layer: usize,
        keys: usize,
        valid: Option<&[u8]>,
        stream: &mut StreamMut<'_>,
        store: &mut Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let sites = self.sites();
        self.input(sites.attention_norm, stream, span, tiles, rows)?;
        let causal = self.stack == Stack::Decoder;
        if causal {
            self.keep(span, None, layer, store, tiles, rows)?;
        }
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.net.t.dim);
        let q = tile_mut(tiles.a, tiles.a_exponents, span.count, self.net.t.query_width());
        self.part(Part::Query, span, x, q, rows)?;
        let attention = self.net.model.self_attention(self.net.t, self.stack);
        let rope = self.net.model.rope(self.net.t);
        let visible = |position: usize| Visible { keys: if causal { position + 1 } else { keys }, valid };
        self.heads(&attention, rope, span, layer, visible, store, tiles, rows)?;
        self.residual(sites.output, sites.attention_norm, From::Heads, span, stream, tiles, rows)
    }

    /// Attention of a tile to the encoder's output, whose keys and values stand in row `layer` of a store.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn cross(
        &self,
        span: Span,
        layer: usize,
        keys: usize,
        valid: &[u8],
        stream: &mut StreamMut<'_>,
        store: &Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let sites = self.sites();
        let (Some([query, _, _, output]), Some(norm)) = (sites.cross, sites.cross_norm) else { return Ok(()) };
        self.input(norm, stream, span, tiles, rows)?;
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.net.t.dim);
        let q = tile_mut(tiles.a, tiles.a_exponents, span.count, self.net.t.query_width());
        self.net.linear(query, span, x, q, rows)?;
        let visible = |_| Visible { keys, valid: Some(valid) };
        self.heads(&cross_attention(self.net.t), None, span, layer, visible, store, tiles, rows)?;
        self.residual(output, norm, From::Heads, span, stream, tiles, rows)
    }

    /// From the queries in `a`, which are rotated, to the heads' outputs in `b`.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    fn heads<'v>(
        &self,
        attention: &Attention<'_>,
        rope: Option<Rope<'_>>,
        span: Span,
        layer: usize,
        visible: impl Fn(usize) -> Visible<'v>,
        store: &Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let width = self.net.t.query_width();
        let mut q = tile_mut(tiles.a, tiles.a_exponents, span.count, width);
        let mut out = tile_mut(tiles.b, tiles.b_exponents, span.count, width);
        for (i, ((q, &mut e), (out, out_exponent))) in q.blocks_mut().zip(out.blocks_mut()).enumerate() {
            let position = span.position + i;
            self.rotate(rope.as_ref(), position, q, e, rows);
            let seen = visible(position);
            let scratch = &mut attention::Scratch {
                scores: rows.scores,
                weights: rows.weights,
                acc: rows.acc,
                exponents: rows.sum_exponents,
            };
            let q = Tile { mantissas: q, exponents: rows.head_exponents };
            let kv = |head| store.head(layer, head, seen.keys);
            *out_exponent = attention.forward(q, position, kv, seen, out, scratch)?;
        }
        Ok(())
    }

    /// Rotates the queries of a token, whose heads' exponents are left in `rows`.
    fn rotate(&self, rope: Option<&Rope<'_>>, position: usize, q: &mut [i16], e: Exp, rows: &mut Rows<'_>) {
        for (head, to) in q.chunks_exact_mut(self.net.t.head_dim).zip(rows.head_exponents.iter_mut()) {
            *to = rope.map_or(e, |rope| rope.forward(position as u32, head, e, rows.acc));
        }
    }
}
