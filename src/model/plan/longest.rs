//! How long a unit of work may be: what an application has to wait for at most, between two returns of `advance`.

use super::{Plan, max};
use crate::model::spec::{Stack, Transformer};
use crate::model::transformer::scratch::SequenceLengths;

impl Plan<'_> {
    /// Multiply-accumulates of the longest unit of work between two returns of `advance` that is a layer, forward or backward; or, in a
    /// transformer, a block, or one of its parts on the way back, on a tile of tokens; or the head for one token. An optimizer's units are of
    /// another kind: see [`longest_update`](Plan::longest_update).
    #[must_use]
    pub const fn longest_unit_macs(&self) -> usize {
        if let (Some(t), Some(l)) = (self.spec.transformer(), self.sequence_lengths()) {
            return self.longest_block_macs(t, &l);
        }
        let mut longest = 0;
        let mut site = 0;
        while let Some(l) = self.linear(site) {
            let macs = l.inputs * l.outputs;
            longest = max(longest, macs);
            site += 1;
        }
        match self.train {
            // Backward also recomputes A x, and makes Bᵀ dy twice, Aᵀ t, dA and dB.
            Some(t) => longest + 3 * t.rank as usize * 2 * self.widest(),
            None => longest,
        }
    }

    /// Of a transformer, with as many keys as there can be.
    const fn longest_block_macs(&self, t: &Transformer, l: &SequenceLengths) -> usize {
        let mut longest = 0;
        let mut at = 0;
        while at < 2 {
            let stack = if at == 0 { Stack::Encoder } else { Stack::Decoder };
            if t.blocks(stack) > 0 {
                let sites = t.block(stack, 0);
                let looks = 1 + sites.cross.is_some() as usize;
                let attention = 2 * l.keys * t.query_width();
                let all = self.macs(sites.query, sites.down);
                longest = max(longest, l.tile * (all + looks * attention));
                if self.train.is_some() {
                    let feed = match sites.gate {
                        Some(gate) => self.macs(gate, sites.down),
                        None => self.macs(sites.up, sites.down),
                    };
                    // The feed-forward again, and back; queries and their heads again, and back through the output.
                    let back = max(2 * feed, 2 * (all - feed) + attention);
                    // Scores and slopes again, and what they give queries, keys and values, of one head of these.
                    let pairs = 5 * l.keys * t.query_width() / max(t.kv_heads, 1);
                    longest = max(longest, l.tile * max(back + self.pair_macs(sites.query, sites.down), pairs));
                }
            }
            at += 1;
        }
        // The projection of features, on a tile: forward, and what its pair gets.
        if let Some(site) = t.input_site() {
            longest = max(longest, l.tile * (self.macs(site, site) + self.pair_macs(site, site)));
        }
        // Pooler and head, for one token: forward, and back.
        let behind = match t.pooler_site() {
            Some(site) => site,
            None => t.head_site(),
        };
        let head = self.macs(behind, t.head_site());
        let back = if self.train.is_some() { head + self.pair_macs(behind, t.head_site()) } else { 0 };
        max(longest, head + back)
    }

    /// Of the layers `first ..= last`, for one token.
    const fn macs(&self, first: u16, last: u16) -> usize {
        let (mut macs, mut site) = (0, first);
        while site <= last {
            if let Some(layer) = self.linear(site) {
                macs += layer.inputs * layer.outputs;
            }
            site += 1;
        }
        macs
    }

    /// What pairs add to them on the way back: A x, Bᵀ dy twice, Aᵀ t, dA and dB.
    const fn pair_macs(&self, first: u16, last: u16) -> usize {
        let Some(train) = self.train else { return 0 };
        let (mut macs, mut site) = (0, first);
        while site <= last {
            if let Some(layer) = self.linear(site)
                && layer.role.meets(train.roles)
            {
                macs += 3 * train.rank as usize * (layer.inputs + layer.outputs);
            }
            site += 1;
        }
        macs
    }

    /// Elements that the optimizer works on in one unit, at most (`docs/benchmarks.md` has instructions for such a unit, which
    /// may be the longest). 0 without training.
    #[must_use]
    pub const fn longest_update(&self) -> usize {
        let largest = self.largest_tensor();
        match self.train {
            Some(t) if t.update_elements < largest => t.update_elements,
            _ => largest,
        }
    }

    /// Elements of the largest tensor that learns. Between the parts of its update, and at their end, a unit passes over all
    /// of it, some tens of instructions an element. 0 without training.
    #[must_use]
    pub const fn largest_tensor(&self) -> usize {
        let Some(train) = self.train else {
            return 0;
        };
        let mut longest = 0;
        let mut site = 0;
        while let Some(l) = self.linear(site) {
            if l.role.meets(train.roles) {
                longest = max(longest, train.rank as usize * max(l.inputs, l.outputs));
            }
            site += 1;
        }
        longest
    }
}
