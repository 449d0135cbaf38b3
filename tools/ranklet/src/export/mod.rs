//! Back to PEFT: an adapter image becomes a directory that `PeftModel.from_pretrained` loads.
//!
//! PEFT loads leniently, so an export checks itself: what has been written is read again, by the same rules as
//! anybody's adapter, and compared, before the directory gets its name.

pub mod card;
pub mod config;

use crate::adapter::{Adapter, Pair, Site};
use crate::atomic::{MARKER, write_directory};
use crate::peft::{self, CONFIG, WEIGHTS, keys};
use crate::save::{Out, safetensors};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;

/// The files of an export: a directory that holds others is not replaced unasked.
pub const FILES: [&str; 4] = [CONFIG, WEIGHTS, CARD, MARKER];
/// The model card's file name.
const CARD: &str = "README.md";

/// Writes the directory, all or nothing. Weights are F32: f16 and bf16 would lose what the device has learned.
///
/// # Errors
/// Where the directory cannot be written, or does not read back as what it should be.
pub fn write(adapter: &Adapter, sites: &[Site], facts: &card::Facts, out: &Path, force: bool) -> Result<()> {
    let fields = config::fields(adapter, sites)?;
    let tensors = adapter.pairs.iter().flat_map(|p| {
        let module = &sites[p.site].module;
        [(keys::name(module, keys::Part::A), Out::from(&p.a)), (keys::name(module, keys::Part::B), Out::from(&p.b))]
    });
    let weights = safetensors(tensors)?;
    let marker = json!({"made_by": "ranklet export", "base_source": facts.source});
    write_directory(out, force, &FILES, |dir| {
        let text = |v: &Value| serde_json::to_string_pretty(v).map(|s| s + "\n");
        std::fs::write(dir.join(CONFIG), text(&Value::Object(fields.clone()))?)?;
        std::fs::write(dir.join(WEIGHTS), &weights)?;
        std::fs::write(dir.join(CARD), card::text(adapter, sites, facts))?;
        std::fs::write(dir.join(MARKER), text(&marker)?)?;
        let back = peft::read(dir, sites).context("the export does not read back; nothing was written")?;
        compare(&adapter.pairs, &back.pairs, sites)
    })
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
