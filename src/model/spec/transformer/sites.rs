//! Where each layer, norm and table of a transformer stands among all of them.

use super::{BlockSites, Flags, Position, Stack, Table, Transformer};

impl Transformer {
    /// Width of all heads' queries.
    #[must_use]
    pub const fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all heads' keys, and of their values.
    #[must_use]
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Whether the decoder looks at an encoder.
    #[must_use]
    pub const fn has_cross(&self) -> bool {
        self.encoder > 0 && self.decoder > 0
    }

    /// Blocks of a stack.
    #[must_use]
    pub const fn blocks(&self, stack: Stack) -> u16 {
        match stack {
            Stack::Encoder => self.encoder,
            Stack::Decoder => self.decoder,
        }
    }

    pub(super) const fn attention_sites(&self) -> u16 {
        if self.flags.has(Flags::FUSED) { 2 } else { 4 }
    }

    pub(super) const fn feed_sites(&self) -> u16 {
        2 + self.flags.has(Flags::GATED) as u16
    }

    /// Layers of one block.
    pub(super) const fn stride(&self, stack: Stack) -> u16 {
        let cross = if matches!(stack, Stack::Decoder) && self.has_cross() { 4 } else { 0 };
        self.attention_sites() + cross + self.feed_sites()
    }

    /// The site behind the last block.
    pub(super) const fn blocks_end(&self) -> u32 {
        self.flags.has(Flags::INPUT) as u32
            + self.encoder as u32 * self.stride(Stack::Encoder) as u32
            + self.decoder as u32 * self.stride(Stack::Decoder) as u32
    }

    /// The layer that projects continuous features.
    #[must_use]
    pub const fn input_site(&self) -> Option<u16> {
        if self.flags.has(Flags::INPUT) { Some(0) } else { None }
    }

    /// The layer between the pooled vector and the head.
    #[must_use]
    pub const fn pooler_site(&self) -> Option<u16> {
        if self.flags.has(Flags::POOLER) { Some(self.blocks_end() as u16) } else { None }
    }

    /// The head's layer, for a model that has one.
    #[must_use]
    pub const fn head_site(&self) -> u16 {
        self.blocks_end() as u16 + self.flags.has(Flags::POOLER) as u16
    }

    /// The sites and norms of a block.
    #[must_use]
    pub const fn block(&self, stack: Stack, index: u16) -> BlockSites {
        let cross = matches!(stack, Stack::Decoder) && self.has_cross();
        let input = self.flags.has(Flags::INPUT) as u16;
        let (first, norm) = match stack {
            Stack::Encoder => (input, self.flags.has(Flags::EMBEDDING_NORM) as u16),
            Stack::Decoder => (input + self.encoder * self.stride(Stack::Encoder), self.encoder_norms_end()),
        };
        let query = first + index * self.stride(stack);
        let attention_norm = norm + index * (2 + cross as u16);
        let fused = self.flags.has(Flags::FUSED);
        let behind = query + self.attention_sites();
        let feed = behind + if cross { 4 } else { 0 };
        let gated = self.flags.has(Flags::GATED);
        BlockSites {
            query,
            key_value: if fused { None } else { Some([query + 1, query + 2]) },
            output: behind - 1,
            cross: if cross { Some([behind, behind + 1, behind + 2, behind + 3]) } else { None },
            gate: if gated { Some(feed) } else { None },
            up: feed + gated as u16,
            down: feed + gated as u16 + 1,
            attention_norm,
            cross_norm: if cross { Some(attention_norm + 1) } else { None },
            feed_norm: attention_norm + 1 + cross as u16,
        }
    }

    pub(super) const fn encoder_norms_end(&self) -> u16 {
        let last = self.encoder > 0 && self.flags.has(Flags::FINAL_NORM);
        self.flags.has(Flags::EMBEDDING_NORM) as u16 + 2 * self.encoder + last as u16
    }

    /// The norm behind the embedding.
    #[must_use]
    pub const fn embedding_norm(&self) -> Option<u16> {
        if self.flags.has(Flags::EMBEDDING_NORM) { Some(0) } else { None }
    }

    /// The norm at the end of a stack.
    #[must_use]
    pub const fn final_norm(&self, stack: Stack) -> Option<u16> {
        if !self.flags.has(Flags::FINAL_NORM) || self.blocks(stack) == 0 {
            return None;
        }
        match stack {
            Stack::Encoder => Some(self.encoder_norms_end() - 1),
            Stack::Decoder => Some(self.norms() - 1),
        }
    }

    /// How many norms there are.
    #[must_use]
    pub const fn norms(&self) -> u16 {
        let each = 2 + self.has_cross() as u16;
        let last = self.decoder > 0 && self.flags.has(Flags::FINAL_NORM);
        self.encoder_norms_end() + each * self.decoder + last as u16
    }

    /// How many tables there are.
    #[must_use]
    pub const fn tables(&self) -> u16 {
        (self.vocab > 0) as u16 + matches!(self.position, Position::Learned) as u16 + (self.types > 0) as u16
    }

    /// The place of a table among the tables, if there is such a one, and its rows.
    pub(super) const fn table_place(&self, table: Table) -> Option<(u16, usize)> {
        let learned = matches!(self.position, Position::Learned);
        let (place, rows) = match table {
            Table::Tokens => (0, self.vocab),
            Table::Positions => ((self.vocab > 0) as u16, if learned { self.positions } else { 0 }),
            Table::Types => ((self.vocab > 0) as u16 + learned as u16, self.types),
        };
        if rows == 0 { None } else { Some((place, rows)) }
    }
}
