//! `cargo xtask images`: the images that firmware includes are what the converter makes of the committed checkpoints.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{host, tree};

/// Checkpoint, weights, image; in the root of the project.
const IMAGES: &[(&str, &str, &str)] =
    &[("models/digits/base", "i8", "models/digits/digits.rkl"), ("models/tiny/base", "i8", "models/tiny/tiny.rkl")];

/// Converts all of them; with `bless`, replaces those that differ. Tells whether all were, or now are, the same.
pub(crate) fn run(bless: bool) -> Result<bool> {
    let mut good = true;
    for (checkpoint, weights, image) in IMAGES {
        let (path, fresh) = (tree::root().join(image), convert(checkpoint, weights)?);
        let same = fs::read(&path).is_ok_and(|committed| committed == fresh);
        let verdict = match (same, bless) {
            (true, _) => "is what the converter makes",
            (false, true) => "replaced",
            (false, false) => "DIFFERS from what the converter makes; `cargo xtask images --bless` replaces it",
        };
        if !same && bless {
            fs::write(&path, &fresh).with_context(|| format!("cannot write {image}"))?;
        }
        good &= same || bless;
        println!("{image} {verdict}");
    }
    Ok(good)
}

/// What the converter makes of a checkpoint.
fn convert(checkpoint: &str, weights: &str) -> Result<Vec<u8>> {
    let folder = tree::root().join("target/images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    let out = folder.join(Path::new(checkpoint).components().nth(1).map_or("image".as_ref(), |c| c.as_os_str()));
    let mut command = host::ranklet()?;
    command.args(["convert", "base", checkpoint, "--weights", weights, "--json", "-o"]).arg(&out);
    let output = command.output().context("cannot start ranklet")?;
    ensure!(output.status.success(), "{checkpoint}: {}", String::from_utf8_lossy(&output.stdout));
    fs::read(&out).with_context(|| format!("cannot read {}", tree::shown(&out)))
}
