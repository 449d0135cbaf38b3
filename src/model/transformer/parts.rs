//! The layers of a transformer as its image holds them, each ready to be used.

use crate::fixed::Real;
use crate::image::layout::NONE;
use crate::layer::attention::Relative;
use crate::layer::{Attention, Linear, Norm, NormKind, Rope, Vector};
use crate::model::Model;
use crate::model::spec::transformer::Table;
use crate::model::spec::{Flags, Position, Stack, Transformer};

impl<'m> Model<'m> {
    /// Norm `index`; an empty one, which every operation refuses, where there is none.
    #[must_use]
    pub(crate) fn norm(&self, t: &Transformer, index: u16) -> Norm<'m> {
        let record = t.norm(&self.spec, &self.head, self.bytes, index);
        let vector = |section: u16| {
            let found = self.head.section(self.bytes, section);
            Vector { mantissas: self.slice(found), exponent: found.map_or(0, |s| s.exponent) }
        };
        let (weight, bias) = record.map_or((NONE, NONE), |r| (r.weight, r.bias));
        Norm {
            kind: if t.flags.has(Flags::RMS) { NormKind::Rms } else { NormKind::Layer },
            weight: vector(weight),
            bias: (bias != NONE).then(|| vector(bias)),
            epsilon: t.epsilon,
        }
    }

    /// A table of embeddings, as a layer whose outputs are its rows; `None` where the model has none.
    #[must_use]
    pub fn table(&self, table: Table) -> Option<Linear<'m>> {
        let record = self.spec.transformer()?.table(&self.spec, &self.head, self.bytes, table)?;
        Some(self.linear_of(&record))
    }

    /// The rotation of queries and keys, for a model that has it.
    #[must_use]
    pub(crate) fn rope(&self, t: &Transformer) -> Option<Rope<'m>> {
        let section = self.head.section(self.bytes, t.rope)?;
        Some(Rope { turns: self.slice(Some(section)) })
    }

    /// Attention among the tokens of a stack.
    #[must_use]
    pub(crate) fn self_attention(&self, t: &Transformer, stack: Stack) -> Attention<'m> {
        let relative = (t.position == Position::Relative).then(|| {
            let [encoder, decoder] = [0, 1].map(|i| (t.bias.get(i).copied(), t.buckets.get(i).copied()));
            let (bias, buckets) = if stack == Stack::Encoder { encoder } else { decoder };
            let section = |index: Option<u16>| self.head.section(self.bytes, index.unwrap_or(NONE));
            let (bias, buckets) = (section(bias), section(buckets));
            Relative {
                bias: self.slice(bias),
                count: bias.map_or(0, |s| s.cols as usize),
                buckets: self.slice(buckets),
                distances: buckets.map_or(0, |s| s.cols as usize),
            }
        });
        Attention { relative, ..cross_attention(t) }
    }
}

/// Attention to the encoder's output, which has no places.
#[must_use]
pub(crate) const fn cross_attention<'a>(t: &Transformer) -> Attention<'a> {
    Attention { heads: t.heads, kv_heads: t.kv_heads, head_dim: t.head_dim, score: t.score, relative: None }
}

/// 1/n, for a mean.
pub(crate) const fn one_of(n: usize) -> Real {
    Real::ratio(1, n as u32)
}
