//! The way back through attention, of a block's own tokens and of the encoder's.
//!
//! | step | a tile of tokens at a time |
//! |---|---|
//! | queries | from the gradient of the block's output: q again, and the gradient of what the heads gave |
//! | pairs, for each head of keys and values | dq in place of q; at the last tile dk and dv in place of k and v |
//! | inputs | from dq, dk and dv, the adapters' gradients, and that of what went in |
//!
//! Keys and values must stand in their store before: forward leaves them there.

use crate::fixed::block::requantize_i32;
use crate::fixed::rounding::shift_half_even;
use crate::fixed::{Exp, Tile, TileMut};
use crate::layer::attention::{Attention, BackwardScratch, KeyValueGradient, Seen, Visible};
use crate::layer::gradient::{GradScale, Gradient};
use crate::layer::residual::StreamMut;
use crate::layer::{Rope, ShapeError, attention};
use crate::model::spec::Stack;
use crate::model::transformer::block::{BlockOf, Part};
use crate::model::transformer::learn::Desk;
use crate::model::transformer::network::{Span, tile, tile_mut};
use crate::model::transformer::parts::cross_attention;
use crate::model::transformer::store::{Side, Store};
use crate::train::learner::Gradients;

/// Which of a block's attentions: to its own tokens, or to the encoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model::transformer) enum Looks {
    Own,
    Cross,
}

/// What the tokens of an attention see.
#[derive(Clone, Copy, Debug)]
pub(in crate::model::transformer) struct Sight<'a> {
    pub(in crate::model::transformer) looks: Looks,
    /// All keys there are.
    pub(in crate::model::transformer) keys: usize,
    pub(in crate::model::transformer) valid: Option<&'a [u8]>,
}

/// Where the gradients of one head's keys and values add up.
#[derive(Debug)]
pub(in crate::model::transformer) struct Sums<'a> {
    pub(in crate::model::transformer) dk: &'a mut [i32],
    pub(in crate::model::transformer) dv: &'a mut [i32],
    pub(in crate::model::transformer) scales: &'a mut [GradScale; 2],
}

impl BlockOf<'_, '_> {
    fn attention_of(&self, looks: Looks) -> (Attention<'_>, Option<Rope<'_>>) {
        let (model, t) = (self.net.model, self.net.t);
        match looks {
            Looks::Own => (model.self_attention(t, self.stack), model.rope(t)),
            Looks::Cross => (cross_attention(t), None),
        }
    }

    /// The layer of the output, and the number of the norm.
    fn ends_of(&self, looks: Looks) -> (u16, u16) {
        let sites = self.sites();
        match (looks, sites.cross, sites.cross_norm) {
            (Looks::Cross, Some([_, _, _, output]), Some(norm)) => (output, norm),
            _ => (sites.output, sites.attention_norm),
        }
    }

    const fn causal(&self, looks: Looks) -> bool {
        matches!((looks, self.stack), (Looks::Own, Stack::Decoder))
    }

    fn seen<'v>(&self, sight: &Sight<'v>, span: Span) -> Seen<'v> {
        let causal = self.causal(sight.looks);
        let keys = if causal { span.position + span.count } else { sight.keys };
        Seen { position: span.position, causal, visible: Visible { keys, valid: sight.valid } }
    }

    /// Queries of a tile and the gradients of the heads' outputs, into their store; the gradient of the output layer's adapter.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn queries_back(
        &self,
        sight: &Sight<'_>,
        span: Span,
        stream: &StreamMut<'_>,
        gradient: &mut StreamMut<'_>,
        kv: &Store<'_>,
        queries: &mut Store<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let (t, count) = (self.net.t, span.count);
        let (dim, width) = (t.dim, t.query_width());
        let (output, norm) = self.ends_of(sight.looks);
        let Desk { tiles, rows, back } = desk;
        self.input(norm, stream, span, tiles, rows)?;
        let x = tile(tiles.x, tiles.x_exponents, count, dim);
        let q = tile_mut(tiles.a, tiles.a_exponents, count, width);
        match (sight.looks, self.sites().cross) {
            (Looks::Cross, Some([query, ..])) => self.net.linear(query, span, x, q, rows)?,
            _ => self.part(Part::Query, span, x, q, rows)?,
        }
        // What the heads gave is needed where the output layer learns, or a norm behind it wants its input.
        let heads = !self.pre_norm() || learn.learns(output);
        let (attention, rope) = self.attention_of(sight.looks);
        let mut q = tile_mut(tiles.a, tiles.a_exponents, count, width);
        let mut out = tile_mut(tiles.b, tiles.b_exponents, count, width);
        for (i, ((q, &mut e), (out, out_exponent))) in q.blocks_mut().zip(out.blocks_mut()).enumerate() {
            let position = span.position + i;
            self.rotate(rope.as_ref(), position, q, e, rows);
            for (head, (m, &e)) in q.chunks_exact(t.head_dim).zip(rows.head_exponents.iter()).enumerate() {
                queries.put(0, Side::Keys, head, position, m, e);
            }
            if heads {
                let one = Span { first: span.first + i, count: 1, position };
                let seen = self.seen(sight, one).visible;
                let scratch = &mut attention::Scratch {
                    scores: rows.scores,
                    weights: rows.weights,
                    acc: rows.acc,
                    exponents: rows.sum_exponents,
                };
                let q = Tile { mantissas: q, exponents: rows.head_exponents };
                let kv = |head| kv.head(0, head, seen.keys);
                *out_exponent = attention.forward(q, position, kv, seen, out, scratch)?;
            }
        }
        if !self.pre_norm() {
            let b = tile(tiles.b, tiles.b_exponents, count, width);
            let d = tile_mut(back.d, back.d_exponents, count, dim);
            self.net.linear(output, span, b, d, rows)?;
            self.back_behind(norm, span, stream, gradient, desk)?;
        }
        let Desk { tiles, rows, back } = desk;
        let dy = gradient.tile(span.first, count).unwrap_or(tile(&[], &[], 0, 0));
        let b = tile(tiles.b, tiles.b_exponents, count, width);
        let c = tile_mut(back.c, back.c_exponents, count, width);
        self.net.linear_back(output, span, b, dy, Some(c), rows, learn)?;
        for (i, d) in tile(back.c, back.c_exponents, count, width).blocks().enumerate() {
            for (head, m) in d.mantissas.chunks_exact(t.head_dim).enumerate() {
                queries.put(0, Side::Values, head, span.position + i, m, d.exponent);
            }
        }
        Ok(())
    }

    /// One head of keys and values, with all heads of queries that look at it, for a tile of tokens.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn pairs_back(
        &self,
        sight: &Sight<'_>,
        head: usize,
        span: Span,
        kv: &mut Store<'_>,
        queries: &mut Store<'_>,
        sums: &mut Sums<'_>,
        last: bool,
        desk: &mut Desk<'_>,
    ) -> Result<(), ShapeError> {
        let (t, count) = (self.net.t, span.count);
        let width = t.head_dim;
        let used = sight.keys * width;
        let (attention, _) = self.attention_of(sight.looks);
        if span.first == 0 {
            *sums.scales = [GradScale::EMPTY; 2];
            for sum in [&mut *sums.dk, &mut *sums.dv] {
                sum.get_mut(..used).unwrap_or_default().fill(0);
            }
        }
        let group = t.heads.checked_div(t.kv_heads).unwrap_or(1);
        let seen = self.seen(sight, span);
        let [k_scale, v_scale] = &mut *sums.scales;
        for query in head * group..(head + 1) * group {
            let rows = kv.head(0, head, seen.visible.keys);
            let q = queries.tile(Side::Keys, query, span.position, count);
            let d_out = queries.tile(Side::Values, query, span.position, count);
            let dq = tile_mut(desk.back.c, desk.back.c_exponents, count, width);
            let gradient = &mut KeyValueGradient {
                keys: Gradient { values: sums.dk, scale: k_scale },
                values: Gradient { values: sums.dv, scale: v_scale },
            };
            let scratch = &mut BackwardScratch {
                rows: desk.back.slopes,
                products: desk.rows.scores,
                weights: desk.rows.weights,
                acc: desk.rows.acc,
            };
            attention.backward(query, seen, q, d_out, &rows, dq, gradient, scratch)?;
            for (i, dq) in tile(desk.back.c, desk.back.c_exponents, count, width).blocks().enumerate() {
                queries.put(0, Side::Keys, query, span.position + i, dq.mantissas, dq.exponent);
            }
        }
        if last {
            let out = desk.rows.c.get_mut(..width).unwrap_or_default();
            let sides = [(Side::Keys, &*sums.dk, &*k_scale), (Side::Values, &*sums.dv, &*v_scale)];
            for (side, sum, scale) in sides {
                for (position, row) in sum.chunks_exact(width).take(sight.keys).enumerate() {
                    let e = requantize_i32(row, scale.exponent(), out);
                    kv.put(0, side, head, position, out, e);
                }
            }
        }
        Ok(())
    }

    /// From dq, dk and dv of a tile, the gradient of what went in; `through`: whether anybody needs it.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn inputs_back(
        &self,
        looks: Looks,
        span: Span,
        stream: &StreamMut<'_>,
        gradient: &mut StreamMut<'_>,
        kv: &Store<'_>,
        queries: &Store<'_>,
        through: bool,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let (t, count) = (self.net.t, span.count);
        let (dim, sites) = (t.dim, self.sites());
        let (_, norm) = self.ends_of(looks);
        let (query, kv_width) = (t.query_width(), t.kv_width());
        let (_, rope) = self.attention_of(looks);
        self.input(norm, stream, span, &mut desk.tiles, &mut desk.rows)?;
        let fused = looks == Looks::Own && sites.key_value.is_none();
        let Desk { tiles, rows, back } = desk;
        let own = [
            Source { store: queries, side: Side::Keys, rope: rope.as_ref() },
            Source { store: kv, side: Side::Keys, rope: rope.as_ref() },
            Source { store: kv, side: Side::Values, rope: None },
        ];
        let [dq, dk, dv] = &own;
        let x = tile(tiles.x, tiles.x_exponents, count, dim);
        if fused {
            let width = query + 2 * kv_width;
            gather(&own, span, rows.acc, tile_mut(tiles.a, tiles.a_exponents, count, width));
            let a = tile(tiles.a, tiles.a_exponents, count, width);
            let d = through.then_some(tile_mut(back.d, back.d_exponents, count, dim));
            self.net.linear_back(sites.query, span, x, a, d, rows, learn)?;
        } else {
            let site = match (looks, sites.cross) {
                (Looks::Cross, Some([query, ..])) => query,
                _ => sites.query,
            };
            gather(core::slice::from_ref(dq), span, rows.acc, tile_mut(tiles.a, tiles.a_exponents, count, query));
            let a = tile(tiles.a, tiles.a_exponents, count, query);
            let d = through.then_some(tile_mut(back.d, back.d_exponents, count, dim));
            self.net.linear_back(site, span, x, a, d, rows, learn)?;
        }
        let mut parts = 1;
        if let (Looks::Own, Some([key, value])) = (looks, sites.key_value) {
            parts = 3;
            gather(core::slice::from_ref(dk), span, rows.acc, tile_mut(tiles.b, tiles.b_exponents, count, kv_width));
            gather(core::slice::from_ref(dv), span, rows.acc, tile_mut(back.c, back.c_exponents, count, kv_width));
            let b = tile(tiles.b, tiles.b_exponents, count, kv_width);
            let a = through.then_some(tile_mut(tiles.a, tiles.a_exponents, count, dim));
            self.net.linear_back(key, span, x, b, a, rows, learn)?;
            let c = tile(back.c, back.c_exponents, count, kv_width);
            let b = through.then_some(tile_mut(tiles.b, tiles.b_exponents, count, dim));
            self.net.linear_back(value, span, x, c, b, rows, learn)?;
        }
        if !through {
            return Ok(());
        }
        for i in 0..count {
            let one = |m, e| tile(m, e, count, dim).blocks().nth(i);
            let [k, v] = if parts == 3 {
                [one(tiles.a, tiles.a_exponents), one(tiles.b, tiles.b_exponents)]
            } else {
                [None, None]
            };
            let q = one(back.d, back.d_exponents);
            self.back_before(norm, span.first + i, [q, k, v], stream, gradient, rows, back.row)?;
        }
        Ok(())
    }

    /// From dk and dv of a tile of the encoder's output, what cross-attention adds to its gradient.
    #[allow(clippy::too_many_arguments)] // The buffers of one block.
    pub(in crate::model::transformer) fn memory_back(
        &self,
        span: Span,
        memory: Tile<'_>,
        mut d_memory: Option<StreamMut<'_>>,
        kv: &Store<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(), ShapeError> {
        let Some([_, key, value, _]) = self.sites().cross else { return Ok(()) };
        let (dim, count) = (self.net.t.dim, span.count);
        let Desk { tiles, rows, back } = desk;
        for (site, side) in [(key, Side::Keys), (value, Side::Values)] {
            let source = Source { store: kv, side, rope: None };
            let width = self.net.t.kv_width();
            gather(core::slice::from_ref(&source), span, rows.acc, tile_mut(tiles.b, tiles.b_exponents, count, width));
            let b = tile(tiles.b, tiles.b_exponents, count, width);
            let d = d_memory.is_some().then_some(tile_mut(back.d, back.d_exponents, count, dim));
            self.net.linear_back(site, span, memory, b, d, rows, learn)?;
            if let Some(d_memory) = &mut d_memory {
                let acc = rows.acc.get_mut(..dim).unwrap_or_default();
                for (i, d) in tile(back.d, back.d_exponents, count, dim).blocks().enumerate() {
                    d_memory.add(span.first + i, d, acc);
                }
            }
        }
        Ok(())
    }
}

/// Rows of all heads, one of which a token has in each.
struct Source<'s, 'a> {
    store: &'s Store<'a>,
    side: Side,
    /// What has to be turned back.
    rope: Option<&'s Rope<'s>>,
}

/// Joins the rows of all heads to one block a token: turned back where they were rotated, and brought to the largest exponent,
/// half to even.
fn gather(sources: &[Source<'_, '_>], span: Span, acc: &mut [i64], mut out: TileMut<'_>) {
    let mut exponents = [Exp::ZERO; MAX_ROWS];
    for (i, (out, out_exponent)) in out.blocks_mut().enumerate() {
        let position = span.position + i;
        let rows = sources.iter().flat_map(|s| (0..s.store.shape.heads).map(move |head| (s, head)));
        let width = sources.first().map_or(1, |s| s.store.shape.width).max(1);
        for (((source, head), m), e) in rows.zip(out.chunks_exact_mut(width)).zip(&mut exponents) {
            *e = match source.store.row(source.side, head, position) {
                Some(row) => {
                    m.copy_from_slice(row.mantissas);
                    match source.rope {
                        Some(rope) => rope.backward(position as u32, m, row.exponent, acc),
                        None => row.exponent,
                    }
                }
                None => Exp::ZERO,
            };
        }
        let common = out.chunks_exact(width).zip(&exponents).map(|(_, &e)| e).max().unwrap_or(Exp::ZERO);
        for (m, e) in out.chunks_exact_mut(width).zip(&exponents) {
            let shift = (common.get() - e.get()).min(63);
            m.iter_mut().for_each(|m| *m = shift_half_even(i64::from(*m), shift) as i16);
        }
        *out_exponent = crate::fixed::block::canonicalize(out, common);
    }
}

/// Rows that can be joined: of queries, keys and values.
const MAX_ROWS: usize = 3 * crate::model::spec::transformer::MAX_HEADS;
