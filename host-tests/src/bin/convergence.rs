//! Trains in fixed point and in floats, and writes `docs/convergence.md` with its picture:
//!
//! ```text
//! cargo run --release -p ranklet-host-tests --bin convergence             writes the documents
//! cargo run --release -p ranklet-host-tests --bin convergence -- --check  writes nothing; fails where a claim fails
//! ```

use ranklet_host_tests::convergence::digits::Digits;
use ranklet_host_tests::convergence::run::name;
use ranklet_host_tests::convergence::study::{Outcome, PERTURBED, settings, small_batches};
use ranklet_host_tests::convergence::{report, svg};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => {
            eprintln!("usage: convergence [--check]");
            return ExitCode::from(2);
        }
    };
    let task = Digits::turned();
    let outcomes: Vec<Outcome> = settings()
        .into_iter()
        .map(|s| {
            eprintln!("{}: training in fixed point and in floats ...", name(&s.rule));
            Outcome::new(&task, s, PERTURBED)
        })
        .collect();
    let small = small_batches().map(|s| Outcome::new(&task, s, 0));
    let document = report::document(&outcomes, &small);
    if check {
        println!("{document}");
    } else {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (name, text) in [("convergence.md", &document), ("convergence.svg", &svg::picture(&outcomes))] {
            if let Err(e) = std::fs::write(docs.join(name), text) {
                eprintln!("docs/{name}: {e}");
                return ExitCode::FAILURE;
            }
            eprintln!("wrote docs/{name}");
        }
    }
    let failures: Vec<String> = outcomes.iter().flat_map(Outcome::failures).collect();
    failures.iter().for_each(|f| eprintln!("claim does not hold: {f}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
