//! What a board has: the table behind `ranklet plan --board`.

/// A board, or an emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// As on the command line.
    pub name: &'static str,
    /// Its core.
    pub core: &'static str,
    /// Bytes of memory-mapped flash.
    pub flash: u64,
    /// Bytes of RAM that one program can use in one piece.
    pub ram: u64,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// All boards that `plan` knows.
pub const BOARDS: [Board; 10] = [
    Board { name: "microbit", core: "Cortex-M0 (nRF51822)", flash: 256 * KIB, ram: 16 * KIB },
    Board { name: "mps2-an385", core: "Cortex-M3 (emulated)", flash: 4 * MIB, ram: 4 * MIB },
    Board { name: "mps2-an386", core: "Cortex-M4F (emulated)", flash: 4 * MIB, ram: 4 * MIB },
    Board { name: "mps2-an500", core: "Cortex-M7 (emulated)", flash: 4 * MIB, ram: 4 * MIB },
    Board { name: "mps2-an505", core: "Cortex-M33 (emulated)", flash: 4 * MIB, ram: 4 * MIB },
    Board { name: "mps3-an547", core: "Cortex-M55 (emulated)", flash: 2 * MIB, ram: 4 * MIB },
    Board { name: "rv32-virt", core: "RV32 (emulated)", flash: 4 * MIB, ram: 4 * MIB },
    Board { name: "pico2", core: "Cortex-M33 (RP2350)", flash: 4 * MIB, ram: 512 * KIB },
    Board { name: "nrf52840-dk", core: "Cortex-M4F (nRF52840)", flash: MIB, ram: 256 * KIB },
    Board { name: "stm32f405", core: "Cortex-M4F (STM32F405)", flash: MIB, ram: 128 * KIB },
];

/// A board by name.
#[must_use]
pub fn find(name: &str) -> Option<Board> {
    BOARDS.into_iter().find(|b| b.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for b in BOARDS {
            assert_eq!(find(b.name), Some(b));
        }
        assert_eq!(find("toaster"), None);
    }
}
