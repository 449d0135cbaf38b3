//! A progress bar on stderr, on long work only, and never where nobody looks (no terminal, or `--json`).

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work of fewer units than this is over before a bar could be read.
const LONG: u64 = 1 << 22;

/// A bar over `items` things to do, `cost` being a rough count of elementary operations for all of them.
#[must_use]
pub fn bar(items: u64, cost: u64, json: bool, what: &str) -> ProgressBar {
    if json || cost < LONG {
        return ProgressBar::hidden();
    }
    // `stderr()` hides itself where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(Some(items), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_work_and_programs_see_no_bar() {
        assert!(bar(3, 10, false, "x").is_hidden());
        assert!(bar(3, u64::MAX, true, "x").is_hidden());
    }
}
