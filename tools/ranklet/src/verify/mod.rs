//! A base, and an adapter, held against the floats that they were made of: layer by layer, and at the output.
//!
//! | file | what it knows |
//! |---|---|
//! | [`ratio`] | signal and noise |
//! | [`samples`] | what the networks are given |
//! | here | running both, and comparing |
//!
//! A layer is measured by itself: the device's arithmetic is given what the float layer was given, so that errors of the
//! layers before it are not counted again. The output has all of them.

pub mod ratio;
pub mod samples;

use crate::adapter::Pair;
use crate::infer;
use crate::reference::chain::Chain;
use crate::reference::layers::{Layer, adapt};
use crate::reference::{Reference, Seen};
use crate::sequences;
use anyhow::{Context, Result, ensure};
use ranklet::fixed::{Exp, Tile, TileMut};
use ranklet::layer::linear::Scratch;
use ranklet::layer::{Activation, Linear};
use ranklet::model::{Adapter, Model};
use ratio::Ratio;
use samples::Samples;

/// The network in floats.
#[derive(Debug)]
pub enum Floats {
    /// A transformer.
    Transformer(Box<Reference>),
    /// A perceptron.
    Chain(Chain),
}

impl Floats {
    /// Its linear layers, in the order of the sites.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        match self {
            Floats::Transformer(reference) => &reference.layers,
            Floats::Chain(chain) => &chain.layers,
        }
    }

    /// Puts an adapter on.
    pub fn adapt(&mut self, pairs: &[Pair]) {
        adapt(
            match self {
                Floats::Transformer(reference) => &mut reference.layers,
                Floats::Chain(chain) => &mut chain.layers,
            },
            pairs,
        );
    }
}

/// With or without the adapter.
#[derive(Clone, Debug)]
pub struct Side {
    /// Of every layer, in the order of the sites.
    pub layers: Vec<Ratio>,
    /// Of what comes out.
    pub output: Ratio,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The base alone.
    pub base: Side,
    /// With the adapter, if there is one; and its effect: the output with it, less the output without.
    pub adapted: Option<(Side, Ratio)>,
}

/// Compares. `each` is called once for every sequence, or row, and side.
///
/// # Errors
/// What the core refuses.
pub fn compare(
    model: &Model<'_>,
    adapter: Option<&Adapter<'_>>,
    floats: &Floats,
    samples: &Samples,
    mut each: impl FnMut(),
) -> Result<Findings> {
    let (base, plain) = side(model, None, floats, samples, &mut each)?;
    let Some(adapter) = adapter else { return Ok(Findings { base, adapted: None }) };
    let (adapted, with) = side(model, Some(adapter), floats, samples, &mut each)?;
    let mut effect = Ratio::default();
    let less = |with: &[f64], without: &[f64]| -> Vec<f64> { with.iter().zip(without).map(|(w, o)| w - o).collect() };
    effect.add(&less(&with.expected, &plain.expected), less(&with.found, &plain.found));
    Ok(Findings { base, adapted: Some((adapted, effect)) })
}

/// Outputs that count, of both.
#[derive(Default)]
struct Outputs {
    expected: Vec<f64>,
    found: Vec<f64>,
}

fn side(
    model: &Model<'_>,
    adapter: Option<&Adapter<'_>>,
    floats: &Floats,
    samples: &Samples,
    each: &mut impl FnMut(),
) -> Result<(Side, Outputs)> {
    let mut probe = Probe::new(model, adapter);
    let active: Vec<_> = adapter.iter().map(|a| a.view()).collect();
    let mut outputs = Outputs::default();
    match (floats, samples, model.spec().transformer()) {
        (Floats::Transformer(reference), Samples::Sequences(batches), Some(t)) => {
            for batch in batches {
                let out = sequences::run(model, t, &active, batch, || ())?;
                for (row, found) in out.data.chunks_exact(out.data.len() / batch.count).enumerate() {
                    let expected = reference.run(&batch.row(row), adapter.is_some(), &mut |seen| probe.see(seen));
                    let width = model.spec().outputs;
                    let tokens = expected.chunks_exact(width).zip(found.chunks_exact(width)).enumerate();
                    for (_, (expected, found)) in tokens.filter(|(token, _)| batch.counts(t, row, *token)) {
                        outputs.expected.extend(expected);
                        outputs.found.extend(found.iter().map(|&v| f64::from(v)));
                    }
                    each();
                }
            }
        }
        (Floats::Chain(chain), Samples::Rows(rows), None) => {
            for row in rows.chunks_exact(model.spec().features) {
                let found = infer::run(model, &active, row, || ())?;
                outputs.expected.extend(chain.run(row, adapter.is_some(), &mut |seen| probe.see(seen)));
                outputs.found.extend(found.iter().map(|&v| f64::from(v)));
                each();
            }
        }
        _ => anyhow::bail!("the checkpoint and the base are of different kinds"),
    }
    ensure!(!outputs.expected.is_empty(), "nothing to compare: no token of the input counts");
    let mut output = Ratio::default();
    output.add(&outputs.expected, outputs.found.iter().copied());
    Ok((Side { layers: probe.finish()?, output }, outputs))
}

/// Gives the device's layers what the float layers were given.
struct Probe<'m> {
    model: &'m Model<'m>,
    adapter: Option<&'m Adapter<'m>>,
    ratios: Vec<Ratio>,
    failed: Option<anyhow::Error>,
    narrow: Vec<f32>,
    x: Vec<i16>,
    y: Vec<i16>,
    acc: Vec<i64>,
}

impl<'m> Probe<'m> {
    fn new(model: &'m Model<'m>, adapter: Option<&'m Adapter<'m>>) -> Self {
        let ratios = vec![Ratio::default(); usize::from(model.spec().linears)];
        Probe { model, adapter, ratios, failed: None, narrow: vec![], x: vec![], y: vec![], acc: vec![] }
    }

    fn see(&mut self, seen: Seen<'_>) {
        let Seen::Linear { site, x, y } = seen;
        if self.failed.is_none() {
            self.failed = self.linear(site, x, y).err();
        }
    }

    fn linear(&mut self, site: usize, x: &[f64], y: &[f64]) -> Result<()> {
        let number = site as u16;
        let linear = Linear { activation: Activation::None, ..self.model.linear(number) };
        self.narrow.clear();
        self.narrow.extend(x.iter().map(|&v| v as f32));
        self.x.resize(x.len(), 0);
        self.y.resize(y.len(), 0);
        self.acc.resize(Linear::acc_len(x.len(), y.len(), 1), 0);
        let given = [infer::block(&self.narrow, &mut self.x)?];
        let mut exponent = [Exp::ZERO];
        let mut scratch = Scratch { acc: &mut self.acc, vector: &mut [], rank: &mut [], masked: &mut [] };
        let lora = self.adapter.and_then(|a| a.view().lora(number));
        let y_tile = TileMut { mantissas: &mut self.y, exponents: &mut exponent };
        let x_tile = Tile { mantissas: &self.x, exponents: &given };
        linear.forward(x_tile, lora.into_iter(), y_tile, &mut scratch).context("a layer of another shape")?;
        let step = 2_f64.powi(exponent[0].get());
        self.ratios[site].add(y, self.y.iter().map(|&m| f64::from(m) * step));
        Ok(())
    }

    fn finish(self) -> Result<Vec<Ratio>> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.ratios),
        }
    }
}
