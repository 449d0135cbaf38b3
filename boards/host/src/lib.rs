//! Binds the suite to the developer's own machine: same application, same digest, no instruction counter.

use std::{ffi::CStr, fmt, fs, io, io::Write as _, process::ExitCode};

use critical_section as _; // the implementation for std, which the arena needs
use embedded_io_adapters::std::FromStd;
use ranklet_suite::{Board, Failure, busy::NoLight};

/// This machine.
pub struct Host {
    light: NoLight,
}

/// Runs an application of the suite; its failure goes to standard error and into the exit code.
pub fn run(application: fn(&mut Host) -> Result<(), Failure>) -> ExitCode {
    match application(&mut Host { light: NoLight }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nFAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

impl Board for Host {
    const NAME: &'static str = "host";
    type Light = NoLight;
    type File = FromStd<fs::File>;

    fn light(&mut self) -> &mut NoLight {
        &mut self.light
    }

    fn instructions(&mut self) -> Option<u64> {
        None
    }

    fn spin(&mut self, rounds: u32) -> u64 {
        u64::from(rounds)
    }

    fn stack_used(&self) -> Option<usize> {
        None
    }

    fn create(&mut self, name: &CStr) -> Result<Self::File, io::Error> {
        let name = name.to_str().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        fs::File::create(name).map(FromStd::new)
    }
}

impl fmt::Write for Host {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::stdout().write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
