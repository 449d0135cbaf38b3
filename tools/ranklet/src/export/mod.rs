//! Back to PEFT: an adapter image becomes a directory that `PeftModel.from_pretrained` loads.
//!
//! PEFT loads leniently, so an export checks itself: what has been written is read again, by the same rules as
//! anybody's adapter, and compared, before the directory gets its name.

pub mod card;
pub mod config;

use crate::adapter::{Adapter, Pair, Site};
use crate::atomic::{MARKER, write_directory};
use crate::peft::{self, CONFIG, WEIGHTS, keys};
use crate::report::chain;
use crate::save::{Out, safetensors};
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
pub fn write(adapter: &Adapter, sites: &[Site], facts: &card::Facts, out: &Path, force: bool) -> Result<()> {
    for pair in &adapter.pairs {
        check_finite(pair, sites)?;
    }
    let fields = config::fields(adapter, sites)?;
    let tensors = adapter.pairs.iter().flat_map(|p| {
        let module = &sites[p.site].module;
        [(keys::name(module, keys::Part::A), Out::from(&p.a)), (keys::name(module, keys::Part::B), Out::from(&p.b))]
    });
    let weights = safetensors(tensors)?;
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
        let back = peft::read(dir, sites).map_err(|e| {
            // By the name it was to have: the one it has for the moment is gone when this is read.
            let text = chain(&e.into()).replace(&dir.display().to_string(), &out.display().to_string());
            anyhow!("the export does not read back, so nothing was written: {text}")
        })?;
        compare(&adapter.pairs, &back.pairs, sites)
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

/// A and B bit for bit; the scaling to the last bits of its way through alpha.
fn compare(ours: &[Pair], theirs: &[Pair], sites: &[Site]) -> Result<()> {
    let same = |(a, b): (&Pair, &Pair)| {
        let near = (a.scaling - b.scaling).abs() <= config::NEAR * a.scaling.abs();
        a.site == b.site && a.a == b.a && a.b == b.b && near
    };
    if ours.len() != theirs.len() {
        bail!("the export reads back with {} pairs instead of {}; nothing was written", theirs.len(), ours.len());
    }
    match ours.iter().zip(theirs).find(|&pair| !same(pair)) {
        Some((pair, _)) => bail!("`{}` does not read back as it was; nothing was written", sites[pair.site].module),
        None => Ok(()),
    }
}
