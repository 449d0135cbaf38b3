//! Why an application of the suite ends with a non-zero exit.

use core::fmt;

use ranklet::{
    image::{EmitError, ImageError},
    kernel::suite::Mismatch,
    model::{AdapterError, ArenaError, RunError},
    train::{LearnError, TrainError},
};

use crate::counter::CounterError;

/// The reason, for the console and for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The instruction counter of the board cannot be trusted.
    Counter(CounterError),
    /// The active kernel leaf differs from the generic kernels.
    Kernel(Mismatch),
    /// The core refused the base image.
    Image(ImageError),
    /// The core refused an adapter.
    Adapter(AdapterError),
    /// The arena gave no buffers.
    Arena(ArenaError),
    /// The learner did not start.
    Learn(LearnError),
    /// A sample was refused.
    Train(TrainError),
    /// An inference was refused.
    Run(RunError),
    /// A self-check found what must not be.
    Check(&'static str),
    /// A file on the host could not be created or written.
    File(embedded_io::ErrorKind),
    /// The console took no text.
    Console,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter(error) => write!(f, "{error}"),
            Self::Kernel(Mismatch { kernel, shape: (rows, inputs, tokens), lie }) => write!(
                f,
                "kernel leaf {}: {kernel} differs from generic ({rows} rows, {inputs} inputs, {tokens} tokens, {lie:?})",
                crate::LEAF
            ),
            Self::Image(error) => write!(f, "{error}"),
            Self::Adapter(error) => write!(f, "{error}"),
            Self::Arena(error) => write!(f, "{error}"),
            Self::Learn(error) => write!(f, "{error}"),
            Self::Train(error) => write!(f, "{error}"),
            Self::Run(error) => write!(f, "{error}"),
            Self::Check(what) => write!(f, "self-check failed: {what}"),
            Self::File(kind) => write!(f, "file on the host: {kind:?}"),
            Self::Console => f.write_str("the console took no text"),
        }
    }
}

impl core::error::Error for Failure {}

impl From<CounterError> for Failure {
    fn from(error: CounterError) -> Self {
        Self::Counter(error)
    }
}

impl From<Mismatch> for Failure {
    fn from(error: Mismatch) -> Self {
        Self::Kernel(error)
    }
}

impl From<fmt::Error> for Failure {
    fn from(_: fmt::Error) -> Self {
        Self::Console
    }
}

macro_rules! from {
    ($($error:ident => $variant:ident),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(ImageError => Image, AdapterError => Adapter, ArenaError => Arena, LearnError => Learn, TrainError => Train, RunError => Run);

impl<E: embedded_io::Error> From<EmitError<E>> for Failure {
    fn from(error: EmitError<E>) -> Self {
        match error {
            EmitError::Write(error) => Self::File(error.kind()),
            _ => Self::Check("the adapter has no sound image"),
        }
    }
}
