//! `cargo xtask images`: the images that firmware includes are what the converter makes of the committed checkpoints.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{host, tree};

/// Bases: checkpoint, options, image; in the root of the project.
const BASES: &[(&str, &[&str], &str)] = &[
    ("models/digits/base", &[], "models/digits/digits.rkl"),
    ("models/story/base", &[], "models/story/story.rkl"),
    ("models/tiny/base", &[], "models/tiny/tiny.rkl"),
    ("models/tiny/llama/base", &[], "models/tiny/llama/base.rkl"),
    ("models/tiny/t5/base", &["--weights", "i4", "--residual", "i32"], "models/tiny/t5/base.rkl"),
    ("models/tiny/bert/base", &["--weights", "i16"], "models/tiny/bert/base.rkl"),
];

/// Adapters that are only used: checkpoint, image of the base, image.
const ADAPTERS: &[(&str, &str, &str)] = &[
    ("models/story/adapters/austen", "models/story/story.rkl", "models/story/austen.rkl"),
    ("models/story/adapters/psalm", "models/story/story.rkl", "models/story/psalm.rkl"),
    ("models/tiny/llama/one", "models/tiny/llama/base.rkl", "models/tiny/llama/one.rkl"),
    ("models/tiny/llama/two", "models/tiny/llama/base.rkl", "models/tiny/llama/two.rkl"),
    ("models/tiny/t5/one", "models/tiny/t5/base.rkl", "models/tiny/t5/one.rkl"),
    ("models/tiny/t5/two", "models/tiny/t5/base.rkl", "models/tiny/t5/two.rkl"),
    ("models/tiny/bert/one", "models/tiny/bert/base.rkl", "models/tiny/bert/one.rkl"),
    ("models/tiny/bert/two", "models/tiny/bert/base.rkl", "models/tiny/bert/two.rkl"),
];

/// Converts all of them; with `bless`, replaces those that differ. Tells whether all were, or now are, the same.
pub(crate) fn run(bless: bool) -> Result<bool> {
    let mut good = true;
    // Bases first: an adapter names the image that it was made with.
    for (checkpoint, options, image) in BASES {
        let arguments: Vec<&str> = ["convert", "base", checkpoint].iter().chain(*options).copied().collect();
        good &= compare(&arguments, image, bless)?;
    }
    for (checkpoint, base, image) in ADAPTERS {
        good &= compare(&["convert", "adapter", checkpoint, "--base", base, "--inference-only"], image, bless)?;
    }
    Ok(good)
}

/// Whether the converter, called so, makes this image.
fn compare(arguments: &[&str], image: &str, bless: bool) -> Result<bool> {
    let (path, fresh) = (tree::root().join(image), convert(arguments, image)?);
    let same = fs::read(&path).is_ok_and(|committed| committed == fresh);
    let verdict = match (same, bless) {
        (true, _) => "is what the converter makes",
        (false, true) => "replaced",
        (false, false) => "DIFFERS from what the converter makes; `cargo xtask images --bless` replaces it",
    };
    if !same && bless {
        fs::write(&path, &fresh).with_context(|| format!("cannot write {image}"))?;
    }
    println!("{image} {verdict}");
    Ok(same || bless)
}

/// What the converter makes.
fn convert(arguments: &[&str], image: &str) -> Result<Vec<u8>> {
    let out = tree::root().join("target/images").join(image);
    let folder = out.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", tree::shown(folder)))?;
    let mut command = host::ranklet()?;
    command.args(arguments).args(["--json", "-o"]).arg(&out);
    let output = command.output().context("cannot start ranklet")?;
    ensure!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stdout));
    fs::read(&out).with_context(|| format!("cannot read {}", tree::shown(&out)))
}
