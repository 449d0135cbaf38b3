//! Writes the turned digits as `ranklet train` and `ranklet eval` take them.
//!
//! ```sh
//! cargo run -p ranklet-host-tests --bin digits -- DIR      train.safetensors and test.safetensors
//! ```

use ranklet_cli::save::{Out, safetensors};
use ranklet_host_tests::convergence::digits::Digits;
use ranklet_host_tests::fixture::Sample;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: digits DIR: writes train.safetensors and test.safetensors there");
        return ExitCode::from(2);
    };
    let task = Digits::turned();
    for (name, samples) in [("train.safetensors", &task.train), ("test.safetensors", &task.held_out)] {
        let path = Path::new(&directory).join(name);
        if let Err(e) = bytes(samples).and_then(|bytes| Ok(std::fs::write(&path, bytes)?)) {
            eprintln!("cannot write {}: {e}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}: {} turned digits", path.display(), samples.len());
    }
    ExitCode::SUCCESS
}

/// `inputs`, raw pixels, and `labels`.
fn bytes(samples: &[Sample]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let width = samples.first().map_or(0, |s| s.raw.len());
    let inputs: Vec<f32> = samples.iter().flat_map(|s| s.raw.iter().map(|&v| f32::from(v))).collect();
    let labels: Vec<i64> = samples.iter().map(|s| s.class as i64).collect();
    Ok(safetensors([
        ("inputs".to_owned(), Out::f32s(&[samples.len(), width], &inputs)),
        ("labels".to_owned(), Out::i64s(&[samples.len()], &labels)),
    ])?)
}
