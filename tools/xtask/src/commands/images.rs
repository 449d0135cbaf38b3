//! `cargo xtask images`: the images that firmware includes are what the converter makes of the committed checkpoints.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{host, tree};

/// An image, in the root of the project, and the directory it is made of.
struct Made {
    image: &'static str,
    from: &'static str,
    /// The base's image, for an adapter.
    base: Option<&'static str>,
}

const fn base(from: &'static str, image: &'static str) -> Made {
    Made { image, from, base: None }
}

const fn adapter(from: &'static str, base: &'static str, image: &'static str) -> Made {
    Made { image, from, base: Some(base) }
}

/// All of them; bases before their adapters.
const IMAGES: &[Made] = &[
    base("models/digits/base", "models/digits/digits.rkl"),
    base("models/tiny/base", "models/tiny/tiny.rkl"),
    base("models/cases/llama/base", "models/tiny/llama.rkl"),
    adapter("models/cases/llama/adapter", "models/tiny/llama.rkl", "models/tiny/llama-1.rkl"),
    adapter("models/cases/adapters/rslora/adapter", "models/tiny/llama.rkl", "models/tiny/llama-2.rkl"),
    base("models/story/base", "models/story/story.rkl"),
    adapter("models/story/adapters/austen", "models/story/story.rkl", "models/story/austen.rkl"),
    adapter("models/story/adapters/psalm", "models/story/story.rkl", "models/story/psalm.rkl"),
    base("models/cases/t5-classifier/base", "models/tiny/t5.rkl"),
    adapter("models/cases/t5-classifier/adapter", "models/tiny/t5.rkl", "models/tiny/t5-1.rkl"),
];

/// Converts all of them; with `bless`, replaces those that differ. Tells whether all were, or now are, the same.
pub(crate) fn run(bless: bool) -> Result<bool> {
    let mut good = true;
    for made in IMAGES {
        let image = made.image;
        let (path, fresh) = (tree::root().join(image), convert(made)?);
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

/// What the converter makes of a directory: of a base with weights of 8 bits.
fn convert(made: &Made) -> Result<Vec<u8>> {
    let folder = tree::root().join("target/images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    let out = folder.join(Path::new(made.image).file_name().unwrap_or_default());
    let mut command = host::ranklet()?;
    match made.base {
        None => command.args(["convert", "base", made.from, "--weights", "i8"]),
        Some(base) => command.args(["convert", "adapter", made.from, "--base", base]),
    };
    command.args(["--json", "-o"]).arg(&out);
    let output = command.output().context("cannot start ranklet")?;
    ensure!(output.status.success(), "{}: {}", made.from, String::from_utf8_lossy(&output.stdout));
    fs::read(&out).with_context(|| format!("cannot read {}", tree::shown(&out)))
}
