//! The host command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ranklet_cli::commands::main()
}
