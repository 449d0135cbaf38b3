//! `sequences` on this board.
#![no_std]
#![no_main]

#[riscv_rt::entry]
fn main() -> ! {
    rv32_virt::run(ranklet_suite::sequences::run)
}
