//! One block on one tile of tokens: keys and values, attention, feed-forward.
//!
//! ```text
//! norms before:  x += O(attend(norm x))      x += down(act(up(norm x)))
//! norms behind:  x = norm(x + O(attend x))   x = norm(x + down(act(up x)))
//! ```

use super::parts::cross_attention;
use super::scratch::{Rows, Tiles};
use super::store::{Side, Store};
use crate::fixed::{Block, Exp, Tile, TileMut};
use crate::layer::attention::{self, Attention, Visible};
use crate::layer::linear;
use crate::layer::residual::StreamMut;
use crate::layer::{Linear, Lora, Norm, Rope, ShapeError};
use crate::model::spec::{BlockSites, Flags, Stack, Transformer};
use crate::model::{Active, Model};

/// One block of one stack, with the adapters of this call.
#[derive(Clone, Copy)]
pub(super) struct BlockOf<'p, 'm> {
    pub(super) model: &'p Model<'m>,
    pub(super) t: &'p Transformer,
    pub(super) adapters: &'p [Active<'p>],
    pub(super) stack: Stack,
    pub(super) layer: u16,
}

/// The tokens of a tile: their rows in the stream, and the position of the first.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) position: usize,
}

/// The rows of a layer that make queries, keys and values together.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// A tile of `count` tokens of `width` values in a buffer.
fn tile_mut<'b>(m: &'b mut [i16], e: &'b mut [Exp], count: usize, width: usize) -> TileMut<'b> {
    TileMut {
        mantissas: m.get_mut(..count * width).unwrap_or_default(),
        exponents: e.get_mut(..count).unwrap_or_default(),
    }
}

fn tile<'b>(m: &'b [i16], e: &'b [Exp], count: usize, width: usize) -> Tile<'b> {
    Tile { mantissas: m.get(..count * width).unwrap_or(&[]), exponents: e.get(..count).unwrap_or(&[]) }
}

impl<'m> BlockOf<'_, 'm> {
    fn sites(&self) -> BlockSites {
        self.t.block(self.stack, self.layer)
    }

    fn pre_norm(&self) -> bool {
        self.t.flags.has(Flags::PRE_NORM)
    }

    /// `y = W x + b + adapters`, for a tile.
    fn linear(&self, site: u16, x: Tile<'_>, y: TileMut<'_>, acc: &mut [i64]) -> Result<(), ShapeError> {
        let layer = self.model.linear(site);
        let loras = self.adapters.iter().filter_map(|a| a.lora(site));
        layer.forward(x, loras, y, &mut linear::Scratch { acc, vector: &mut [], rank: &mut [], masked: &mut [] })
    }

    /// The same with some rows of the layer alone.
    fn part(&self, part: Part, x: Tile<'_>, y: TileMut<'_>, acc: &mut [i64]) -> Result<(), ShapeError> {
        let sites = self.sites();
        let Some([key, value]) = sites.key_value else {
            let (query, kv) = (self.t.query_width(), self.t.kv_width());
            let rows = match part {
                Part::Query => 0..query,
                Part::Key => query..query + kv,
                Part::Value => query + kv..query + 2 * kv,
            };
            let layer: Linear<'m> = self.model.linear(sites.query).rows(rows.clone());
            let loras = self.adapters.iter().filter_map(|a| -> Option<Lora<'_>> { a.lora(sites.query) });
            let loras = loras.map(|l| l.rows(rows.clone()));
            let scratch = &mut linear::Scratch { acc, vector: &mut [], rank: &mut [], masked: &mut [] };
            return layer.forward(x, loras, y, scratch);
        };
        let site = match part {
            Part::Query => sites.query,
            Part::Key => key,
            Part::Value => value,
        };
        self.linear(site, x, y, acc)
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
        let dim = self.t.dim;
        let norm: Option<Norm<'_>> = self.pre_norm().then(|| self.model.norm(self.t, norm));
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

    /// Adds `x` to the stream, and normalises the sum where norms stand behind.
    fn residual(
        &self,
        norm: u16,
        stream: &mut StreamMut<'_>,
        span: Span,
        tiles: &Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let dim = self.t.dim;
        let norm: Option<Norm<'_>> = (!self.pre_norm()).then(|| self.model.norm(self.t, norm));
        let x = tile(tiles.x, tiles.x_exponents, span.count, dim);
        for (i, block) in x.blocks().enumerate() {
            let acc = rows.acc.get_mut(..dim).unwrap_or_default();
            let mut exponent = stream.sum(span.first + i, block, acc);
            if let Some(norm) = &norm {
                exponent = norm.forward_row(acc, exponent)?;
            }
            stream.store(span.first + i, acc, exponent);
        }
        Ok(())
    }

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
        let (width, kv) = (self.t.head_dim, self.t.kv_width());
        let rope: Option<Rope<'_>> = if cross.is_none() { self.model.rope(self.t) } else { None };
        for (side, part) in [(Side::Keys, Part::Key), (Side::Values, Part::Value)] {
            let x = tile(tiles.x, tiles.x_exponents, span.count, self.t.dim);
            let mut y = tile_mut(tiles.a, tiles.a_exponents, span.count, kv);
            match cross {
                None => self.part(part, x, y.reborrow(), rows.acc)?,
                Some([key, value]) => {
                    self.linear(if side == Side::Keys { key } else { value }, x, y.reborrow(), rows.acc)?;
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
    pub(super) fn keys(
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

    /// Keys and values of cross-attention of a tile of the encoder's output, which is given.
    pub(super) fn cross_keys(
        &self,
        span: Span,
        memory: Tile<'_>,
        store: &mut Store<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let Some([_, key, value, _]) = self.sites().cross else { return Ok(()) };
        let mut x = tile_mut(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        for ((to, e), from) in x.blocks_mut().zip(memory.blocks()) {
            to.copy_from_slice(from.mantissas);
            *e = from.exponent;
        }
        self.keep(span, Some([key, value]), usize::from(self.layer), store, tiles, rows)
    }

    /// Self-attention of a tile. `decoder`: keys and values of this tile are made first, and nobody looks ahead.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(super) fn attend(
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
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        let q = tile_mut(tiles.a, tiles.a_exponents, span.count, self.t.query_width());
        self.part(Part::Query, x, q, rows.acc)?;
        let attention = self.model.self_attention(self.t, self.stack);
        let rope = self.model.rope(self.t);
        let visible = |position: usize| Visible { keys: if causal { position + 1 } else { keys }, valid };
        self.heads(&attention, rope, span, layer, visible, store, tiles, rows)?;
        self.output(sites.output, span, tiles, rows)?;
        self.residual(sites.attention_norm, stream, span, tiles, rows)
    }

    /// Attention of a tile to the encoder's output.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(super) fn cross(
        &self,
        span: Span,
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
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        let q = tile_mut(tiles.a, tiles.a_exponents, span.count, self.t.query_width());
        self.linear(query, x, q, rows.acc)?;
        let visible = |_| Visible { keys, valid: Some(valid) };
        let layer = usize::from(self.layer);
        self.heads(&cross_attention(self.t), None, span, layer, visible, store, tiles, rows)?;
        self.output(output, span, tiles, rows)?;
        self.residual(norm, stream, span, tiles, rows)
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
        let width = self.t.query_width();
        let mut q = tile_mut(tiles.a, tiles.a_exponents, span.count, width);
        let mut out = tile_mut(tiles.b, tiles.b_exponents, span.count, width);
        for (i, ((q, &mut e), (out, out_exponent))) in q.blocks_mut().zip(out.blocks_mut()).enumerate() {
            let position = span.position + i;
            for (head, to) in q.chunks_exact_mut(self.t.head_dim).zip(rows.head_exponents.iter_mut()) {
                *to = rope.as_ref().map_or(e, |rope| rope.forward(position as u32, head, e, rows.acc));
            }
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

    /// The output layer of an attention: from `b` into `x`.
    fn output(&self, site: u16, span: Span, tiles: &mut Tiles<'_>, rows: &mut Rows<'_>) -> Result<(), ShapeError> {
        let b = tile(tiles.b, tiles.b_exponents, span.count, self.t.query_width());
        let x = tile_mut(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        self.linear(site, b, x, rows.acc)
    }

    /// The feed-forward of a tile.
    pub(super) fn feed(
        &self,
        span: Span,
        stream: &mut StreamMut<'_>,
        tiles: &mut Tiles<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<(), ShapeError> {
        let (sites, hidden) = (self.sites(), self.t.hidden);
        self.input(sites.feed_norm, stream, span, tiles, rows)?;
        let x = tile(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        let mut a = tile_mut(tiles.a, tiles.a_exponents, span.count, hidden);
        let out = rows.c.get_mut(..hidden).unwrap_or_default();
        match sites.gate {
            Some(gate) => {
                let mut b = tile_mut(tiles.b, tiles.b_exponents, span.count, hidden);
                self.linear(gate, x, a.reborrow(), rows.acc)?;
                self.linear(sites.up, x, b.reborrow(), rows.acc)?;
                for ((a, e), up) in a.blocks_mut().zip(b.as_tile().blocks()) {
                    let gate = Block { mantissas: a, exponent: *e };
                    *e = self.t.activation.gate(gate, up, out, rows.acc)?;
                    a.copy_from_slice(out);
                }
            }
            None => {
                self.linear(sites.up, x, a.reborrow(), rows.acc)?;
                for (a, e) in a.blocks_mut() {
                    *e = self.t.activation.forward(Block { mantissas: a, exponent: *e }, out, rows.acc)?;
                    a.copy_from_slice(out);
                }
            }
        }
        let a = tile(tiles.a, tiles.a_exponents, span.count, hidden);
        let x = tile_mut(tiles.x, tiles.x_exponents, span.count, self.t.dim);
        self.linear(sites.down, a, x, rows.acc)?;
        self.residual(sites.feed_norm, stream, span, tiles, rows)
    }
}
