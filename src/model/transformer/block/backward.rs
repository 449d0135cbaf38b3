//! The way back through the ends of a sub-layer: its norm, and its place in the residual stream.

use super::BlockOf;
use crate::fixed::{Block, Exp};
use crate::layer::ShapeError;
use crate::layer::residual::{StreamMut, sum};
use crate::model::transformer::learn::Desk;
use crate::model::transformer::network::{Span, tile};
use crate::model::transformer::scratch::Rows;

impl BlockOf<'_, '_> {
    /// Where norms stand behind: the gradient of a tile goes back through the norm of `stream + d`, in place.
    pub(super) fn back_behind(
        &self,
        norm: u16,
        span: Span,
        stream: &StreamMut<'_>,
        gradient: &mut StreamMut<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        let norm = self.net.model.norm(self.net.t, norm);
        let added = tile(desk.back.d, desk.back.d_exponents, span.count, dim);
        for (i, block) in added.blocks().enumerate() {
            let token = span.first + i;
            let (row, acc) = desk.rows.acc.split_at_mut_checked(dim).unwrap_or_default();
            let exponent = stream.sum(token, block, row);
            let Some(dy) = gradient.narrow(token) else { continue };
            let dx = desk.back.row.get_mut(..dim).unwrap_or_default();
            let e = norm.backward(row, exponent, dy, dx, acc)?;
            gradient.put(token, Block { mantissas: dx, exponent: e }, row);
        }
        Ok(())
    }

    /// Adds what comes out at the input of a sub-layer to the gradient of a token: through the norm before it, if there is one.
    #[allow(clippy::too_many_arguments)] // The buffers of one token.
    pub(super) fn back_before(
        &self,
        norm: u16,
        token: usize,
        parts: [Option<Block<'_>>; 3],
        stream: &StreamMut<'_>,
        gradient: &mut StreamMut<'_>,
        rows: &mut Rows<'_>,
        dx: &mut [i16],
    ) -> Result<(), ShapeError> {
        let dim = self.net.t.dim;
        let (row, acc) = rows.acc.split_at_mut_checked(dim).unwrap_or_default();
        let total = rows.c.get_mut(..dim).unwrap_or_default();
        let exponent: Exp = sum(parts, row, total);
        let mut out = Block { mantissas: total, exponent };
        let dx = dx.get_mut(..dim).unwrap_or_default();
        if self.pre_norm() {
            let exponent = stream.load(token, row);
            let exponent = self.net.model.norm(self.net.t, norm).backward(row, exponent, out, dx, acc)?;
            out = Block { mantissas: dx, exponent };
        }
        gradient.add(token, out, row);
        Ok(())
    }
}
