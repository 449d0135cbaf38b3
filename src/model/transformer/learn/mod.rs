//! A transformer that learns: one sample, in bounded units, with what each layer's backward needs computed again.
//!
//! Kept are one input a block (from the lowest that learns on; in a lean plan of every second), the gradient of the stream, and, for the block at hand, keys,
//! values, queries and the gradients of what the heads gave. Everything else is computed again, block by block.
//!
//! | file | holds |
//! |---|---|
//! | `shape` | how long each buffer is |
//! | `keeps` | which blocks' inputs are kept, and where |
//! | `work` | what is kept between units |
//! | `desk` | what a unit computes in |
//! | `unit` | the order of the units |
//! | `run` | what each of them does |
//! | `head` | from the stream to the loss and back |

mod keeps;
mod shape;

#[cfg(feature = "train")]
mod desk;
#[cfg(feature = "train")]
mod head;
#[cfg(feature = "train")]
mod run;
#[cfg(feature = "train")]
mod unit;
#[cfg(feature = "train")]
mod work;

pub(crate) use shape::{LearnPlan, LearnShape, place_of};
#[cfg(feature = "train")]
pub(crate) use {keeps::Keeps, shape::Side};

#[cfg(feature = "train")]
pub use head::IGNORE;
#[cfg(feature = "train")]
pub(crate) use {
    desk::Desk,
    run::{Lesson, Objective},
    unit::{Course, Unit},
    work::Work,
};
