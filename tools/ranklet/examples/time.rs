//! Times a transformer on this machine, as JSON: the whole pass over an input, and decoding token by token.
//!
//!     cargo run --release -p ranklet-cli --example time -- BASE.rkl INPUT.safetensors [RUNS] [TOKENS]
//!
//! `seconds` is the median of RUNS passes after a first one, with the logits that `ranklet run` writes. With TOKENS, for a
//! network that is a decoder alone, the first row of the input is a prompt, and so many tokens are appended greedily.
//! One thread, as everything in the core.

use anyhow::{Context, Result, bail};
use ranklet::layer::head::argmax;
use ranklet::model::{Model, Plan, Sequence, Workspace};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::image::ImageFile;
use ranklet_cli::sequences::{self, Batch};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, input, rest @ ..] = args.as_slice() else { bail!("give BASE.rkl INPUT.safetensors [RUNS] [TOKENS]") };
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |text| text.parse().context("a number"));
    let (runs, tokens) = (number(0, 5)?, number(1, 0)?);
    let start = Instant::now();
    let file = ImageFile::open(Path::new(base))?;
    let model = file.model()?;
    let load = start.elapsed().as_secs_f64();
    let t = model.spec().transformer().context("a transformer")?;
    let data = Checkpoint::open_file(Path::new(input))?;
    let batch = Batch::read(&data, &model, t)?;
    let pass = || -> Result<f64> {
        let start = Instant::now();
        sequences::run(&model, t, &[], &batch, || ())?;
        Ok(start.elapsed().as_secs_f64())
    };
    let first = pass()?;
    let mut seconds = (0..runs.max(1)).map(|_| pass()).collect::<Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    let mut report = json!({
        "tokens": batch.count * batch.length,
        "load_seconds": load,
        "first_seconds": first,
        "seconds": seconds[seconds.len() / 2],
    });
    if tokens > 0 {
        let (prompt, each) = decode(&model, &data, tokens)?;
        report["prompt_seconds"] = json!(prompt);
        report["decode_tokens"] = json!(tokens);
        report["decode_seconds_a_token"] = json!(each);
    }
    println!("{report:#}");
    Ok(())
}

/// Seconds for the prompt, and for each token behind it.
fn decode(model: &Model<'_>, data: &Checkpoint, count: usize) -> Result<(f64, f64)> {
    let ids = data.i64s("input_ids")?;
    let length = ids.shape.last().copied().unwrap_or(0);
    let prompt: Vec<u32> = ids.data.iter().take(length).map(|&id| id as u32).collect();
    let plan = Plan::new(model.bytes())?.tokens(length).context(length + count);
    let mut memory = vec![0; plan.bytes() + 64];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&plan)?;
    let start = Instant::now();
    model.decode(&mut scratch, &mut cache, Sequence::tokens(&prompt), &[])?;
    let mut next = argmax(model.logits(&mut scratch, length - 1, &[])?.mantissas);
    let first = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..count {
        model.decode(&mut scratch, &mut cache, Sequence::tokens(&[next as u32]), &[])?;
        next = argmax(model.logits(&mut scratch, 0, &[])?.mantissas);
    }
    Ok((first, start.elapsed().as_secs_f64() / count as f64))
}
