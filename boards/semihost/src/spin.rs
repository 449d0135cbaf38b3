//! A loop of known length, to check an instruction counter with.

/// Instructions of one round.
const ROUND: u64 = 2;

/// Executes `rounds` rounds (at least one) of two instructions each; returns their number.
#[inline(never)]
pub fn spin(rounds: u32) -> u64 {
    let rounds = rounds.max(1);
    // Not `nomem`: reads of the counter must not move across the loop.
    // SAFETY: counts a register down to zero and changes nothing but that register and the flags.
    #[cfg(target_arch = "arm")]
    unsafe {
        core::arch::asm!("2: subs {n}, {n}, #1", "bne 2b", n = inout(reg) rounds => _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        core::arch::asm!("2: addi {n}, {n}, -1", "bnez {n}, 2b", n = inout(reg) rounds => _, options(nostack));
    }
    u64::from(rounds) * ROUND
}
