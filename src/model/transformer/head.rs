//! What the hidden states are for: vectors, logits of a token, logits of a sequence.

use super::Sequence;
use super::pool::{self, Mean};
use super::scratch::SequenceScratch;
use crate::fixed::{Block, Exp, Tile, TileMut};
use crate::layer::activation::Activation;
use crate::layer::linear;
use crate::model::adapter::Loras;
use crate::model::run::RunError;
use crate::model::spec::HeadKind;
use crate::model::{Active, Model};

impl Model<'_> {
    /// The hidden state of token `index` of the last call: `(dim)`.
    ///
    /// # Errors
    /// [`RunError::Index`]; [`RunError::Shape`] for buffers of another network's plan.
    pub fn hidden<'s>(&self, scratch: &'s SequenceScratch<'_>, index: usize) -> Result<Block<'s>, RunError> {
        let t = self.transformer()?;
        scratch.check(self.spec(), t)?;
        let dim = t.dim;
        let (found, len) = (index, scratch.len);
        if found >= len {
            return Err(RunError::Index { found, len });
        }
        Ok(Block {
            mantissas: scratch.hidden.get(index * dim..(index + 1) * dim).unwrap_or(&[]),
            exponent: scratch.hidden_exponents.get(index).copied().unwrap_or(Exp::ZERO),
        })
    }

    /// The head's output for token `index` of the last call: `(outputs)`; for a network without a head, the hidden state.
    ///
    /// # Errors
    /// [`RunError::Index`]; [`RunError::Adapter`] of another base.
    pub fn logits<'s>(
        &self,
        scratch: &'s mut SequenceScratch<'_>,
        index: usize,
        adapters: &[Active<'_>],
    ) -> Result<Block<'s>, RunError> {
        let hidden = self.hidden(scratch, index)?;
        if self.spec().head == HeadKind::None {
            return self.hidden(scratch, index);
        }
        let (exponent, dim) = (hidden.exponent, hidden.mantissas.len());
        let from = index * dim;
        if let (Some(x), Some(hidden)) = (scratch.tile.x.get_mut(..dim), scratch.hidden.get(from..from + dim)) {
            x.copy_from_slice(hidden);
        }
        self.head_of(scratch, exponent, adapters)
    }

    /// The head's output for the sequence of the last call, from the vector that the network pools: `(outputs)`.
    ///
    /// `sequence`: the last call's; for T5 the encoder's, whose end token tells which of the decoder's vectors counts.
    /// A network that pools nothing gives what [`logits`](Model::logits) gives for the last valid token.
    ///
    /// # Errors
    /// [`RunError::Index`] where the last call did not hold that token; [`RunError::Adapter`] of another base.
    pub fn pooled<'s>(
        &self,
        scratch: &'s mut SequenceScratch<'_>,
        sequence: Sequence<'_>,
        adapters: &[Active<'_>],
    ) -> Result<Block<'s>, RunError> {
        let t = self.transformer()?;
        if let Some(index) = pool::index(t, sequence, sequence) {
            return self.logits(scratch, index, adapters);
        }
        let exponent = self.mean(scratch, sequence)?;
        if self.spec().head == HeadKind::None {
            let mantissas = scratch.tile.x.get(..t.dim).unwrap_or(&[]);
            return Ok(Block { mantissas, exponent });
        }
        self.head_of(scratch, exponent, adapters)
    }

    /// The mean of the valid vectors into `x`.
    fn mean(&self, scratch: &mut SequenceScratch<'_>, sequence: Sequence<'_>) -> Result<Exp, RunError> {
        let t = self.transformer()?;
        scratch.check(self.spec(), t)?;
        let (found, len) = (sequence.len(), scratch.len);
        if found != len || len == 0 {
            return Err(RunError::Index { found, len });
        }
        let mut mean = Mean::new(crate::layer::first("scratch.acc", scratch.rows.acc, t.dim)?);
        let vectors = scratch.hidden.chunks_exact(t.dim).zip(scratch.hidden_exponents.iter());
        for (_, (mantissas, &exponent)) in vectors.take(len).enumerate().filter(|&(i, _)| sequence.is_valid(i)) {
            mean.add(Block { mantissas, exponent });
        }
        Ok(mean.finish(crate::layer::first("scratch.x", scratch.tile.x, t.dim)?))
    }

    /// Pooler and head, from the vector in `x`.
    fn head_of<'s>(
        &self,
        scratch: &'s mut SequenceScratch<'_>,
        exponent: Exp,
        adapters: &[Active<'_>],
    ) -> Result<Block<'s>, RunError> {
        let t = self.transformer()?;
        crate::model::run::check_adapters(self, adapters)?;
        let mut x_exponent = exponent;
        if let Some(site) = t.pooler_site() {
            let y = crate::layer::first("scratch.a", scratch.tile.a, t.dim)?;
            let x = scratch.tile.x.get(..t.dim).unwrap_or(&[]);
            let e = self.one(site, Block { mantissas: x, exponent }, y, scratch.rows.acc, adapters)?;
            let x = crate::layer::first("scratch.x", scratch.tile.x, t.dim)?;
            x_exponent = Activation::Tanh.forward(Block { mantissas: y, exponent: e }, x, scratch.rows.acc)?;
        }
        let x = scratch.tile.x.get(..t.dim).unwrap_or(&[]);
        let outputs = crate::layer::first("scratch.outputs", scratch.outputs, self.spec().outputs)?;
        let x = Block { mantissas: x, exponent: x_exponent };
        let exponent = self.one(t.head_site(), x, outputs, scratch.rows.acc, adapters)?;
        Ok(Block { mantissas: outputs, exponent })
    }

    /// One layer for one vector.
    fn one(
        &self,
        site: u16,
        x: Block<'_>,
        y: &mut [i16],
        acc: &mut [i64],
        adapters: &[Active<'_>],
    ) -> Result<Exp, RunError> {
        let mut exponents = [Exp::ZERO];
        self.linear(site).forward(
            Tile { mantissas: x.mantissas, exponents: &[x.exponent] },
            Loras::new(adapters, site),
            TileMut { mantissas: y, exponents: &mut exponents },
            &mut linear::Scratch { acc, vector: &mut [], rank: &mut [], masked: &mut [] },
        )?;
        let [exponent] = exponents;
        Ok(exponent)
    }
}
