//! What the networks are given: somebody's data, texts, or random values.

use crate::checkpoint::Checkpoint;
use crate::dataset;
use crate::sequences::Batch;
use crate::text::tokenizer::Tokenizer;
use anyhow::{Result, ensure};
use ranklet::fixed::hash::{Purpose, Seed, Stream};
use ranklet::model::Model;
use ranklet::model::spec::{Pool, Transformer};

/// Sequences, or rows of features.
#[derive(Debug)]
pub enum Samples {
    /// For a transformer.
    Sequences(Vec<Batch>),
    /// For a perceptron: (rows, features).
    Rows(Vec<f32>),
}

impl Samples {
    /// From a file as `run` takes it.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit; no rows.
    pub fn read(file: &Checkpoint, model: &Model<'_>) -> Result<Samples> {
        let Some(t) = model.spec().transformer() else {
            let inputs = dataset::inputs(file, model.spec().features)?;
            ensure!(inputs.rows() > 0, "{}: `inputs` has no rows", file.path().display());
            return Ok(Samples::Rows(inputs.data));
        };
        Ok(Samples::Sequences(vec![Batch::read(file, model, t)?]))
    }

    /// From texts, by the checkpoint's tokenizer, which cuts what is too long.
    ///
    /// # Errors
    /// A text without tokens.
    pub fn texts(texts: &[&str], tokenizer: &Tokenizer, t: &Transformer) -> Result<Samples> {
        let batch = |(number, text): (usize, &&str)| {
            let encoded = tokenizer.encode_with_places(text)?;
            ensure!(!encoded.ids.is_empty(), "text {} has no tokens", number + 1);
            let fits = encoded.types.iter().all(|&ty| usize::from(ty) < t.types);
            Ok(Batch::text(t, &encoded.ids, if fits { encoded.types } else { vec![] }))
        };
        Ok(Samples::Sequences(texts.iter().enumerate().map(batch).collect::<Result<_>>()?))
    }

    /// Random ones: every token as likely as the other; features of a normal distribution, of the mean and deviation by
    /// which a perceptron normalises them (0 and 1 where it does not).
    #[must_use]
    pub fn random(
        model: &Model<'_>,
        count: usize,
        tokens: usize,
        normal: Option<(&[f32], &[f32])>,
        seed: u32,
    ) -> Samples {
        let stream = |row: usize| Stream::new(Seed(seed), Purpose::Sample, row as u32, 0);
        let features = model.spec().features;
        let gaussian = |stream: Stream, i: usize| {
            let uniform = |k: u32| (f64::from(stream.at(2 * i as u32 + k)) + 0.5) / f64::from(2).powi(32);
            ((-2.0 * uniform(0).ln()).sqrt() * (std::f64::consts::TAU * uniform(1)).cos()) as f32
        };
        let Some(t) = model.spec().transformer() else {
            let value = |row: usize, i: usize| {
                let z = gaussian(stream(row), i);
                normal.map_or(z, |(mean, std)| mean[i] + z * std[i])
            };
            return Samples::Rows((0..count).flat_map(|row| (0..features).map(move |i| value(row, i))).collect());
        };
        let sequence = |row: usize| {
            if t.vocab == 0 {
                let values = (0..tokens * features).map(|i| gaussian(stream(row), i)).collect();
                return Batch::features(values, tokens);
            }
            let draw = |i: usize| ((u64::from(stream(row).at(i as u32)) * t.vocab as u64) >> 32) as u32;
            let mut ids: Vec<u32> = (0..tokens).map(draw).collect();
            if let (Pool::End, Some(last)) = (t.pool, ids.last_mut()) {
                *last = t.end;
            }
            Batch::text(t, &ids, vec![])
        };
        Samples::Sequences((0..count).map(sequence).collect())
    }

    /// How many there are, and of how many tokens.
    #[must_use]
    pub fn size(&self, features: usize) -> (usize, usize) {
        match self {
            Samples::Sequences(batches) => {
                (batches.iter().map(|b| b.count).sum(), batches.iter().map(|b| b.count * b.length).sum())
            }
            Samples::Rows(rows) => (rows.len() / features.max(1), rows.len() / features.max(1)),
        }
    }
}
