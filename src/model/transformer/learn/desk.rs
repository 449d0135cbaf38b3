//! What one unit computes in. Contents mean nothing between units.

use super::shape::DeskShape;
use crate::fixed::Exp;
use crate::memory::Workspace;
use crate::model::transformer::scratch::{Rows, Tiles};

/// The buffers of a unit: those of forward, and what the way back needs beside them.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) tiles: Tiles<'a>,
    pub(crate) rows: Rows<'a>,
    pub(crate) back: Back<'a>,
}

/// What the way back needs beside the buffers of forward.
#[derive(Debug)]
pub(crate) struct Back<'a> {
    /// Two more tiles, as wide as those of `Tiles`.
    pub(crate) c: &'a mut [i16],
    pub(crate) c_exponents: &'a mut [Exp],
    pub(crate) d: &'a mut [i16],
    pub(crate) d_exponents: &'a mut [Exp],
    /// One more row.
    pub(crate) row: &'a mut [i16],
    /// Probabilities and slopes of a tile.
    pub(crate) slopes: &'a mut [i32],
    /// The output of one token, and its gradient.
    pub(crate) outputs: &'a mut [i16],
    pub(crate) d_outputs: &'a mut [i16],
}

impl<'a> Desk<'a> {
    pub(crate) fn carve(s: &DeskShape, memory: &mut Workspace<'a>) -> Desk<'a> {
        let wide = s.tile * s.row;
        Desk {
            tiles: Tiles {
                x: memory.carve(s.tile * s.dim),
                x_exponents: memory.carve(s.tile),
                a: memory.carve(wide),
                a_exponents: memory.carve(s.tile),
                b: memory.carve(wide),
                b_exponents: memory.carve(s.tile),
            },
            rows: Rows {
                c: memory.carve(s.row),
                head_exponents: memory.carve(s.heads),
                sum_exponents: memory.carve(s.heads),
                scores: memory.carve(s.keys),
                weights: memory.carve(s.weights),
                acc: memory.carve(s.acc),
                masked: memory.carve(s.masked),
                vector: memory.carve(s.vector),
                rank: memory.carve(s.rank),
            },
            back: Back {
                c: memory.carve(wide),
                c_exponents: memory.carve(s.tile),
                d: memory.carve(wide),
                d_exponents: memory.carve(s.tile),
                row: memory.carve(s.row),
                slopes: memory.carve(s.slopes),
                outputs: memory.carve(s.outputs),
                d_outputs: memory.carve(s.outputs),
            },
        }
    }
}
