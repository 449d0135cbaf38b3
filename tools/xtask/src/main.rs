//! Project commands: `cargo xtask setup | test | accuracy | experiment | bench | size | demo | story | images`.
//!
//! - Finding tools: [`toolchain`] (a compiler for bare metal, in two ways), [`emulator`] (QEMU), [`debian`] (installing).
//! - Firmware: [`board`] (what boards there are), [`firmware`] (building one), [`emulate`] (running it), [`record`] (what it said).
//! - Documents with generated parts: [`document`].
//! - Judging: [`elf`] and [`symbols`] (what is linked in), [`budget`] (what it may take), [`turns`] (beside PyTorch).
//! - [`commands`]: one file each.

mod board;
mod budget;
mod commands;
mod debian;
mod document;
mod elf;
mod emulate;
mod emulator;
mod firmware;
mod host;
mod process;
mod record;
mod report;
mod symbols;
mod table;
mod toolchain;
mod tree;
mod turns;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::bench::Form;

/// Build, emulate, measure.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what firmware needs: bare-metal targets and QEMU.
    Setup,
    /// Everything: format, lints, docs, host tests, firmware on every emulated board.
    Test {
        /// Also sweep the nonlinear functions over every argument, and train a hundred thousand steps, in release: minutes.
        #[arg(long)]
        exhaustive: bool,
    },
    /// Errors against PyTorch, as the tests measure them, into docs/accuracy.md.
    Accuracy {
        /// Write nothing; say whether the document is what was measured.
        #[arg(long)]
        check: bool,
    },
    /// What adapters reach, in fixed point beside f32, into docs/experiments.md.
    Experiment {
        /// Which.
        #[arg(value_enum)]
        name: commands::experiment::Experiment,
        /// Write nothing; say whether the table is what was measured.
        #[arg(long)]
        check: bool,
    },
    /// Instructions per operation, counted on every emulated board.
    Bench {
        /// One JSON array of rows, nothing else.
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
        /// Write the tables into docs/benchmarks.md.
        #[arg(long)]
        markdown: bool,
    },
    /// Flash, static RAM and stack of every firmware, against boards/budgets.json.
    Size {
        /// One JSON array of rows, nothing else.
        #[arg(long)]
        json: bool,
    },
    /// The main job, from nothing: an adapter learns on an emulated Cortex-M4.
    Demo {
        /// What it learns.
        #[arg(value_enum, default_value = "digits")]
        what: commands::demo::Demo,
        /// Rank of the digits' adapter, 1 to 16.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=16))]
        rank: u16,
    },
    /// A language model writes on an emulated Cortex-M4, with two adapters that take turns; and what that costs.
    Story,
    /// Convert the committed checkpoints again, and compare with the committed images.
    Images {
        /// Replace the images that differ.
        #[arg(long)]
        bless: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => commands::setup::run(),
        Command::Test { exhaustive } => commands::test::run(exhaustive),
        Command::Accuracy { check } => commands::accuracy::run(check),
        Command::Experiment { name, check } => commands::experiment::run(name, check),
        Command::Bench { json, markdown } => commands::bench::run(match (json, markdown) {
            (true, _) => Form::Json,
            (_, true) => Form::Markdown,
            _ => Form::Tables,
        }),
        Command::Size { json } => commands::size::run(json),
        Command::Demo { what, rank } => commands::demo::run(what, rank),
        Command::Story => commands::story::run(),
        Command::Images { bless } => commands::images::run(bless),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
