//! Why training refuses.

use super::loss::LossKind;
use crate::image::Fingerprint;
use crate::layer::ShapeError;
use crate::model::RunError;

/// Why a sample is refused. The adapter is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TrainError {
    /// The sample before has not been finished: call `advance` until there is no more.
    Busy,
    /// The learner belongs to another base.
    Base {
        /// Of the model.
        expected: Fingerprint,
        /// Of the learner.
        found: Fingerprint,
    },
    /// The optimizer keeps more moments than the plan made room for.
    Moments {
        /// What the optimizer keeps for each parameter.
        needed: usize,
        /// What the plan has.
        planned: usize,
    },
    /// A hyper-parameter that nothing can be trained with.
    Hyperparameter {
        /// Which, and what it may be.
        name: &'static str,
    },
    /// Dropout was asked for, but the plan made no room for it: add `Train::dropout`.
    DropoutNotPlanned,
    /// The input has another number of features than the network.
    Input {
        /// The spec's.
        expected: usize,
        /// The input's.
        found: usize,
    },
    /// There is no such class.
    Class {
        /// The label.
        found: usize,
        /// Classes there are.
        classes: usize,
    },
    /// The network takes the other kind of sample: [`sample`](super::Trainer::sample) for perceptrons,
    /// [`sequence`](super::Trainer::sequence) or [`pair`](super::Trainer::pair) for transformers.
    Architecture,
    /// A network with encoder and decoder learns from a [`pair`](super::Trainer::pair), every other transformer from a
    /// [`sequence`](super::Trainer::sequence).
    Stacks {
        /// Whether the network has both.
        both: bool,
    },
    /// The sequence does not fit the network or the plan.
    Sequence(RunError),
    /// Labels, or given gradients, of another number than the sequence has tokens.
    Labels {
        /// Tokens.
        expected: usize,
        /// Labels.
        found: usize,
    },
    /// An adapter beside the one that learns is a DoRA: no gradient goes through that.
    Beside {
        /// Its place in the list.
        index: usize,
    },
    /// The plan is for a step after every sample, but a batch or clipping was asked for: those need the gradient of all pairs together.
    Immediate,
    /// What is given of the blocks below is not what this sequence brings to the lowest block that learns.
    Prefix {
        /// The block, and the tokens.
        expected: (usize, usize),
        /// Those given.
        found: (usize, usize),
    },
    /// No token has a label: nothing would be learned.
    NoLabels,
    /// Gradients of the outputs are given, but the plan made no room for them: add `Train::cotangents`.
    CotangentsNotPlanned,
    /// The target has another length than the output.
    TargetLength {
        /// The spec's outputs.
        expected: usize,
        /// The target's.
        found: usize,
    },
    /// A target of another kind than the loss takes.
    TargetKind {
        /// The loss.
        loss: LossKind,
    },
    /// The network has no head, so it has no loss: choose one with `Trainer::loss`.
    NoLoss,
    /// A buffer is too small: the memory was split by the plan of another network.
    Shape(ShapeError),
}

impl core::fmt::Display for TrainError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            TrainError::Busy => write!(f, "the sample before is not finished: call advance until there is no more"),
            TrainError::Base { expected, found } => {
                write!(f, "the learner belongs to the base {found}, the model is {expected}")
            }
            TrainError::Moments { needed, planned } => write!(
                f,
                "the optimizer keeps {needed} moments a parameter, the plan made room for {planned}: \
                 plan with Train::adamw() or Train::momentum()"
            ),
            TrainError::Hyperparameter { name } => write!(f, "out of range: {name}"),
            TrainError::DropoutNotPlanned => write!(f, "the plan made no room for dropout: add Train::dropout()"),
            TrainError::Input { expected, found } => {
                write!(f, "the input has {found} features, the network takes {expected}")
            }
            TrainError::Class { found, classes } => {
                write!(f, "label {found}, but there are {classes} classes (0 to {})", classes.saturating_sub(1))
            }
            TrainError::Architecture => write!(
                f,
                "the network takes the other kind of sample: `sample` is for perceptrons, `sequence` and `pair` for transformers"
            ),
            TrainError::Stacks { both: true } => {
                write!(f, "the network has an encoder and a decoder: give it a sequence for each, with `pair`")
            }
            TrainError::Stacks { both: false } => {
                write!(f, "the network has one stack: give it one sequence, with `sequence`")
            }
            TrainError::Sequence(e) => e.fmt(f),
            TrainError::Labels { expected, found } => {
                write!(f, "{found} labels for {expected} tokens: give one a token (u32::MAX where it has none)")
            }
            TrainError::Beside { index } => {
                write!(f, "adapter {index} beside the one that learns is a DoRA: no gradient goes through it")
            }
            TrainError::Immediate => {
                write!(f, "the plan is for a step after every sample (Train::immediate): no batches, no clipping")
            }
            TrainError::Prefix { expected, found } => write!(
                f,
                "a prefix for block {} of {} tokens; the lowest that learns is block {}, of a sequence of {}: compute it anew",
                found.0, found.1, expected.0, expected.1
            ),
            TrainError::NoLabels => write!(f, "no token of the sequence has a label: nothing would be learned"),
            TrainError::CotangentsNotPlanned => {
                write!(f, "the plan made no room for given gradients: add Train::cotangents()")
            }
            TrainError::TargetLength { expected, found } => {
                write!(f, "the target has {found} values, the network has {expected} outputs")
            }
            TrainError::TargetKind { loss } => write!(f, "this kind of target does not go with {loss:?}"),
            TrainError::NoLoss => write!(f, "the network has no head: choose a loss with Trainer::loss"),
            TrainError::Shape(e) => write!(f, "memory of another network's plan: {e}"),
        }
    }
}

impl core::error::Error for TrainError {}

impl From<ShapeError> for TrainError {
    fn from(e: ShapeError) -> Self {
        TrainError::Shape(e)
    }
}
