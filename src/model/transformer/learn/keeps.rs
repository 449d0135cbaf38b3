//! Which blocks' inputs are kept on the way forward, and where.
//!
//! | input of | on the way back it is |
//! |---|---|
//! | a stack's first block, where nothing below learns or it is not kept | looked up again: its tokens are still there |
//! | a block that is kept | where it was kept |
//! | any other (in a lean plan every second) | computed again from the block below, whose input is kept |
//!
//! What is brought back so takes the place of the block above, which is done by then.

use crate::model::plan::max;

/// What is kept of a network's blocks, by a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keeps {
    /// Blocks of both stacks.
    pub(crate) blocks: usize,
    /// The lowest that may learn.
    pub(crate) floor: usize,
    /// Every second only.
    pub(crate) lean: bool,
}

impl Keeps {
    /// Whether the input of a block is kept.
    #[cfg(feature = "train")]
    pub(crate) const fn keeps(&self, place: usize) -> bool {
        let own = place > 0 && place >= self.floor && place < self.blocks;
        // From the last block down; the lowest is computed from nothing that is kept.
        own && (!self.lean || place == self.floor || (self.blocks - 1 - place).is_multiple_of(2))
    }

    /// Where the input of a block is, from when it is there.
    pub(crate) const fn slot(&self, place: usize) -> usize {
        let (above, count) = (place.saturating_sub(self.floor), self.blocks.saturating_sub(self.floor));
        let even = count.is_multiple_of(2) as usize;
        match (self.lean, self.floor) {
            // The very first is looked up again, in the place of the second.
            (false, 0) => above.saturating_sub(1),
            (false, _) => above,
            (true, 0) => (above + even).saturating_sub(1) / 2,
            (true, _) if above == 0 => 0,
            (true, _) => (above + 1 + even) / 2,
        }
    }

    /// How many places there are.
    pub(crate) const fn slots(&self) -> usize {
        if self.floor >= self.blocks { 0 } else { max(self.slot(self.blocks - 1) + 1, 1) }
    }
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// On the way back every block finds its input, whatever was put where by those above, and from any block that learns on.
    #[test]
    fn every_block_finds_its_input() {
        for blocks in 1..12 {
            for (floor, lean) in (0..=blocks).flat_map(|f| [(f, false), (f, true)]) {
                let keeps = Keeps { blocks, floor, lean };
                let mut slots: Vec<Option<usize>> = vec![None; keeps.slots()];
                for place in (0..blocks).filter(|&p| keeps.keeps(p)) {
                    let slot = &mut slots[keeps.slot(place)];
                    assert_eq!(*slot, None, "{keeps:?} {place}");
                    *slot = Some(place);
                }
                for place in (floor..blocks).rev() {
                    let slot = keeps.slot(place);
                    if !keeps.keeps(place) {
                        let below = place.checked_sub(1).filter(|&p| p > 0);
                        // From the block below, whose input is there; or from the tokens.
                        assert!(
                            below.is_none_or(|b| keeps.keeps(b) && slots[keeps.slot(b)] == Some(b)),
                            "{keeps:?} {place}"
                        );
                        assert!(slots[slot].is_none_or(|p| p > place), "what lies there is done: {keeps:?} {place}");
                        slots[slot] = Some(place);
                    }
                    assert_eq!(slots[slot], Some(place), "{keeps:?} {place}");
                }
            }
        }
    }

    #[test]
    fn a_lean_plan_keeps_about_half() {
        let slots = |blocks, floor, lean| Keeps { blocks, floor, lean }.slots();
        assert_eq!([1, 2, 5, 6, 12].map(|n| slots(n, 0, false)), [1, 1, 4, 5, 11]);
        assert_eq!([1, 2, 5, 6, 12].map(|n| slots(n, 0, true)), [1, 1, 2, 3, 6]);
        assert_eq!([1, 2, 4, 5].map(|floor| slots(5, floor, false)), [4, 3, 1, 0]);
        assert_eq!([1, 2, 4, 5].map(|floor| slots(5, floor, true)), [3, 2, 1, 0]);
    }
}
