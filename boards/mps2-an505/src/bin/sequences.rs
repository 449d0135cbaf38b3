//! `sequences` on this board.
#![no_std]
#![no_main]

#[cortex_m_rt::entry]
fn main() -> ! {
    mps2_an505::run(ranklet_suite::sequences::run)
}
