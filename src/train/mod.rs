//! Training: from a sample to an updated A and B, in bounded units, with integers only.
//!
//! ```text
//! sample → forward (keeping each layer's input) → loss → backward (dx, and dA, dB only) → optimizer → A, B
//! ```
//!
//! The trainer borrows the adapter mutably and the model immutably: nothing else can learn.
//!
//! * [`learner`]: A and B while they learn: masters, gradients, moments, kept activations
//! * [`checkpoint`]: all of that, written down, so that training goes on bit for bit
//! * [`loss`]: cross-entropy, binary cross-entropy on logits, mean squared error
//! * [`optimizer`]: what an optimizer is; [`adamw`], [`sgd`]; [`rule`]: either, chosen at run time
//! * [`mod@reservoir`]: samples that were seen, to be shown again; `prefixes`: what frozen blocks made of them
//! * [`schedule`]: the learning rate over time
//! * [`score`]: how good outputs are, over many samples; [`measure`]: samples that are looked at and not learned from; [`patience`]: when
//!   to stop
//! * [`order`]: samples in an order of chance; [`pack`]: texts joined to sequences of one length
//! * [`trainer`]: the sequence of units; `phase`: where it stands between them; `units` and `sequence`: what they do; `update`: how a tensor is updated, a part at a time
//! * [`master`], [`moments`]: the number formats of the parameters and of the optimizers' state

pub mod adamw;
pub mod checkpoint;
pub mod error;
pub mod learner;
pub mod loss;
pub mod master;
pub mod measure;
pub mod moments;
pub mod optimizer;
pub mod order;
pub mod pack;
pub mod patience;
mod phase;
#[cfg(feature = "store")]
pub mod prefixes;
pub mod reservoir;
pub mod rule;
pub mod schedule;
pub mod score;
mod sequence;
pub mod sgd;
pub mod trainer;
mod units;
mod update;

pub use adamw::AdamW;
pub use checkpoint::{CheckpointError, RestoreError};
pub use error::TrainError;
pub use learner::{ChooseError, Half, Learn, LearnError, Learner};
pub use loss::{IGNORE, LossKind, SequenceTarget, Target};
pub use measure::Measure;
pub use optimizer::Optimizer;
pub use pack::Pack;
pub use patience::{Patience, Verdict};
pub use phase::{Part, Progress};
#[cfg(feature = "store")]
pub use prefixes::{Keep, Prefixes, RecallError};
pub use reservoir::Reservoir;
#[cfg(feature = "store")]
pub use reservoir::flash::{FlashReservoir, Places};
pub use rule::Rule;
pub use schedule::Schedule;
pub use score::{Answers, Score};
pub use sequence::Prefix;
pub use sgd::Sgd;
pub use trainer::Trainer;
