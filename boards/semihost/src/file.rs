//! Files in the working directory of the emulator.

use core::{ffi::CStr, fmt};

use embedded_io::ErrorKind;
use semihosting::io::Write as _;

/// A file on the host, open for writing; closed when dropped.
pub struct File(semihosting::fs::File);

impl File {
    /// Creates or empties the file `name`.
    ///
    /// # Errors
    /// What the host says.
    pub fn create(name: &CStr) -> Result<Self, FileError> {
        semihosting::fs::File::create(name).map(Self).map_err(FileError::of)
    }
}

/// Why the host took no file, as far as semihosting tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileError(ErrorKind);

impl FileError {
    fn of(error: semihosting::io::Error) -> Self {
        use semihosting::io::ErrorKind as Host;
        Self(match error.kind() {
            Host::NotFound => ErrorKind::NotFound,
            Host::PermissionDenied => ErrorKind::PermissionDenied,
            Host::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        })
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file on the host: {:?}", self.0)
    }
}

impl core::error::Error for FileError {}

impl embedded_io::Error for FileError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl embedded_io::ErrorType for File {
    type Error = FileError;
}

impl embedded_io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, FileError> {
        match self.0.write(bytes) {
            Ok(0) if !bytes.is_empty() => Err(FileError(ErrorKind::WriteZero)),
            Ok(written) => Ok(written),
            Err(error) => Err(FileError::of(error)),
        }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        self.0.flush().map_err(FileError::of)
    }
}
