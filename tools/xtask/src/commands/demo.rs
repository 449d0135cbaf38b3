//! `cargo xtask demo`: the main job, on an emulated Cortex-M4, or on this machine where there is no emulator.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{board::DEMO, commands::setup, elf, emulate, firmware, host, report::Report, tree};

/// Runs the demo and tells whether it ended well.
pub(crate) fn run(rank: u16) -> Result<bool> {
    // Read by boards/suite at compile time: a rank decides the size of a static buffer.
    let environment = [("RANKLET_DEMO_RANK", rank.to_string())];
    let folder = folder()?;
    let ready = setup::ready(Report::Changes);
    let show = |line: &str| println!("{line}");
    let run = match &ready {
        Ok(toolchain) => {
            let firmware = firmware::build_with(toolchain, DEMO, &DEMO.leaves[0], "demo", &environment)?;
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
            let program = firmware::build_host_with("demo", &environment)?;
            emulate::run_command(Command::new(program).current_dir(&folder), show)?
        }
    };
    if !run.ended.ok() {
        println!("the demo {}", run.ended.how());
        return Ok(false);
    }
    export(&folder)
}

/// Where the device's files go.
fn folder() -> Result<PathBuf> {
    let folder = tree::root().join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    Ok(folder)
}

/// Turns what the device wrote back into a PEFT adapter, with the command that a user would type.
fn export(folder: &Path) -> Result<bool> {
    let adapter = folder.join("turned.rkl");
    let peft = folder.join("turned-peft");
    let base = tree::root().join("models/digits/digits.rkl");
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
    println!("  cargo run -q --release -p ranklet-cli -- plan --base {base} --train adamw --rank 8 --board microbit");
    println!("  cargo xtask demo --rank 4");
    println!("  in Python: peft.PeftModel.from_pretrained(model, \"{peft}\")   (models/README.md)");
    Ok(true)
}
