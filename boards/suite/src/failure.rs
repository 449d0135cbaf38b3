//! Why an application of the suite ends with a non-zero exit.

use core::fmt;

use ranklet::kernel::suite::Mismatch;

use crate::counter::CounterError;

/// The reason, for the console and for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The instruction counter of the board cannot be trusted.
    Counter(CounterError),
    /// The active kernel leaf differs from the generic kernels.
    Kernel(Mismatch),
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
            Self::Kernel(Mismatch { kernel, shape: (rows, inputs, tokens) }) => write!(
                f,
                "kernel leaf {}: {kernel} differs from generic ({rows} rows, {inputs} inputs, {tokens} tokens)",
                crate::LEAF
            ),
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
