//! The float types: those of the host tool's reference.

pub use ranklet_cli::reference::scalar::{Scalar, convert};
