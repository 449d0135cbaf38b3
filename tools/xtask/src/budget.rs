//! What each firmware may take: `boards/budgets.json`, kept by hand and reviewed like code.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tree;

/// Limits of one firmware in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) flash: u64,
    pub(crate) ram: u64,
    pub(crate) stack: u64,
}

/// All budgets, by the firmware's name.
///
/// # Errors
/// If the file is missing or has another form.
pub(crate) fn read() -> Result<BTreeMap<String, Budget>> {
    let path = tree::root().join("boards/budgets.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", tree::shown(&path)))?;
    parse(&text).with_context(|| format!("{} has another form than expected", tree::shown(&path)))
}

fn parse(text: &str) -> Result<BTreeMap<String, Budget>> {
    let value: Value = serde_json::from_str(text)?;
    let firmware = value.as_object().context("not an object")?;
    firmware
        .iter()
        .map(|(name, limits)| {
            let limit = |field: &str| {
                limits.get(field).and_then(Value::as_u64).with_context(|| format!("{name} has no number `{field}`"))
            };
            Ok((name.clone(), Budget { flash: limit("flash")?, ram: limit("ram")?, stack: limit("stack")? }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_reads() {
        assert!(!read().expect("boards/budgets.json").is_empty());
    }

    #[test]
    fn a_missing_limit_is_named() {
        let error = parse(r#"{"m0/suite": {"flash": 1, "ram": 2}}"#).expect_err("no stack");
        assert!(format!("{error:#}").contains("m0/suite has no number `stack`"));
    }
}
