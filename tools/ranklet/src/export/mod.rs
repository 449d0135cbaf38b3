//! Back to PEFT: an adapter image becomes a directory that `PeftModel.from_pretrained` loads.
//!
//! PEFT loads leniently, so an export checks itself: what has been written is read again, by the same rules as
//! anybody's adapter, and compared, before the directory gets its name.

pub mod card;
pub mod config;
pub mod tensors;

use crate::adapter::{Adapter, Pair, Site};
use crate::atomic::{MARKER, write_directory};
use crate::image::stored::Stored;
use crate::peft::config::Config;
use crate::peft::{self, CONFIG, WEIGHTS};
use crate::report::chain;
use crate::save::safetensors;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::path::Path;

/// The files of an export: a directory that holds others is not replaced unasked.
pub const FILES: [&str; 4] = [CONFIG, WEIGHTS, CARD, MARKER];
/// The model card's file name.
const CARD: &str = "README.md";

/// Writes the directory, all or nothing. Weights are F32: f16 and bf16 would lose what the device has learned.
///
/// # Errors
/// A value beyond `f32`; where the directory cannot be written, or does not read back as what it should be.
pub fn write(adapter: &Adapter, base: &Stored<'_>, facts: &card::Facts, out: &Path, force: bool) -> Result<()> {
    let sites = base.sites();
    for pair in &adapter.pairs {
        check_finite(pair, sites)?;
    }
    let fields = config::fields(adapter, base)?;
    let config = Config::parse(Path::new(CONFIG), &Value::Object(fields.clone()).to_string())?;
    let weights = safetensors(tensors::of(adapter, &config, base)?)?;
    let marker = json!({"made_by": "ranklet export", "base_source": facts.source});
    write_directory(out, force, &FILES, |dir| {
        let text = |v: &Value| serde_json::to_string_pretty(v).map(|s| s + "\n");
        let write = |name: &str, bytes: &[u8]| {
            let shown = || format!("cannot write {}", out.join(name).display());
            std::fs::write(dir.join(name), bytes).with_context(shown)
        };
        write(CONFIG, text(&Value::Object(fields.clone()))?.as_bytes())?;
        write(WEIGHTS, &weights)?;
        write(CARD, card::text(adapter, sites, facts).as_bytes())?;
        write(MARKER, text(&marker)?.as_bytes())?;
        let back = peft::read(dir, None, base).map_err(|e| {
            // By the name it was to have: the one it has for the moment is gone when this is read.
            let text = chain(&e.into()).replace(&dir.display().to_string(), &out.display().to_string());
            anyhow!("the export does not read back, so nothing was written: {text}")
        })?;
        compare(&adapter.pairs, &back.pairs, base)
    })
}

/// The device's numbers go further than `f32`; a file that holds an infinity would load and answer NaN.
fn check_finite(pair: &Pair, sites: &[Site]) -> Result<()> {
    let module = &sites[pair.site].module;
    for (part, m) in [("A", &pair.a), ("B", &pair.b)] {
        if let Some(at) = m.data.iter().position(|v| !v.is_finite()) {
            let (row, col) = (at / m.cols, at % m.cols);
            bail!(
                "`{module}`: {part} is beyond f32 at [{row}, {col}]: it has diverged in training; nothing was written"
            );
        }
    }
    let alpha = pair.scaling * pair.rank() as f64;
    if !alpha.is_finite() {
        bail!("`{module}`: its scaling is beyond what a lora_alpha can say; nothing was written");
    }
    Ok(())
}

/// What has been written does what was to be written; see [`tensors::same`]. A bias that moves nothing is no part of it.
fn compare(ours: &[Pair], theirs: &[Pair], base: &Stored<'_>) -> Result<()> {
    let moves = |p: &&Pair| !p.is_only_bias() || p.bias.iter().flatten().any(|&v| v != 0.0);
    let ours: Vec<&Pair> = ours.iter().filter(moves).collect();
    let theirs: Vec<&Pair> = theirs.iter().filter(moves).collect();
    if ours.len() != theirs.len() {
        bail!("the export reads back with {} pairs instead of {}; nothing was written", theirs.len(), ours.len());
    }
    match ours.iter().zip(theirs).find(|(a, b)| !tensors::same(a, b, base)) {
        Some((pair, _)) => {
            bail!("`{}` does not read back as it was; nothing was written", base.sites()[pair.site].module)
        }
        None => Ok(()),
    }
}
