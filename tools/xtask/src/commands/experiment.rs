//! `cargo xtask experiment NAME`: what adapters reach, into docs/experiments.md, with a picture.

use std::{env, fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{document::Document, tree};

/// Which.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Experiment {
    /// LoRA in fixed point, in f32, and everything in f32.
    #[value(name = "lora_vs_full")]
    LoraVsFull,
    /// A transformer reads turned digits: rank 4, 8, 16.
    Digits,
    /// A language model takes on a style.
    Style,
    /// A T5 classifier learns other words.
    Sentiment,
}

impl Experiment {
    const fn name(self) -> &'static str {
        match self {
            Experiment::LoraVsFull => "lora_vs_full",
            Experiment::Digits => "digits",
            Experiment::Style => "style",
            Experiment::Sentiment => "sentiment",
        }
    }

    /// Its part of the document.
    pub(crate) const fn document(self) -> Document {
        let command = match self {
            Experiment::LoraVsFull => "cargo xtask experiment lora_vs_full",
            Experiment::Digits => "cargo xtask experiment digits",
            Experiment::Style => "cargo xtask experiment style",
            Experiment::Sentiment => "cargo xtask experiment sentiment",
        };
        Document { path: "docs/experiments.md", command }
    }
}

/// Runs it; writes table and picture, or with `check` compares the table. Tells whether it is, or now is, what was measured.
pub(crate) fn run(experiment: Experiment, check: bool) -> Result<bool> {
    let (name, document) = (experiment.name(), experiment.document());
    let folder = tree::root().join("target/experiments");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    let picture = folder.join(format!("{name}.svg"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree::root());
    command.args(["run", "--quiet", "--release", "--package", "ranklet-host-tests", "--bin", "experiment", "--", name]);
    let output = command.arg(&picture).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "{name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).context("its table is no UTF-8")?;
    print!("{table}");
    if check {
        let same = document.is(&table)?;
        let verdict =
            if same { "is what was measured" } else { "is out of date; the command without --check writes it" };
        println!("\n{}, {name}: {verdict}", document.path);
        return Ok(same);
    }
    document.write(&table)?;
    let to = tree::root().join(format!("docs/experiment-{name}.svg"));
    fs::copy(&picture, &to).with_context(|| format!("cannot write {}", tree::shown(&to)))?;
    println!("\n{} is up to date", document.path);
    Ok(true)
}
