//! `sequences` on this board.
#![no_std]
#![no_main]

#[cortex_m_rt::entry]
fn main() -> ! {
    mps3_an547::run(ranklet_suite::sequences::run)
}
