//! Build script of every emulated board: hands the linker the board's memory layout.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Cargo runs this in the folder of the board.
    fs::copy("memory.x", out.join("memory.x")).expect("memory.x lies beside the board's Cargo.toml");
    println!("cargo::rustc-link-search={}", out.display());
    // cortex-m-rt's link.x includes memory.x by itself.
    if env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "riscv32") {
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=../build.rs");
}
