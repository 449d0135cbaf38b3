//! `cargo xtask demo`: the main job, on an emulated Cortex-M4, or on this machine where there is no emulator.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    board::DEMO,
    commands::setup,
    emulate::{self, Run},
    firmware,
    report::Report,
    tree,
};

/// Runs the demo and tells whether it ended well.
pub(crate) fn run() -> Result<bool> {
    let folder = folder()?;
    let ready = setup::ready(Report::Changes);
    let show = |line: &str| println!("{line}");
    let run = match &ready {
        Ok(toolchain) => {
            let firmware = firmware::build(toolchain, DEMO, &DEMO.leaves[0], "demo")?;
            println!("On an emulated Cortex-M4 (QEMU, {}):", DEMO.name);
            emulate::run(DEMO, &firmware, &folder, show)?
        }
        Err(error) => {
            println!("On this host, not on a Cortex-M4: no bare-metal target or no emulator could be had.");
            eprintln!("{error:#}\n");
            let program = firmware::build_host("demo")?;
            emulate::run_command(Command::new(program).current_dir(&folder), show)?
        }
    };
    after(&run)
}

/// Where the device's files go.
fn folder() -> Result<PathBuf> {
    let folder = tree::root().join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    Ok(folder)
}

fn after(run: &Run) -> Result<bool> {
    if !run.ended.ok() {
        println!("the demo {}", run.ended.how());
    }
    Ok(run.ended.ok())
}
