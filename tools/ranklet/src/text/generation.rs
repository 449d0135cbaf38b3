//! A text goes on, token by token, with the device's own arithmetic and its cache.

use super::sampler::Sampler;
use crate::infer::SLACK;
use anyhow::{Result, ensure};
use ranklet::float::from_block;
use ranklet::model::spec::Transformer;
use ranklet::model::{Active, CacheType, Model, Plan, Sequence, Workspace};
use std::time::{Duration, Instant};

/// Tokens of the prompt that are run at once. How it is cut changes no bit (with an i16 cache).
const TILE: usize = 16;

/// What to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tokens, at most.
    pub tokens: usize,
    /// How keys and values are remembered.
    pub cache: CacheType,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    /// Which token comes next.
    pub sampler: Sampler,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    End(u32),
    /// There are as many tokens as were asked for.
    Tokens,
    /// The model's context is full.
    Context,
    /// Nobody reads any more.
    Reader,
}

/// What was written, and how long it took.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Why it ends.
    pub stop: Stop,
    /// For the prompt.
    pub prompt_time: Duration,
    /// For everything behind it.
    pub time: Duration,
}

/// Goes on behind `prompt`. `each` is told every token; it returns whether to go on.
///
/// # Errors
/// A prompt that is empty, or longer than the context; what the core refuses; what `each` returns.
pub fn generate(
    model: &Model<'_>,
    t: &Transformer,
    adapters: &[Active<'_>],
    prompt: &[u32],
    settings: &Settings,
    mut each: impl FnMut(u32) -> Result<bool>,
) -> Result<Generated> {
    ensure!(
        !prompt.is_empty() && prompt.len() <= t.positions,
        "the prompt has {} tokens; the base takes 1 to {}",
        prompt.len(),
        t.positions
    );
    let context = prompt.len().saturating_add(settings.tokens).min(t.positions);
    let plan = Plan::new(model.bytes())?.tokens(TILE.min(prompt.len())).context(context).cache(settings.cache);
    let mut memory = vec![0; plan.bytes() + SLACK];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&plan)?;
    let start = Instant::now();
    for tile in prompt.chunks(TILE) {
        model.decode(&mut scratch, &mut cache, Sequence::tokens(tile), adapters)?;
    }
    let mut logits = vec![0.0; model.spec().outputs];
    let mut last = (prompt.len() - 1) % TILE;
    let mut tokens = vec![];
    let mut prompt_time = None;
    let stop = loop {
        if tokens.len() >= settings.tokens {
            break Stop::Tokens;
        }
        if let Some(&token) = tokens.last() {
            if cache.len() == t.positions {
                break Stop::Context;
            }
            model.decode(&mut scratch, &mut cache, Sequence::tokens(&[token]), adapters)?;
            last = 0;
        }
        from_block(model.logits(&mut scratch, last, adapters)?, &mut logits);
        prompt_time.get_or_insert_with(|| start.elapsed());
        let token = settings.sampler.choose(&logits, (prompt.len() + tokens.len()) as u32);
        if settings.ends.contains(&token) {
            break Stop::End(token);
        }
        tokens.push(token);
        if !each(token)? {
            break Stop::Reader;
        }
    };
    let all = start.elapsed();
    let prompt_time = prompt_time.unwrap_or(all);
    Ok(Generated { tokens, stop, prompt_time, time: all - prompt_time })
}
