//! The Rust compilers of this machine, and what they can do.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{output, which};

/// The oldest compiler that builds the firmware: the MSRV of the workspace.
const OLDEST: (u32, u32) = (1, 88);

/// A compiler and the cargo beside it.
#[derive(Clone)]
pub(crate) struct Compiler {
    cargo: PathBuf,
    pub(super) rustc: PathBuf,
    pub(super) version: String,
    sysroot: PathBuf,
}

impl Compiler {
    /// First the one that runs this command, then the distribution's if that is another. Too old ones are left out.
    pub(super) fn all() -> Vec<Self> {
        let own_cargo = env::var_os("CARGO").map(PathBuf::from).or_else(|| which("cargo"));
        let own_rustc = own_cargo.as_ref().map(|cargo| cargo.with_file_name("rustc")).filter(|rustc| rustc.exists());
        let own = own_cargo.zip(own_rustc.or_else(|| which("rustc")));
        let system = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        let mut found: Vec<Self> = Vec::new();
        for (cargo, rustc) in own.into_iter().chain([system]) {
            if let Some(compiler) = Self::at(cargo, rustc)
                && found.iter().all(|other| other.sysroot != compiler.sysroot)
            {
                found.push(compiler);
            }
        }
        found
    }

    fn at(cargo: PathBuf, rustc: PathBuf) -> Option<Self> {
        if !cargo.exists() {
            return None;
        }
        let version = output(Command::new(&rustc).arg("--version")).ok()?;
        let version = version.split_whitespace().nth(1)?.to_owned();
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
        (release(&version)? >= OLDEST).then(|| Self { cargo, rustc, version, sysroot: PathBuf::from(sysroot.trim()) })
    }

    /// Cargo that uses this compiler and no other.
    pub(super) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.env("RUSTC", &self.rustc);
        if self.rustup().is_none() {
            command.env_remove("RUSTUP_TOOLCHAIN");
        }
        // Cargo looks for its subcommands (fmt, clippy) in PATH: they must be of the same make.
        let folder = self.cargo.parent().map(Path::to_owned);
        let others = env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = env::join_paths(folder.into_iter().chain(env::split_paths(&others))) {
            command.env("PATH", path);
        }
        command
    }

    /// Whether `core` is there, compiled, for each of `targets`.
    pub(super) fn has(&self, targets: &[String]) -> bool {
        targets.iter().all(|target| {
            let folder = self.sysroot.join("lib/rustlib").join(target).join("lib");
            fs::read_dir(folder).is_ok_and(|files| {
                files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
    }

    /// Whether the source of `core` is there, as `-Zbuild-std` looks for it.
    pub(super) fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    }

    /// Rustup's program and the name of this toolchain, if this is one of rustup's.
    pub(super) fn rustup(&self) -> Option<(PathBuf, String)> {
        let toolchains = self.sysroot.parent()?;
        if toolchains.file_name()? != "toolchains" || !toolchains.parent()?.join("settings.toml").exists() {
            return None;
        }
        Some((which("rustup")?, self.sysroot.file_name()?.to_str()?.to_owned()))
    }

    /// A linker for bare metal that this compiler finds by itself.
    pub(super) fn has_linker(&self) -> bool {
        linkers_in(&self.sysroot).next().is_some()
    }
}

/// Every `rust-lld` in a sysroot.
pub(super) fn linkers_in(sysroot: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
    hosts.map(|host| host.path().join("bin/rust-lld")).filter(|path| path.exists())
}

/// `1.95.0-nightly` as (1, 95).
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn reads_versions() {
        assert_eq!(release("1.88.0"), Some((1, 88)));
        assert_eq!(release("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(release("unknown"), None);
        assert!(release("1.100.0") > release("1.88.0"), "as numbers, not as text");
    }
}
