//! [`must_fit!`](crate::must_fit): a plan that is too large fails the build, and the message says by how much. A constant's
//! panic shows one string, so the numbers are printed into it by `const fn`.

/// "… bytes too many", as a constant's panic can show it: see [`must_fit!`](crate::must_fit).
#[doc(hidden)]
#[must_use]
pub const fn too_large_message(needed: usize, available: usize) -> [u8; 96] {
    let mut out = [b' '; 96];
    let mut at = write_str(&mut out, 0, "the plan needs ");
    at = write_number(&mut out, at, needed);
    at = write_str(&mut out, at, " bytes of RAM, the limit is ");
    at = write_number(&mut out, at, available);
    at = write_str(&mut out, at, ": ");
    at = write_number(&mut out, at, needed.saturating_sub(available));
    let _ = write_str(&mut out, at, " bytes too many");
    out
}

const fn write_str(out: &mut [u8; 96], at: usize, text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut at = at;
    while let Some((&byte, tail)) = rest.split_first() {
        set(out, at, byte);
        at += 1;
        rest = tail;
    }
    at
}

const fn write_number(out: &mut [u8; 96], at: usize, n: usize) -> usize {
    let mut digits = 1;
    let mut rest = n / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    let mut rest = n;
    let mut i = digits;
    while i > 0 {
        i -= 1;
        set(out, at + i, b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    at + digits
}

const fn set(out: &mut [u8; 96], at: usize, byte: u8) {
    if let Some((_, tail)) = out.split_at_mut_checked(at)
        && let Some(slot) = tail.first_mut()
    {
        *slot = byte;
    }
}

/// Fails the build where a plan needs more than `limit` bytes of RAM, and says by how much.
///
/// ```
/// # use ranklet::model::Plan;
/// # const fn plan_bytes() -> usize { 100 }
/// ranklet::must_fit!(plan_bytes(), 16 * 1024);
/// ```
///
/// ```compile_fail
/// ranklet::must_fit!(20_000, 16 * 1024); // the plan needs 20000 bytes of RAM, the limit is 16384: 3616 bytes too many
/// ```
#[macro_export]
macro_rules! must_fit {
    ($bytes:expr, $limit:expr $(,)?) => {
        const _: () = {
            const NEEDED: usize = $bytes;
            const LIMIT: usize = $limit;
            const MESSAGE: [u8; 96] = $crate::model::must_fit::too_large_message(NEEDED, LIMIT);
            if NEEDED > LIMIT {
                match ::core::str::from_utf8(&MESSAGE) {
                    Ok(message) => ::core::panic!("{}", message),
                    Err(_) => ::core::panic!("the plan does not fit"),
                }
            }
        };
    };
}
