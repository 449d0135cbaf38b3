//! The console of the host.

use core::fmt;

use semihosting::io::{self, Stdout, Write as _};

/// Standard output of the emulator. Unbuffered: what was printed before a fault is seen.
pub struct Console(Option<Stdout>);

impl Console {
    /// Opens the console. Where there is none, every write fails, and the application ends with that failure.
    #[must_use]
    pub fn open() -> Self {
        Self(io::stdout().ok())
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let out = self.0.as_mut().ok_or(fmt::Error)?;
        out.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
