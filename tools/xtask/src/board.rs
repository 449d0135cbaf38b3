//! The emulated boards.
//!
//! Target and runner are read from each board's `.cargo/config.toml`, so that `cargo run` by hand and `cargo xtask` run the same.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::tree;

/// A board that QEMU models.
pub(crate) struct Board {
    /// Its folder in `boards/`.
    pub(crate) name: &'static str,
    /// Kernel leaves it can be built with; the first is what its users get.
    pub(crate) leaves: &'static [Leaf],
    /// Whether its core has no FPU, so that one float would link a soft-float routine.
    pub(crate) no_fpu: bool,
    /// The applications it has.
    pub(crate) applications: &'static [&'static str],
}

/// A choice of kernels.
pub(crate) struct Leaf {
    /// Name, as the firmware prints it.
    pub(crate) name: &'static str,
    /// Arguments for cargo that choose it.
    pub(crate) arguments: &'static [&'static str],
}

/// The kernels of a core that has no leaf of its own.
const GENERIC: &[Leaf] = &[Leaf { name: "generic", arguments: &[] }];

/// A core with the DSP extension, and what it gains by it.
const DSP: &[Leaf] =
    &[Leaf { name: "arm-dsp", arguments: &[] }, Leaf { name: "generic", arguments: &["--no-default-features"] }];

/// What a board runs unless it shows more.
const APPLICATIONS: &[&str] = &["suite", "sequences", "learning", "bench"];

/// All of them.
pub(crate) const BOARDS: &[Board] = &[
    Board {
        name: "mps2-an386",
        leaves: DSP,
        no_fpu: false,
        applications: &["suite", "sequences", "learning", "bench", "demo", "write", "style", "memory"],
    },
    Board { name: "mps2-an500", leaves: DSP, no_fpu: false, applications: APPLICATIONS },
    Board { name: "mps2-an505", leaves: DSP, no_fpu: false, applications: APPLICATIONS },
    Board { name: "mps3-an547", leaves: GENERIC, no_fpu: false, applications: APPLICATIONS },
    Board { name: "mps2-an385", leaves: GENERIC, no_fpu: true, applications: APPLICATIONS },
    Board { name: "microbit", leaves: GENERIC, no_fpu: true, applications: &["suite", "sequences", "bench"] },
    Board { name: "rv32-virt", leaves: GENERIC, no_fpu: true, applications: APPLICATIONS },
];

/// The one that runs the demo.
pub(crate) const DEMO: &Board = &BOARDS[0];

/// Firmware that panics on purpose; every board has it.
pub(crate) const BROKEN: &str = "broken";

impl Board {
    /// The triple the board compiles for.
    pub(crate) fn target(&self) -> Result<String> {
        setting(&self.config()?, "target")
    }

    /// The emulator and its arguments; the firmware's path comes after them.
    pub(crate) fn runner(&self) -> Result<Vec<String>> {
        setting(&self.config()?, "runner")
    }

    fn config(&self) -> Result<String> {
        let path = tree::board(self.name).join(".cargo/config.toml");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", tree::shown(&path)))
    }
}

/// The value of `key` in a cargo configuration that keeps it on one line, where TOML's strings and arrays are JSON's too.
fn setting<T: Setting>(config: &str, key: &str) -> Result<T> {
    for line in config.lines() {
        if let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            let value = serde_json::from_str(value.trim()).with_context(|| format!("cannot read `{}`", line.trim()))?;
            return T::of(&value).with_context(|| format!("`{key}` has another form than expected: {value}"));
        }
    }
    bail!("a board's .cargo/config.toml has no `{key}`")
}

trait Setting: Sized {
    fn of(value: &serde_json::Value) -> Option<Self>;
}

impl Setting for String {
    fn of(value: &serde_json::Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Setting for Vec<String> {
    fn of(value: &serde_json::Value) -> Option<Self> {
        value.as_array()?.iter().map(String::of).collect()
    }
}

/// The targets of all boards, each once.
pub(crate) fn targets() -> Result<Vec<String>> {
    let mut targets = BOARDS.iter().map(Board::target).collect::<Result<Vec<_>>>()?;
    targets.sort();
    targets.dedup();
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_says_how_it_is_built_and_run() {
        for board in BOARDS {
            assert!(board.target().expect(board.name).contains("-none-"), "{}", board.name);
            let runner = board.runner().expect(board.name);
            assert!(runner.iter().any(|word| word == "-icount"), "{} counts no instructions", board.name);
            assert_eq!(runner.last().map(String::as_str), Some("-kernel"), "{}", board.name);
        }
    }

    #[test]
    fn every_folder_of_a_board_is_in_the_table() {
        let folders = fs::read_dir(tree::root().join("boards")).expect("boards/").flatten();
        let boards = folders.filter(|folder| folder.path().join("memory.x").exists());
        let mut found: Vec<_> = boards.map(|board| board.file_name().into_string().expect("a name")).collect();
        let mut named: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
        found.sort();
        named.sort_unstable();
        assert_eq!(found, named);
    }

    #[test]
    fn a_setting_of_another_form_is_refused() {
        assert!(setting::<String>("target = 3", "target").is_err());
        assert!(setting::<Vec<String>>("runner = \"qemu\"", "runner").is_err());
        assert!(setting::<String>("target-dir = \"x\"", "target").is_err());
    }
}
