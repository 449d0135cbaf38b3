//! What is tested on the developer's machine.

use std::{env, process::Command};

use anyhow::ensure;

use super::steps::{LIMIT, Steps};
use crate::{
    board::BOARDS,
    commands::{accuracy, images},
    process::follow,
    tree,
};

/// Sets of the core's features that are checked one by one: each must stand without the others.
const FEATURES: [&str; 6] = ["", "train", "float", "store", "train,defmt", "train,store,defmt"];

/// Crates that live with the boards, outside the workspace as they are, but are none.
const BESIDE: [&str; 4] = ["suite", "semihost", "cortex-m", "host"];

/// Examples of the core, which must run to their end.
const EXAMPLES: [&str; 4] = ["learn", "lora_block", "replay", "rehearse"];

/// Format, lints, docs, tests.
pub(super) fn run(steps: &mut Steps) {
    steps.program("format", cargo().args(["fmt", "--all", "--check"]));
    steps.check("format: boards", || {
        for name in BESIDE.into_iter().chain(BOARDS.iter().map(|board| board.name)) {
            let ended = follow(cargo().current_dir(tree::board(name)).args(["fmt", "--check"]), LIMIT, |_| ())?;
            ensure!(ended.ok(), "{}cargo fmt --check {} in boards/{name}", ended.text, ended.how());
        }
        Ok(())
    });
    steps.program("lints", cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-Dwarnings"]));
    for features in FEATURES {
        let mut command = cargo();
        command.args([
            "clippy",
            "--quiet",
            "--package",
            "ranklet",
            "--no-default-features",
            "--features",
            features,
            "--",
            "-Dwarnings",
        ]);
        let shown = if features.is_empty() { "none" } else { features };
        steps.program(&format!("lints: core, features {shown}"), &mut command);
    }
    for name in ["suite", "host"] {
        let mut command = cargo();
        command.current_dir(tree::board(name)).args(["clippy", "--quiet", "--all-targets", "--all-features"]);
        command.args(["--", "-Dwarnings"]);
        steps.program(&format!("lints: boards/{name}"), &mut command);
    }
    let docs = ["doc", "--quiet", "--no-deps"];
    steps.program("docs", cargo().env("RUSTDOCFLAGS", "-Dwarnings").args(docs).arg("--workspace"));
    let mut suite = cargo();
    suite.current_dir(tree::board("suite")).env("RUSTDOCFLAGS", "-Dwarnings").args(docs).arg("--all-features");
    steps.program("docs: boards/suite", &mut suite);
    steps.check("committed images", || {
        ensure!(images::run(false)?, "an image differs from what the converter makes");
        Ok(())
    });
    for example in EXAMPLES {
        steps.program(&format!("example {example}"), cargo().args(["run", "--quiet", "--example", example]));
    }
    let tests = ["test", "--quiet", "--no-fail-fast"];
    steps.tests("tests", cargo().args(tests).arg("--workspace"));
    steps.check("docs/accuracy.md", || {
        ensure!(accuracy::run(true)?, "the document is not what the tests measure");
        Ok(())
    });
    steps.tests("tests: boards/suite", cargo().current_dir(tree::board("suite")).args(tests).arg("--all-features"));
}

/// Fixed-point training beside float training, in full: the claims of `docs/convergence.md`.
pub(super) fn convergence(steps: &mut Steps) {
    let arguments = ["run", "--quiet", "--release", "--package", "ranklet-host-tests", "--bin", "convergence"];
    steps.program("convergence beside floats", cargo().args(arguments).args(["--", "--check", "digits"]));
}

/// What takes minutes: the nonlinear functions over every argument, and long trainings.
pub(super) fn sweeps(steps: &mut Steps) {
    let mut command = cargo();
    command.env("RANKLET_EXHAUSTIVE", "1").args(["test", "--quiet", "--release", "--package", "ranklet", "fixed::"]);
    steps.tests("tests: every argument", &mut command);
    let long = ["test", "--quiet", "--release", "--package", "ranklet-host-tests", "--test", "long", "--", "--ignored"];
    steps.tests("tests: a hundred thousand steps", cargo().args(long));
}

/// The cargo that runs this command, in the root of the workspace.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree::root());
    command
}
