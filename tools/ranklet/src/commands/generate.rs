//! `ranklet generate --base base.rkl [--adapter a.rkl[:scale] …] --tokenizer DIR --prompt TEXT`
//!
//! Streams the prompt and what follows it to stdout, as it is written, and says on stderr how fast that was. Without
//! `--temperature` the most likely token is always taken, as a device does, so the text is that of the device.

use super::plan::CacheName;
use super::{AdapterArg, export::base_metadata};
use crate::image::ImageFile;
use crate::report::Report;
use crate::text::Tokenizer;
use crate::text::generation::{Generated, Settings, Stop, generate};
use crate::text::sampler::Sampler;
use crate::text::writer::Characters;
use anyhow::{Context, Result, bail, ensure};
use ranklet::fixed::hash::Seed;
use ranklet::model::spec::Transformer;
use ranklet::model::{CacheType, HeadKind, Model};
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image, of a language model.
    #[arg(long)]
    pub base: PathBuf,
    /// An adapter image, `:scale` behind it multiplies its scaling; several add up.
    #[arg(long, value_name = "FILE[:SCALE]", num_args = 1..)]
    pub adapter: Vec<AdapterArg>,
    /// The checkpoint's tokenizer.json, or a directory with it.
    #[arg(long)]
    pub tokenizer: PathBuf,
    /// What the text begins with.
    #[arg(long, allow_hyphen_values = true)]
    pub prompt: String,
    /// Tokens to write, at most.
    #[arg(long, default_value_t = 128)]
    pub tokens: usize,
    /// What logits are divided by before a token is drawn; 0 takes the most likely one.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Draw from so many of the most likely tokens.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the most likely tokens that together have this probability.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Fixes every draw; default 0.
    #[arg(long)]
    pub seed: Option<u32>,
    /// How keys and values are remembered.
    #[arg(long, value_enum, default_value = "i16")]
    pub cache: CacheName,
}

/// Generates.
///
/// # Errors
/// What is wrong with the files or the prompt; nothing has been written then.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let sampler = sampler(args)?;
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let t = language(&model).with_context(|| args.base.display().to_string())?;
    let files = super::open_adapters(&args.adapter)?;
    let (adapters, notes) = super::bind(&files, &model)?;
    let tokenizer = Tokenizer::open(&args.tokenizer, t)?;
    let pieces = tokenizer.pieces()?;
    let mut prompt = tokenizer.encode(&args.prompt)?;
    if prompt.is_empty() {
        ensure!(
            (t.start as usize) < t.vocab,
            "the prompt has no tokens, and this base has none that a text starts with"
        );
        prompt.push(t.start);
    }
    let cache = if args.cache == CacheName::I8 { CacheType::I8 } else { CacheType::I16 };
    let settings = Settings { tokens: args.tokens, cache, ends: ends(&model, t), sampler };
    ensure!(
        prompt.len() <= t.positions,
        "the prompt has {} tokens; the base's context has {}: shorten it by {}",
        prompt.len(),
        t.positions,
        prompt.len() - t.positions
    );

    let mut characters = Characters::default();
    let mut text = String::new();
    let mut first = args.prompt.is_empty() && tokenizer.strips_first_space();
    // Nobody reads what goes to a closed pipe, so nothing more is written then.
    let show = |part: &str| -> Result<bool> {
        if json || part.is_empty() {
            return Ok(true);
        }
        let mut out = std::io::stdout().lock();
        match out.write_all(super::lines(part).as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            done => done.map(|()| true).context("cannot write to stdout"),
        }
    };
    show(&args.prompt)?;
    let written = generate(&model, t, &adapters, &prompt, &settings, |token| {
        let mut piece = pieces.get(token as usize).map_or(&[][..], Vec::as_slice);
        if first && !piece.is_empty() {
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
            first = false;
        }
        let part = characters.push(piece);
        text += &part;
        show(&part)
    })?;
    let rest = characters.finish();
    show(&rest)?;
    text += &rest;
    show("\n")?;
    if !json {
        let told = told(prompt.len(), &written, &notes);
        let _ = writeln!(std::io::stderr(), "{told}"); // Where stderr is closed, nobody wants to know.
    }
    let report = json!({
        "prompt": args.prompt,
        "text": text,
        "prompt_tokens": prompt,
        "tokens": written.tokens,
        "stop": match written.stop {
            Stop::End(_) => "end",
            Stop::Tokens => "tokens",
            Stop::Context => "context",
            Stop::Reader => "reader",
        },
        "end": match written.stop { Stop::End(id) => Some(id), _ => None },
        "prompt_tokens_per_second": speed(prompt.len(), written.prompt_time),
        "tokens_per_second": speed(steps(&written), written.time),
        "notes": notes,
    });
    // The text has been shown.
    Ok(Report::new("", report))
}

fn sampler(args: &Args) -> Result<Sampler> {
    let temperature = args.temperature;
    ensure!(temperature.is_finite() && temperature >= 0.0, "--temperature {temperature}: expected 0 or more");
    if let Some(p) = args.top_p {
        ensure!(p > 0.0 && p <= 1.0, "--top-p {p}: expected a probability above 0, up to 1");
    }
    ensure!(args.top_k != Some(0), "--top-k 0: expected 1 or more; leave it out to draw from all tokens");
    let idle = [("--top-k", args.top_k.is_some()), ("--top-p", args.top_p.is_some()), ("--seed", args.seed.is_some())];
    match idle.into_iter().find(|(_, given)| *given && temperature == 0.0) {
        Some((option, _)) => bail!("{option}: at temperature 0 nothing is drawn; give a --temperature, such as 0.8"),
        None => Ok(Sampler {
            temperature,
            top_k: args.top_k.unwrap_or(0),
            top_p: args.top_p.unwrap_or(1.0),
            seed: Seed(args.seed.unwrap_or(0)),
        }),
    }
}

/// The transformer, if it is one that writes.
fn language<'m>(model: &'m Model<'_>) -> Result<&'m Transformer> {
    let kind = |name: &str| format!("`generate` takes a language model, and this base is {name}");
    let Some(t) = model.spec().transformer() else { bail!(kind("a multilayer perceptron")) };
    match model.spec().head {
        HeadKind::Language if t.decoder > 0 && !t.has_cross() => Ok(t),
        HeadKind::None => bail!(kind("a transformer without a head; convert its ForCausalLM checkpoint")),
        head => bail!(
            "{}; `classify` labels texts",
            kind(&format!("a transformer with a {} head", crate::describe::head(head)))
        ),
    }
}

/// The tokens that end a text: as the converter found them, or, in an older image, the spec's one.
fn ends(model: &Model<'_>, t: &Transformer) -> Vec<u32> {
    let metadata = base_metadata(model);
    let list = metadata.get("eos_token_id").and_then(|v| v.as_array());
    match list {
        Some(list) => list.iter().filter_map(|v| u32::try_from(v.as_u64()?).ok()).collect(),
        None => vec![t.end],
    }
}

/// Tokens that were computed behind the prompt: the first was the prompt's, the one that ended the text counts.
fn steps(written: &Generated) -> usize {
    (written.tokens.len() + usize::from(matches!(written.stop, Stop::End(_)))).saturating_sub(1)
}

/// `None` where there was nothing to measure.
fn speed(tokens: usize, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| (tokens as f64 / seconds * 10.0).round() / 10.0)
}

fn told(prompt: usize, written: &Generated, notes: &[String]) -> String {
    let rate = |tokens, time| speed(tokens, time).map_or("-".to_owned(), |s| format!("{s:.1}"));
    let why = match written.stop {
        Stop::End(id) => format!("token {id} ended it"),
        Stop::Tokens => "--tokens".to_owned(),
        Stop::Context => "the base's context is full".to_owned(),
        Stop::Reader => "nobody reads".to_owned(),
    };
    let human = format!(
        "prompt: {prompt} tokens, {} tokens/s; text: {} tokens, {} tokens/s; stopped: {why}",
        rate(prompt, written.prompt_time),
        written.tokens.len(),
        rate(steps(written), written.time),
    );
    super::with_notes(human, notes)
}
