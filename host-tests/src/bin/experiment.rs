//! Runs an experiment, and prints its table:
//!
//! ```text
//! cargo run --release -p ranklet-host-tests --bin experiment -- NAME [PICTURE.svg]
//! ```

use ranklet_host_tests::experiments::{NAMES, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, picture) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name] => (name, None),
        [name, picture] => (name, Some(picture)),
        _ => ("", None),
    };
    let Some(report) = run(name) else {
        eprintln!("usage: experiment {} [PICTURE.svg]", NAMES.join("|"));
        return ExitCode::from(2);
    };
    if let Some(Err(e)) = picture.map(|path| std::fs::write(path, &report.picture)) {
        eprintln!("cannot write {}: {e}", picture.unwrap_or_default());
        return ExitCode::FAILURE;
    }
    print!("{}", report.markdown);
    ExitCode::SUCCESS
}
