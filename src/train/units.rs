//! The units of a sample: what does not depend on the optimizer, so that it is compiled once for all of them.

use super::learner::{BackwardParts, ForwardParts, Learner};
use super::phase::Phase;
use crate::fixed::{Block, Exp, Real, Tile, TileMut};
use crate::layer::{ShapeError, first};
use crate::model::adapter::Loras;
use crate::model::{Active, Model, Scratch};

/// What a unit works on. The phase it leaves in the learner is that of the next; [`Phase::Gathered`] behind the last.
pub(super) struct Units<'u, 'm, 'a> {
    pub(super) model: &'u Model<'m>,
    pub(super) learner: &'u mut Learner<'a>,
    pub(super) beside: &'u [Active<'u>],
}

impl Units<'_, '_, '_> {
    pub(super) fn forward(&mut self, site: u16, at: usize, scratch: &mut Scratch<'_>) -> Result<(), ShapeError> {
        let linear = self.model.linear(site);
        let dropout = self.learner.dropout(site);
        let ForwardParts { view, trace, exponents } = self.learner.forward_parts();
        let end = at + linear.inputs;
        let (x, y) = trace.split_at_mut_checked(end).unwrap_or_default();
        let x = x.get(at..).unwrap_or(&[]);
        let y = first("trace", y, linear.outputs)?;
        let (ex, ey) = exponents.split_at_mut_checked(usize::from(site) + 1).unwrap_or_default();
        linear.forward(
            Tile { mantissas: x, exponents: ex.get(usize::from(site)..).unwrap_or(&[]) },
            Loras::new(self.beside, site).learning(Some(&view), dropout),
            TileMut { mantissas: y, exponents: first("trace's exponents", ey, 1)? },
            &mut scratch.layer(),
        )?;
        let next = site + 1;
        self.learner.phase = if next < self.model.spec().linears {
            Phase::Forward { site: next, at: end }
        } else {
            Phase::Loss { at: end }
        };
        Ok(())
    }

    pub(super) fn loss(&mut self, at: usize, scratch: &mut Scratch<'_>) -> Real {
        let spec = self.model.spec();
        let y = Block {
            mantissas: self.learner.trace.get(at..at + spec.outputs).unwrap_or(&[]),
            exponent: self.learner.trace_exponents.get(usize::from(spec.linears)).copied().unwrap_or(Exp::ZERO),
        };
        let [dy, _] = &mut self.learner.gradients;
        let dy = dy.get_mut(..spec.outputs).unwrap_or_default();
        self.learner.answers = super::score::answers(y, self.learner.staged, dy);
        let (value, exponent) = super::loss::loss(y, self.learner.staged, dy, Real::ONE, scratch.acc);
        let site = spec.linears - 1;
        let inputs = self.model.linear_spec(site).map_or(0, |l| l.inputs);
        self.learner.phase = Phase::Backward { site, at: at - inputs, flip: 0, exponent };
        self.leave_backward(site.wrapping_add(1));
        value
    }

    pub(super) fn backward(
        &mut self,
        site: u16,
        at: usize,
        flip: usize,
        exponent: Exp,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), ShapeError> {
        let linear = self.model.linear(site);
        let lowest = self.learner.lowest_site();
        let dropout = self.learner.dropout(site);
        let parts = self.learner.backward_parts(site);
        let BackwardParts { view, gradient, trace, trace_exponents, gradients: [even, odd] } = parts;
        let (dy, dx) = if flip == 0 { (even, odd) } else { (odd, even) };

        let end = at + linear.inputs;
        let site_index = usize::from(site);
        let x = Tile {
            mantissas: trace.get(at..end).unwrap_or(&[]),
            exponents: trace_exponents.get(site_index..=site_index).unwrap_or(&[]),
        };
        let y = Tile {
            mantissas: trace.get(end..end + linear.outputs).unwrap_or(&[]),
            exponents: trace_exponents.get(site_index + 1..site_index + 2).unwrap_or(&[]),
        };
        let mut exponents = [exponent];
        let mut dy = TileMut { mantissas: first("gradient", dy, linear.outputs)?, exponents: &mut exponents };
        linear.activation.backward(y, &mut dy);

        let mut dx_exponent = [Exp::ZERO];
        let dx = if site > lowest {
            Some(TileMut { mantissas: first("gradient", dx, linear.inputs)?, exponents: &mut dx_exponent })
        } else {
            None
        };
        // A pair that is switched off neither gives nor learns.
        let gradient = gradient.filter(|_| view.lora(site).is_some());
        let loras = Loras::new(self.beside, site).learning(Some(&view), dropout);
        linear.backward(x, dy.as_tile(), loras, gradient, dx, &mut scratch.layer())?;
        let [exponent] = dx_exponent;
        let below = site.checked_sub(1).and_then(|s| self.model.linear_spec(s)).map_or(0, |l| l.inputs);
        let next = site.saturating_sub(1);
        self.learner.phase = Phase::Backward { site: next, at: at.saturating_sub(below), flip: 1 - flip, exponent };
        self.leave_backward(site);
        Ok(())
    }

    /// Goes on behind backward where `site`, the layer just done, was the lowest that has an adapter.
    fn leave_backward(&mut self, site: u16) {
        if site <= self.learner.lowest_site() {
            self.learner.phase = Phase::Gathered;
        }
    }
}
