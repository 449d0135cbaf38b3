//! Trains in fixed point and in floats, and writes `docs/convergence.md` with its pictures:
//!
//! ```text
//! cargo run --release -p ranklet-host-tests --bin convergence                    writes the documents; an hour
//! cargo run --release -p ranklet-host-tests --bin convergence -- --check [NAME]  writes nothing; fails where a claim fails
//! ```

use ranklet_host_tests::convergence::chapter::{Chapter, NAMES};
use ranklet_host_tests::convergence::study::{Outcome, small_batches};
use ranklet_host_tests::convergence::{digits::Digits, report, svg};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (check, names) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (false, NAMES.to_vec()),
        ["--check"] => (true, NAMES.to_vec()),
        ["--check", name] if NAMES.contains(&name) => (true, vec![name]),
        _ => {
            eprintln!("usage: convergence [--check [{}]]", NAMES.join("|"));
            return ExitCode::from(2);
        }
    };
    let trained = names.into_iter().filter_map(|name| {
        eprintln!("{name}: training in fixed point and in floats ...");
        Chapter::new(name)
    });
    let chapters: Vec<Chapter> = trained.collect();
    let small = if chapters.iter().any(|c| c.name == "digits") {
        let task = Digits::turned();
        small_batches().map(|s| Outcome::new(&task, s, 0)).to_vec()
    } else {
        vec![]
    };
    let document = report::document(&chapters, &small);
    if check {
        println!("{document}");
    } else {
        let pictures = chapters.iter().map(|c| (c.picture(), svg::picture(&c.outcomes)));
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (name, text) in pictures.chain([("convergence.md".to_owned(), document)]) {
            if let Err(e) = std::fs::write(docs.join(&name), text) {
                eprintln!("docs/{name}: {e}");
                return ExitCode::FAILURE;
            }
            eprintln!("wrote docs/{name}");
        }
    }
    let failures = |c: &Chapter| {
        c.outcomes.iter().flat_map(Outcome::failures).map(|f| format!("{}: {f}", c.name)).collect::<Vec<_>>()
    };
    let failures: Vec<String> = chapters.iter().flat_map(failures).collect();
    failures.iter().for_each(|f| eprintln!("claim does not hold: {f}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
