//! Networks in floats, from the checkpoint's own values: what the integers are compared with.
//!
//! | file | what it knows |
//! |---|---|
//! | [`scalar`] | what `f32` and `f64` share |
//! | [`layers`] | linear layers with adapters, norms, activations |
//! | [`tape`], [`gradients`] | operations with their backward; the gradients of what learns |
//! | [`chain`] | perceptrons |
//! | here | transformers: the layers in the order of the spec |
//!
//! All of it is plain, generic over the precision, and can be looked into: what each linear layer was given and gave.

pub mod chain;
pub mod gradients;
pub mod layers;
pub mod scalar;
pub mod tape;

use crate::checkpoint::Checkpoint;
use crate::hf::{self, Network, RelativeSource};
use crate::image::stored::{Stored, weight};
use crate::sequences::Row;
use crate::tensor::Matrix;
use anyhow::Result;
use layers::{Layer, Norm};
use ranklet::layer::Activation;
use ranklet::model::spec::transformer::{NO_TOKEN, Table};
use ranklet::model::spec::{Flags, Pool, Position, Stack, Transformer};
use ranklet::model::{HeadKind, Model};
use scalar::{Scalar, convert};
use tape::{Heads, Tape, Var};

/// A network with its weights.
#[derive(Clone, Debug)]
pub struct Reference<S = f64> {
    t: Transformer,
    head: HeadKind,
    /// In the order of the sites.
    pub layers: Vec<Layer<S>>,
    /// In the order of the spec.
    pub norms: Vec<Norm<S>>,
    tables: Vec<Matrix>,
    rope: Vec<u32>,
    relative: [Option<(Matrix, RelativeSource)>; 2],
}

/// What is told of while a sequence runs.
#[derive(Debug)]
pub enum Seen<'s, S = f64> {
    /// A linear layer: what it was given, and what it gave, of one token that counts.
    Linear {
        /// Its number.
        site: usize,
        /// Given.
        x: &'s [S],
        /// Gave.
        y: &'s [S],
    },
}

/// A sequence under way.
struct Run<'r, 's, S> {
    net: &'r Reference<S>,
    tape: Tape<'r, S>,
    adapted: bool,
    each: &'s mut dyn FnMut(Seen<'_, S>),
}

impl Reference {
    /// Reads the weights.
    ///
    /// # Errors
    /// Tensors that are missing or have another shape.
    pub fn read(checkpoint: &Checkpoint, network: &Network) -> Result<Reference> {
        let t = network.transformer;
        let layer = |source: &hf::Source| -> Result<Layer> {
            let m = hf::matrix(checkpoint, source)?;
            let bias = source.bias.as_ref().map(|name| checkpoint.vector(name, m.rows, "output")).transpose()?;
            let bias = bias.as_deref().map(convert);
            let module = source.module.clone();
            Ok(Layer { module, inputs: m.cols, outputs: m.rows, weight: convert(&m.data), bias, added: vec![] })
        };
        let norm = |source: &hf::NormSource| -> Result<Norm> {
            let weight = convert(&checkpoint.vector(&source.weight, t.dim, "channel")?);
            let bias = source.bias.as_ref().map(|name| checkpoint.vector(name, t.dim, "channel")).transpose()?;
            let bias = bias.as_deref().map(convert);
            Ok(Norm { weight, bias, rms: t.flags.has(Flags::RMS), epsilon: t.epsilon.to_f64() })
        };
        let mut relative = [None, None];
        for (to, source) in relative.iter_mut().zip(&network.relative) {
            if let Some(source) = source {
                *to = Some((checkpoint.matrix(&source.table, "(buckets, heads)")?, source.clone()));
            }
        }
        Ok(Reference {
            t,
            head: network.head,
            layers: network.linears.iter().map(layer).collect::<Result<_>>()?,
            norms: network.norms.iter().map(norm).collect::<Result<_>>()?,
            tables: network.tables.iter().map(|s| Ok(hf::matrix(checkpoint, s)?)).collect::<Result<_>>()?,
            rope: network.rope.clone(),
            relative,
        })
    }

    /// The same with the weights of an image: what is left of them when they were quantized. Norms and relative biases have 32
    /// bits there, and stay.
    #[must_use]
    pub fn quantized(mut self, model: &Model<'_>) -> Reference {
        let stored = Stored::of(model);
        for (site, layer) in self.layers.iter_mut().enumerate() {
            let at = |i: usize| stored.value(site, i / layer.inputs, i % layer.inputs);
            layer.weight = (0..layer.weight.len()).map(at).collect();
            layer.bias = stored.bias(site);
        }
        let all = [Table::Tokens, Table::Positions, Table::Types];
        for (table, linear) in self.tables.iter_mut().zip(all.into_iter().filter_map(|t| model.table(t))) {
            let cols = table.cols;
            let at = |(i, v): (usize, &mut f32)| *v = weight(&linear, i / cols, i % cols) as f32;
            table.data.iter_mut().enumerate().for_each(at);
        }
        self
    }

    /// The same in another precision.
    #[must_use]
    pub fn convert<S: Scalar>(&self) -> Reference<S> {
        Reference {
            t: self.t,
            head: self.head,
            layers: self.layers.iter().map(Layer::convert).collect(),
            norms: self.norms.iter().map(Norm::convert).collect(),
            tables: self.tables.clone(),
            rope: self.rope.clone(),
            relative: self.relative.clone(),
        }
    }
}

impl<S: Scalar> Reference<S> {
    /// Runs one sequence; the output as [`sequences::run`](crate::sequences::run) orders it.
    pub fn run(&self, row: &Row<'_>, adapted: bool, each: &mut dyn FnMut(Seen<'_, S>)) -> Vec<S> {
        let (tape, y) = self.tape(row, adapted, each);
        tape.value(y).to_vec()
    }

    /// The same, on a tape that can be walked back.
    pub fn tape(&self, row: &Row<'_>, adapted: bool, each: &mut dyn FnMut(Seen<'_, S>)) -> (Tape<'_, S>, Var) {
        let t = &self.t;
        let mut run = Run { net: self, tape: Tape::new(&self.layers, &self.norms, &self.rope), adapted, each };
        let mut memory = None;
        if t.encoder > 0 {
            memory = Some(run.stack(Stack::Encoder, row, row.ids, row.valid, None));
        }
        let (hidden, valid) = match (t.decoder > 0, memory) {
            (false, Some(memory)) => (memory, row.valid.to_vec()),
            (true, Some(memory)) => {
                let all = vec![true; row.decoder.len()];
                (run.stack(Stack::Decoder, row, row.decoder, &all, Some((memory, row.valid))), all)
            }
            (_, None) => (run.stack(Stack::Decoder, row, row.ids, row.valid, None), row.valid.to_vec()),
        };
        let y = match run.weights(row) {
            None => run.head(hidden, &valid),
            Some(weights) => {
                let pooled = run.tape.mean(hidden, weights);
                run.head(pooled, &[true])
            }
        };
        (run.tape, y)
    }
}

impl<S: Scalar> Run<'_, '_, S> {
    fn linear(&mut self, site: u16, x: Var, counts: &[bool]) -> Var {
        let site = usize::from(site);
        let y = self.tape.linear(site, x, self.adapted);
        for row in counts.iter().enumerate().filter_map(|(row, counts)| counts.then_some(row)) {
            (self.each)(Seen::Linear { site, x: self.tape.row(x, row), y: self.tape.row(y, row) });
        }
        y
    }

    fn norm(&mut self, index: Option<u16>, x: Var) -> Var {
        index.map_or(x, |index| self.tape.norm(index.into(), x))
    }

    /// The share of each token in the vector that the head is given; none where it is given all of them.
    fn weights(&self, row: &Row<'_>) -> Option<Vec<S>> {
        let t = &self.net.t;
        let last = row.valid.iter().rposition(|&v| v).unwrap_or(0);
        let tokens = if t.has_cross() { row.decoder.len() } else { row.valid.len() };
        let at = match t.pool {
            Pool::None => return None,
            Pool::First => 0,
            Pool::Last if t.vocab > 0 && t.pad != NO_TOKEN => row.ids.iter().rposition(|&id| id != t.pad).unwrap_or(0),
            Pool::Last => last,
            Pool::End => row.ids.iter().rposition(|&id| id == t.end).unwrap_or(last),
            _ => {
                let n = row.valid.iter().filter(|&&v| v).count() as f64;
                return Some(row.valid.iter().map(|&v| S::of(f64::from(u8::from(v)) / n)).collect());
            }
        };
        Some((0..tokens).map(|i| if i == at { S::ONE } else { S::ZERO }).collect())
    }

    fn head(&mut self, mut x: Var, counts: &[bool]) -> Var {
        let net = self.net;
        if net.head == HeadKind::None {
            return x;
        }
        if let Some(site) = net.t.pooler_site() {
            x = self.linear(site, x, counts);
            x = self.tape.activation(Activation::Tanh, x);
        }
        self.linear(net.t.head_site(), x, counts)
    }

    fn embed(&mut self, row: &Row<'_>, ids: &[u32], valid: &[bool]) -> Var {
        let (net, t) = (self.net, &self.net.t);
        let wide = |values: &[f32]| values.iter().map(|&v| S::of(v.into())).collect::<Vec<S>>();
        let table = |place: usize, index: usize| wide(net.tables[place].iter_rows().nth(index).unwrap_or(&[]));
        let positions = usize::from(t.vocab > 0);
        let types = positions + usize::from(t.position == Position::Learned);
        let mut x = if t.vocab > 0 {
            self.tape.given(t.dim, ids.iter().flat_map(|&id| table(0, id as usize)).collect())
        } else {
            let given = self.tape.given(row.features.len() / valid.len(), wide(row.features));
            t.input_site().map_or(given, |site| self.linear(site, given, valid))
        };
        if t.position == Position::Learned {
            let learned = self.tape.given(t.dim, (0..valid.len()).flat_map(|i| table(positions, i)).collect());
            x = self.tape.sum(x, learned);
        }
        if t.types > 0 {
            let of = |i: usize| table(types, row.types.get(i).map_or(0, |&k| usize::from(k)));
            let kinds = self.tape.given(t.dim, (0..valid.len()).flat_map(of).collect());
            x = self.tape.sum(x, kinds);
        }
        self.norm(t.embedding_norm(), x)
    }

    fn stack(
        &mut self,
        stack: Stack,
        row: &Row<'_>,
        ids: &[u32],
        valid: &[bool],
        memory: Option<(Var, &[bool])>,
    ) -> Var {
        let t = &self.net.t;
        let mut stream = self.embed(row, ids, valid);
        for layer in 0..t.blocks(stack) {
            let sites = t.block(stack, layer);
            stream = self.add(stream, sites.attention_norm, |run, x| run.own(stack, layer, x, valid));
            if let (Some(cross), Some(norm), Some((memory, seen))) = (sites.cross, sites.cross_norm, memory) {
                stream = self.add(stream, norm, |run, x| run.cross(cross, x, valid, memory, seen));
            }
            stream = self.add(stream, sites.feed_norm, |run, x| {
                let up = run.linear(sites.up, x, valid);
                let activation = run.net.t.activation;
                let inner = match sites.gate {
                    Some(gate) => {
                        let gate = run.linear(gate, x, valid);
                        let gate = run.tape.activation(activation, gate);
                        run.tape.product(gate, up)
                    }
                    None => run.tape.activation(activation, up),
                };
                run.linear(sites.down, inner, valid)
            });
        }
        self.norm(t.final_norm(stack), stream)
    }

    /// A sub-layer, its norm and its residual.
    fn add(&mut self, stream: Var, norm: u16, sub: impl FnOnce(&mut Self, Var) -> Var) -> Var {
        let pre = self.net.t.flags.has(Flags::PRE_NORM);
        let x = self.norm(pre.then_some(norm), stream);
        let y = sub(self, x);
        let sum = self.tape.sum(stream, y);
        self.norm((!pre).then_some(norm), sum)
    }

    fn heads(&self) -> Heads {
        let t = &self.net.t;
        Heads { heads: t.heads, group: t.heads / t.kv_heads, width: t.head_dim, score: t.score.to_f64() }
    }

    /// Self-attention.
    fn own(&mut self, stack: Stack, layer: u16, x: Var, valid: &[bool]) -> Var {
        let (net, t) = (self.net, &self.net.t);
        let sites = t.block(stack, layer);
        let (query, kv) = (t.query_width(), t.kv_width());
        let [mut q, mut k, v] = match sites.key_value {
            Some([key, value]) => [sites.query, key, value].map(|site| self.linear(site, x, valid)),
            None => {
                let all = self.linear(sites.query, x, valid);
                [0..query, query..query + kv, query + kv..query + 2 * kv].map(|part| self.tape.columns(all, part))
            }
        };
        if t.position == Position::Rotary {
            (q, k) = (self.tape.rotated(q, t.head_dim), self.tape.rotated(k, t.head_dim));
        }
        let causal = stack == Stack::Decoder;
        let relative = net.relative[usize::from(causal)].as_ref();
        let bias = |head: usize, i: usize, j: usize| {
            let Some((table, source)) = relative else { return 0.0 };
            let row = source.buckets.get(usize::from(j > i)).unwrap_or(&source.buckets[0]);
            let bucket = usize::from(row[i.abs_diff(j).min(row.len() - 1)]);
            table.iter_rows().nth(bucket).map_or(0.0, |r| f64::from(r[head]))
        };
        let heads = self.heads();
        let y = self.tape.attention([q, k, v], heads, |i, j| valid[j] && (!causal || j <= i), bias);
        self.linear(sites.output, y, valid)
    }

    /// Attention of a decoder to what the encoder made of the source.
    fn cross(&mut self, [q, k, v, o]: [u16; 4], x: Var, valid: &[bool], memory: Var, seen: &[bool]) -> Var {
        let (k, v) = (self.linear(k, memory, seen), self.linear(v, memory, seen));
        let q = self.linear(q, x, valid);
        let heads = self.heads();
        let y = self.tape.attention([q, k, v], heads, |_, j| seen[j], |_, _, _| 0.0);
        self.linear(o, y, valid)
    }
}
