//! From the stream to the loss and back: forward and backward of a network's end, in one unit.

use super::desk::Desk;
use super::run::{Lesson, Objective};
use super::unit::Unit;
use super::work::Work;
use crate::fixed::block::{canonicalize, requantize};
use crate::fixed::{Block, Exp, Real, Tile, TileMut};
use crate::layer::{Activation, ShapeError, first};
use crate::model::spec::HeadKind;
use crate::model::transformer::network::Span;
use crate::model::transformer::parts::one_of;
use crate::model::transformer::pool::Mean;
use crate::train::learner::Gradients;
use crate::train::loss::{Staged, loss};
use crate::train::score::{Scored, answers};

/// A label that says of a token that it has none.
pub const IGNORE: u32 = u32::MAX;

impl Lesson<'_, '_> {
    /// One token that has an output, or the vector that is pooled. Returns the loss: of a token its share.
    pub(super) fn head(
        &self,
        unit: &Unit,
        work: &mut Work<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<Option<Scored>, ShapeError> {
        let dim = self.net.t.dim;
        match self.objective {
            Objective::Pooled { staged, index } => {
                work.gradient.clear();
                let target = &*work.target;
                desk.back.d_outputs.iter_mut().zip(target).for_each(|(d, &t)| *d = t);
                match index {
                    Some(index) => self.token(index, unit, staged, Real::ONE, work, desk, learn).map(Some),
                    None => self.mean(unit, staged, work, desk, learn).map(Some),
                }
            }
            Objective::Tokens { share } => {
                let label = work.labels.get(unit.first).copied().unwrap_or(IGNORE);
                if label == IGNORE {
                    self.nothing(unit.first, work, desk)?;
                    return Ok(Some(Scored::NOTHING));
                }
                self.token(unit.first, unit, Staged::Class(label as usize), share, work, desk, learn).map(Some)
            }
            Objective::Cotangents => {
                let outputs = self.net.model.spec().outputs;
                let from = unit.first * outputs;
                let given = work.cotangents.mantissas.get(from..from + outputs).unwrap_or(&[]);
                let exponent = work.cotangents.exponents.get(unit.first).copied().unwrap_or(Exp::ZERO);
                if exponent == Exp::ZERO {
                    self.nothing(unit.first, work, desk)?;
                    return Ok(Some(Scored::NOTHING));
                }
                desk.back.d_outputs.iter_mut().zip(given).for_each(|(d, &t)| *d = t);
                first("scratch.row", desk.back.row, dim)?;
                self.token(unit.first, unit, Staged::Cotangent(exponent), Real::ONE, work, desk, learn).map(Some)
            }
        }
    }

    /// A token without a gradient.
    fn nothing(&self, token: usize, work: &mut Work<'_>, desk: &mut Desk<'_>) -> Result<(), ShapeError> {
        let acc = first("scratch.acc", desk.rows.acc, self.net.t.dim)?;
        acc.fill(0);
        work.gradient.all().store(token, acc, 0);
        Ok(())
    }

    /// Token `index`: its hidden state, what the head makes of it, and the way back to the stream.
    #[allow(clippy::too_many_arguments)] // What one token needs.
    fn token(
        &self,
        index: usize,
        unit: &Unit,
        staged: Staged,
        share: Real,
        work: &mut Work<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<Scored, ShapeError> {
        let dim = self.net.t.dim;
        let stream = &work.stream.all();
        let x = first("scratch.x", desk.tiles.x, dim)?;
        let exponent = self.net.end(unit.stack, index, stream, x, desk.rows.acc)?;
        let through = self.course.through(self.top());
        let (scored, exponent) = self.outputs(index, exponent, staged, share, through, desk, learn)?;
        if through {
            let dy = Block { mantissas: desk.rows.c.get(..dim).unwrap_or(&[]), exponent };
            let gradient = &mut work.gradient.all();
            self.net.end_back(unit.stack, index, stream, dy, gradient, desk.back.row, desk.rows.acc)?;
        }
        Ok(scored)
    }

    /// The first layer behind the last block.
    const fn top(&self) -> u16 {
        match self.net.t.pooler_site() {
            Some(site) => site,
            None => self.net.t.head_site(),
        }
    }

    /// The mean of the valid tokens.
    fn mean(
        &self,
        unit: &Unit,
        staged: Staged,
        work: &mut Work<'_>,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<Scored, ShapeError> {
        let (dim, own) = (self.net.t.dim, self.course.own);
        let from = self.course.source;
        let valid = work.valid.get(from..from + own).unwrap_or(&[]);
        let stream = &work.stream.all();
        let (acc, rest) = desk.rows.acc.split_at_mut_checked(dim).unwrap_or_default();
        let mut mean = Mean::new(acc);
        for (i, _) in valid.iter().enumerate().filter(|&(_, &v)| v != 0) {
            let mantissas = first("scratch.c", desk.rows.c, dim)?;
            let exponent = self.net.end(unit.stack, i, stream, mantissas, rest)?;
            mean.add(Block { mantissas, exponent });
        }
        let exponent = mean.finish(first("scratch.x", desk.tiles.x, dim)?);
        let one = one_of(valid.iter().filter(|&&v| v != 0).count());

        let through = self.course.through(self.top());
        let (scored, exponent) = self.outputs(0, exponent, staged, Real::ONE, through, desk, learn)?;
        if through {
            // The same for all of them: 1/n of it.
            let share = first("scratch.x", desk.tiles.x, dim)?;
            let acc = first("scratch.acc", desk.rows.acc, dim)?;
            for (a, &m) in acc.iter_mut().zip(desk.rows.c.iter()) {
                *a = i64::from(m) * i64::from(one.mantissa());
            }
            let exponent = requantize(acc, exponent.get() + one.exponent(), share);
            let gradient = &mut work.gradient.all();
            for (i, _) in valid.iter().enumerate().filter(|&(_, &v)| v != 0) {
                let dy = Block { mantissas: share, exponent };
                self.net.end_back(unit.stack, i, stream, dy, gradient, desk.back.row, desk.rows.acc)?;
            }
        }
        Ok(scored)
    }

    /// From the vector in `x`: pooler, head, loss (its target waits in `d_outputs`), and back; leaves the vector's gradient in
    /// `rows.c`. Returns the loss and that gradient's exponent.
    #[allow(clippy::too_many_arguments)] // What one vector needs.
    fn outputs(
        &self,
        index: usize,
        x_exponent: Exp,
        staged: Staged,
        share: Real,
        through: bool,
        desk: &mut Desk<'_>,
        learn: &mut Gradients<'_>,
    ) -> Result<(Scored, Exp), ShapeError> {
        let (t, net, spec) = (self.net.t, self.net, self.net.model.spec());
        let (dim, outputs) = (t.dim, spec.outputs);
        let span = Span { first: index, count: 1, position: index };
        let Desk { tiles, rows, back } = desk;
        let d_outputs = first("scratch.outputs", back.d_outputs, outputs)?;
        if spec.head == HeadKind::None {
            let x = Block { mantissas: tiles.x.get(..outputs).unwrap_or(&[]), exponent: x_exponent };
            let answers = answers(x, staged, d_outputs);
            let (loss, e) = loss(x, staged, d_outputs, share, rows.acc);
            let dx = first("scratch.c", rows.c, dim)?;
            dx.iter_mut().zip(d_outputs.iter()).for_each(|(x, &d)| *x = d);
            let e = canonicalize(dx, e);
            return Ok((Scored { loss, answers }, e));
        }
        let mut e = [x_exponent];
        let mut before = [Exp::ZERO];
        // Pooler: x → a, tanh a → b.
        if let Some(site) = t.pooler_site() {
            let x = Tile { mantissas: tiles.x.get(..dim).unwrap_or(&[]), exponents: &e };
            let a = first("scratch.a", tiles.a, dim)?;
            net.linear(site, span, x, TileMut { mantissas: a, exponents: &mut before }, rows)?;
            let [a_exponent] = before;
            let b = first("scratch.b", tiles.b, dim)?;
            e = [Activation::Tanh.forward(Block { mantissas: a, exponent: a_exponent }, b, rows.acc)?];
        }
        let input = if t.pooler_site().is_some() { &*tiles.b } else { &*tiles.x };
        let input = Tile { mantissas: input.get(..dim).unwrap_or(&[]), exponents: &e };
        let y = first("scratch.outputs", back.outputs, outputs)?;
        let mut y_exponent = [Exp::ZERO];
        net.linear(t.head_site(), span, input, TileMut { mantissas: y, exponents: &mut y_exponent }, rows)?;
        let [exponent] = y_exponent;
        let y = Block { mantissas: y, exponent };
        let answers = answers(y, staged, d_outputs);
        let (loss, dy_exponent) = loss(y, staged, d_outputs, share, rows.acc);
        let scored = Scored { loss, answers };

        let below = through || t.pooler_site().is_some_and(|site| learn.learns(site));
        let dy = Tile { mantissas: d_outputs, exponents: &[dy_exponent] };
        let mut dx_exponent = [Exp::ZERO];
        let d = first("scratch.d", back.d, dim)?;
        let dx = below.then_some(TileMut { mantissas: d, exponents: &mut dx_exponent });
        net.linear_back(t.head_site(), span, input, dy, dx, rows, learn)?;
        let d = back.d.get(..dim).unwrap_or(&[]);
        let [d_exponent] = dx_exponent;
        let Some(site) = t.pooler_site().filter(|_| below) else {
            let out = first("scratch.c", rows.c, dim)?;
            out.copy_from_slice(d);
            return Ok((scored, d_exponent));
        };
        let [a_exponent] = before;
        let a = Block { mantissas: tiles.a.get(..dim).unwrap_or(&[]), exponent: a_exponent };
        let c = first("scratch.c", back.c, dim)?;
        let c_exponent =
            Activation::Tanh.backward_from(a, Block { mantissas: d, exponent: d_exponent }, c, rows.acc)?;
        let x = Tile { mantissas: tiles.x.get(..dim).unwrap_or(&[]), exponents: &[x_exponent] };
        let dy = Tile { mantissas: c, exponents: &[c_exponent] };
        let mut dx_exponent = [Exp::ZERO];
        let row = first("scratch.row", back.row, dim)?;
        let dx = through.then_some(TileMut { mantissas: row, exponents: &mut dx_exponent });
        net.linear_back(site, span, x, dy, dx, rows, learn)?;
        let out = first("scratch.c", rows.c, dim)?;
        out.iter_mut().zip(back.row.iter()).for_each(|(o, &d)| *o = d);
        let [exponent] = dx_exponent;
        Ok((scored, exponent))
    }
}
