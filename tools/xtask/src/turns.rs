//! What the writer's adapters gave, turn by turn, beside what PyTorch gives with them merged into the base.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors};

use crate::tree;

/// The file that the application `write` leaves in its folder; `boards/suite/src/write/turns.rs` tells its form.
const FILE: &str = "write.logits";
/// The turns, in the file's order, as `models/story/golden.safetensors` names them.
const TURNS: [&str; 4] = ["base", "austen", "psalm", "both"];
/// Relative L2 of logits and of what the adapters change of them, 8-bit weights: the contract.
const LIMITS: (f64, f64) = (5e-2, 1e-1);

/// How far one turn is from PyTorch's.
pub(crate) struct Turn {
    pub(crate) name: &'static str,
    /// Relative L2 of all logits.
    pub(crate) logits: f64,
    /// Relative L2 of their difference to the base's; `None` for the base.
    pub(crate) effect: Option<f64>,
}

impl Turn {
    /// Whether it is within the limits.
    pub(crate) fn good(&self) -> bool {
        self.logits <= LIMITS.0 && self.effect.is_none_or(|effect| effect <= LIMITS.1)
    }

    /// For people.
    pub(crate) fn cells(&self) -> Vec<String> {
        let effect = self.effect.map_or_else(|| "-".to_owned(), |effect| format!("{effect:.4}"));
        vec![self.name.to_owned(), format!("{:.4}", self.logits), effect]
    }
}

/// Compares what lies in `folder`.
///
/// # Errors
/// If either file is missing or has another form. A difference is no error: see [`Turn::good`].
pub(crate) fn compare(folder: &Path) -> Result<Vec<Turn>> {
    let golden = tree::root().join("models/story/golden.safetensors");
    let bytes = fs::read(&golden).with_context(|| format!("cannot read {}", tree::shown(&golden)))?;
    let golden = SafeTensors::deserialize(&bytes).with_context(|| tree::shown(&golden))?;
    let path = folder.join(FILE);
    let found = fs::read(&path).with_context(|| format!("cannot read {}", tree::shown(&path)))?;
    let (mut expected, mut outputs) = (Vec::new(), 0);
    for name in TURNS {
        let tensor = golden.tensor(&format!("output_{name}"))?;
        ensure!(tensor.dtype() == Dtype::F32, "output_{name} is {:?}", tensor.dtype());
        outputs = *tensor.shape().last().context("a scalar")?;
        let (words, _) = tensor.data().as_chunks::<4>();
        expected.push(words.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect::<Vec<_>>());
    }
    turns(&values(&found, outputs), &expected).with_context(|| tree::shown(&path))
}

/// Blocks of `outputs` mantissas and an exponent.
fn values(bytes: &[u8], outputs: usize) -> Vec<f64> {
    let words: Vec<i16> = bytes.as_chunks::<2>().0.iter().map(|word| i16::from_le_bytes(*word)).collect();
    let blocks = words.chunks_exact(outputs + 1).filter_map(|block| block.split_last());
    blocks.flat_map(|(&e, block)| block.iter().map(move |&m| f64::from(m) * f64::from(e).exp2())).collect()
}

fn turns(found: &[f64], expected: &[Vec<f64>]) -> Result<Vec<Turn>> {
    let length = expected.first().map_or(0, Vec::len);
    ensure!(length > 0 && expected.iter().all(|turn| turn.len() == length), "turns of unlike lengths");
    ensure!(
        found.len() == length * TURNS.len(),
        "{} values, {} were expected: {} turns of {length}",
        found.len(),
        length * TURNS.len(),
        TURNS.len()
    );
    let found: Vec<&[f64]> = found.chunks_exact(length).collect();
    let base = (found[0], &expected[0]);
    let turn = |(n, name): (usize, &'static str)| {
        let effect = (n > 0).then(|| error(&minus(found[n], base.0), &minus(&expected[n], base.1)));
        Turn { name, logits: error(found[n], &expected[n]), effect }
    };
    Ok(TURNS.into_iter().enumerate().map(turn).collect())
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Relative L2.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    norm(&minus(found, expected)) / norm(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_exponents() {
        let bytes: Vec<u8> = [3_i16, -4, 1, 5, 6, -2].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(values(&bytes, 2), [6.0, -8.0, 1.25, 1.5]);
    }

    #[test]
    fn a_turn_is_held_against_its_own() {
        let expected = vec![vec![10.0, 0.0], vec![10.0, 1.0], vec![10.0, 2.0], vec![10.0, 3.0]];
        let good = turns(&expected.concat(), &expected).expect("four turns");
        assert!(good.iter().all(|turn| turn.good() && turn.logits == 0.0));
        // An adapter that was left out: the logits are near, its effect is missing.
        let wrong = turns(&[10.0, 0.0, 10.0, 0.0, 10.0, 2.0, 10.0, 3.0], &expected).expect("four turns");
        assert_eq!(wrong.iter().map(Turn::good).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!(wrong[1].effect, Some(1.0));
        assert!(turns(&[10.0], &expected).is_err());
    }
}
