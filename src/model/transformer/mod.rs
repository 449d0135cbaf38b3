//! Transformers: encoders, decoders, and both.
//!
//! ```text
//! sequence -> embedding -> stream (tokens, dim) -> blocks -> hidden (tokens, dim) -> head
//! ```
//!
//! [`Model::encode`] and [`Model::decode`] run a stack over a sequence and leave its hidden states in the scratch;
//! [`Model::logits`], [`Model::hidden`] and [`Model::pooled`] read them. A decoder keeps keys and values in a [`Cache`],
//! so that a text can go on token by token: with [`CacheType::I16`] the bits are those of one pass over all of it. Both
//! are made of bounded units ([`Pass`]), for firmware that has other things to do in between.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # static BASE: ranklet::Image = ranklet::Image::new(&[]);
//! use ranklet::model::{Arena, Model, Plan, Sequence};
//! let model = Model::open(&BASE)?;
//! let plan = Plan::new(&BASE)?.tokens(8).context(128);
//! let mut memory = [0; 60_000];
//! let (mut scratch, mut cache) = ranklet::model::Workspace::new(&mut memory).sequence(&plan)?;
//! model.decode(&mut scratch, &mut cache, Sequence::tokens(&[1, 17, 300]), &[])?;
//! let next = model.logits(&mut scratch, 2, &[])?; // what follows the third token
//! # let _ = next; Ok(()) }
//! ```

mod block;
mod head;
pub(crate) mod learn;
pub(crate) mod network;
pub(crate) mod parts;
pub(crate) mod pass;
pub(crate) mod pool;
pub(crate) mod scratch;
pub(crate) mod sequence;
pub(crate) mod store;

#[cfg(feature = "train")]
pub use learn::IGNORE;
pub use pass::Pass;
pub use scratch::SequenceScratch;
pub use sequence::Sequence;
pub use store::{Cache, CacheType, StoreShape};

use super::Model;
use super::adapter::Active;
use super::run::RunError;
use super::spec::Transformer;

impl Model<'_> {
    /// Runs the encoder over a sequence. Afterwards the scratch holds its hidden states; where a decoder looks at them,
    /// the cache holds their keys and values, and has forgotten what it held.
    ///
    /// # Errors
    /// See [`RunError`]. What the scratch and the cache hold then means nothing.
    pub fn encode(
        &self,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
        sequence: Sequence<'_>,
        adapters: &[Active<'_>],
    ) -> Result<(), RunError> {
        let mut pass = Pass::encode(self, scratch, cache, sequence, adapters)?;
        while pass.advance(scratch, cache)? {}
        Ok(())
    }

    /// Runs the decoder over the next tokens of a text. Afterwards the scratch holds their hidden states, and the cache
    /// their keys and values. How a text is cut into calls changes no bit (with [`CacheType::I16`]).
    ///
    /// # Errors
    /// See [`RunError`]; the cache then holds what it held.
    pub fn decode(
        &self,
        scratch: &mut SequenceScratch<'_>,
        cache: &mut Cache<'_>,
        sequence: Sequence<'_>,
        adapters: &[Active<'_>],
    ) -> Result<(), RunError> {
        let mut pass = Pass::decode(self, scratch, cache, sequence, adapters)?;
        while pass.advance(scratch, cache)? {}
        Ok(())
    }

    fn transformer(&self) -> Result<&Transformer, RunError> {
        self.spec().transformer().ok_or(RunError::Architecture)
    }
}
