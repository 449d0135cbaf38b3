//! `memory` on this machine.

fn main() -> std::process::ExitCode {
    host::run(ranklet_suite::memory::run)
}
