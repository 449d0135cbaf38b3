//! What is in a firmware's ELF file.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolSection, elf};

/// Memory that a firmware takes before it runs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Code, constants, and the initial values of `.data`.
    pub(crate) flash: u64,
    /// `.data`, `.bss` and whatever else lies in RAM, but for stack and heap.
    pub(crate) ram: u64,
}

/// A firmware, read.
pub(crate) struct Elf {
    pub(crate) sizes: Sizes,
    /// Names of all symbols that are linked in, local ones too.
    pub(crate) symbols: Vec<String>,
}

/// Reads a firmware.
///
/// # Errors
/// If it is no ELF file, or was stripped: without symbols nothing could be said about what is linked in.
pub(crate) fn read(path: &Path) -> Result<Elf> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file", path.display()))?;
    let mut sizes = Sizes { flash: 0, ram: 0 };
    for section in file.sections() {
        let SectionFlags::Elf { sh_type, sh_flags, .. } = section.flags() else { continue };
        // The linker script's `.stack` and `.heap` are what is left over, not what is taken.
        if !sh_flags.contains(elf::SHF_ALLOC) || matches!(section.name(), Ok(".stack" | ".heap")) {
            continue;
        }
        let empty_at_start = sh_type == elf::SHT_NOBITS;
        if !empty_at_start {
            sizes.flash += section.size();
        }
        if empty_at_start || sh_flags.contains(elf::SHF_WRITE) {
            sizes.ram += section.size();
        }
    }
    let symbols: Vec<_> = file
        .symbols()
        .filter(|symbol| !matches!(symbol.section(), SymbolSection::Undefined | SymbolSection::None))
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect();
    anyhow::ensure!(!symbols.is_empty(), "{} has no symbols: was it stripped?", path.display());
    Ok(Elf { sizes, symbols })
}
