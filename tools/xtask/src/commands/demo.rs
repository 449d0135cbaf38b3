//! `cargo xtask demo`: the main job, on an emulated Cortex-M4, or on this machine where there is no emulator.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{board::DEMO, commands::setup, elf, emulate, firmware, host, report::Report, tree};

/// What a device learns.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Demo {
    /// To read with a camera that was mounted sideways.
    Digits,
    /// To write in another style: a language model, on a few pages of text.
    Style,
}

/// What stands behind a demo: the application, what it writes, and the base of that.
struct Made {
    application: &'static str,
    adapter: &'static str,
    base: &'static str,
}

impl Demo {
    const fn made(self) -> Made {
        match self {
            Demo::Digits => Made { application: "demo", adapter: "turned", base: "models/digits/digits.rkl" },
            Demo::Style => Made { application: "style", adapter: "style", base: "models/story/story.rkl" },
        }
    }
}

/// Runs a demo and tells whether it ended well.
pub(crate) fn run(what: Demo, rank: u16) -> Result<bool> {
    let Made { application, .. } = what.made();
    // Read by boards/suite at compile time: a rank decides the size of a static buffer.
    let environment = [("RANKLET_DEMO_RANK", rank.to_string())];
    let folder = folder()?;
    let ready = setup::ready(Report::Changes);
    let show = |line: &str| println!("{line}");
    let run = match &ready {
        Ok(toolchain) => {
            let firmware = firmware::build_with(toolchain, DEMO, &DEMO.leaves[0], application, &environment)?;
            println!("On an emulated Cortex-M4 (QEMU, {}):", DEMO.name);
            let run = emulate::run(DEMO, &firmware, &folder, show)?;
            let sizes = elf::read(&firmware.elf)?.sizes;
            println!("\nThe firmware (by its ELF file, base image and test images included):");
            println!("  flash         {} bytes", sizes.flash);
            println!("  static RAM    {} bytes, the arena among them; the stack comes on top", sizes.ram);
            run
        }
        Err(error) => {
            println!("On this host, not on a Cortex-M4: no bare-metal target or no emulator could be had.");
            eprintln!("{error:#}\n");
            let program = firmware::build_host_with(application, &environment)?;
            emulate::run_command(Command::new(program).current_dir(&folder), show)?
        }
    };
    if !run.ended.ok() {
        println!("the demo {}", run.ended.how());
        return Ok(false);
    }
    export(&folder, what)
}

/// Where the device's files go.
fn folder() -> Result<PathBuf> {
    let folder = tree::root().join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    Ok(folder)
}

/// Turns what the device wrote back into a PEFT adapter, with the command that a user would type.
fn export(folder: &Path, what: Demo) -> Result<bool> {
    let made = what.made();
    let adapter = folder.join(format!("{}.rkl", made.adapter));
    let peft = folder.join(format!("{}-peft", made.adapter));
    let base = tree::root().join(made.base);
    println!("\nBack to PEFT:");
    let mut command = host::ranklet()?;
    command
        .arg("export")
        .arg(&adapter)
        .arg("--base")
        .arg(&base)
        .arg("-o")
        .arg(&peft)
        .arg("--force")
        .stdout(Stdio::null());
    if !command.status().context("cannot start ranklet")?.success() {
        return Ok(false);
    }
    let (adapter, peft, base) = (tree::shown(&adapter), tree::shown(&peft), tree::shown(&base));
    println!("  {peft}\n");
    println!("What to try next:");
    println!("  cargo run -q --release -p ranklet-cli -- inspect {adapter}");
    match what {
        Demo::Digits => {
            println!(
                "  cargo run -q --release -p ranklet-cli -- plan --base {base} --train adamw --rank 8 --board microbit"
            );
            println!("  cargo xtask demo --rank 4");
            println!("  cargo xtask demo style");
        }
        Demo::Style => println!(
            "  cargo run -q --release -p ranklet-cli -- generate --base {base} --adapter {adapter} --tokenizer models/story/base \\\n    \
             --prompt \"It is a truth\" --temperature 0.7 --seed 1"
        ),
    }
    println!("  in Python: peft.PeftModel.from_pretrained(model, \"{peft}\")   (models/README.md)");
    Ok(true)
}
