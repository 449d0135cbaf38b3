//! Project commands: `cargo xtask setup | test | bench | size | demo`.
//!
//! - Finding tools: [`toolchain`] (a compiler for bare metal, in two ways), [`emulator`] (QEMU), [`debian`] (installing).
//! - Firmware: [`board`] (what boards there are), [`firmware`] (building one), [`emulate`] (running it), [`record`] (what it said).
//! - Judging: [`elf`] and [`symbols`] (what is linked in), [`budget`] (what it may take).
//! - [`commands`]: one file each.

mod board;
mod budget;
mod commands;
mod debian;
mod elf;
mod emulate;
mod emulator;
mod firmware;
mod process;
mod record;
mod report;
mod symbols;
mod table;
mod toolchain;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Test,
    /// Instructions per operation, counted on every emulated board.
    Bench {
        /// One JSON array of rows, nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Flash, static RAM and stack of every firmware, against boards/budgets.json.
    Size {
        /// One JSON array of rows, nothing else.
        #[arg(long)]
        json: bool,
    },
    /// The main job, from nothing: an adapter learns on an emulated Cortex-M4.
    Demo,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => commands::setup::run(),
        Command::Test => commands::test::run(),
        Command::Bench { json } => commands::bench::run(json),
        Command::Size { json } => commands::size::run(json),
        Command::Demo => commands::demo::run(),
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
