//! What outlasts a power loss: records on NOR flash, through the traits of `embedded-storage`.
//!
//! * [`mod@log`]: records, one behind the other; of a key the newest counts
//! * [`ram`]: RAM that behaves as flash: for what need not outlast anything, and for tests
//!
//! What is kept in them stands with what uses it: samples in `train::reservoir`, outputs of frozen blocks in `train::prefixes`.

pub mod log;
pub mod ram;

#[cfg(test)]
pub(crate) mod mock;

pub use log::{Log, Record, StoreError};
pub use ram::Ram;
