//! Networks in `f64`, from the checkpoint's own values: what the integers are compared with.
//!
//! [`layers`] has the layers, [`chain`] perceptrons; here the layers of a transformer are put together in the order of the
//! spec. It is slow and plain: every token of a sequence goes through every layer by itself, and what each linear was given
//! and gave can be looked at.

pub mod chain;
pub mod layers;

use crate::checkpoint::Checkpoint;
use crate::hf::{self, Network, RelativeSource};
use crate::sequences::Row;
use crate::tensor::Matrix;
use anyhow::Result;
use layers::{Layer, Norm, activate, attend, rotate};
use ranklet::model::HeadKind;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Flags, Pool, Position, Stack, Transformer};

/// Vectors of a sequence.
type Vectors = Vec<Vec<f64>>;

/// A network with its weights.
#[derive(Debug)]
pub struct Reference {
    t: Transformer,
    head: HeadKind,
    /// In the order of the sites.
    pub layers: Vec<Layer>,
    tables: Vec<Matrix>,
    norms: Vec<Norm>,
    rope: Vec<u32>,
    relative: [Option<(Matrix, RelativeSource)>; 2],
}

/// What is told of while a sequence runs.
#[derive(Debug)]
pub enum Seen<'s> {
    /// A linear layer: what it was given, and what it gave, of one token that counts.
    Linear {
        /// Its number.
        site: usize,
        /// Given.
        x: &'s [f64],
        /// Gave.
        y: &'s [f64],
    },
    /// The residual stream behind a block, of one token that counts.
    Block {
        /// Encoder or decoder.
        stack: Stack,
        /// Its number.
        layer: u16,
        /// The token.
        token: usize,
        /// The vector.
        x: &'s [f64],
    },
}

/// A sequence under way.
struct Run<'r, 's> {
    net: &'r Reference,
    adapted: bool,
    each: &'s mut dyn FnMut(Seen<'_>),
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
            let module = source.module.clone();
            Ok(Layer { module, inputs: m.cols, outputs: m.rows, weight: m.data, bias, added: vec![] })
        };
        let norm = |source: &hf::NormSource| -> Result<Norm> {
            let weight = checkpoint.vector(&source.weight, t.dim, "channel")?;
            let bias = source.bias.as_ref().map(|name| checkpoint.vector(name, t.dim, "channel")).transpose()?;
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
            tables: network.tables.iter().map(|s| Ok(hf::matrix(checkpoint, s)?)).collect::<Result<_>>()?,
            norms: network.norms.iter().map(norm).collect::<Result<_>>()?,
            rope: network.rope.clone(),
            relative,
        })
    }

    /// Runs one sequence; the output as [`sequences::run`](crate::sequences::run) orders it.
    pub fn run(&self, row: &Row<'_>, adapted: bool, each: &mut dyn FnMut(Seen<'_>)) -> Vec<f64> {
        let t = &self.t;
        let mut run = Run { net: self, adapted, each };
        let mut memory = None;
        if t.encoder > 0 {
            memory = Some(run.stack(Stack::Encoder, row, row.ids, row.valid, None));
        }
        let hidden = match (t.decoder > 0, memory) {
            (false, memory) => memory.unwrap_or_default(),
            (true, None) => run.stack(Stack::Decoder, row, row.ids, row.valid, None),
            (true, Some(memory)) => {
                let all = vec![true; row.decoder.len()];
                run.stack(Stack::Decoder, row, row.decoder, &all, Some((&memory, row.valid)))
            }
        };
        if t.pool == Pool::None {
            return hidden.iter().flat_map(|x| run.head(x)).collect();
        }
        let last = row.valid.iter().rposition(|&v| v).unwrap_or(0);
        let pooled = match t.pool {
            Pool::First => hidden[0].clone(),
            Pool::Last => {
                let by_pad = t.vocab > 0 && t.pad != NO_TOKEN;
                let at = if by_pad { row.ids.iter().rposition(|&id| id != t.pad).unwrap_or(0) } else { last };
                hidden[at].clone()
            }
            Pool::End => hidden[row.ids.iter().rposition(|&id| id == t.end).unwrap_or(last)].clone(),
            _ => {
                let counted = || hidden.iter().zip(row.valid).filter(|(_, v)| **v).map(|(x, _)| x);
                let n = counted().count() as f64;
                (0..t.dim).map(|c| counted().map(|x| x[c]).sum::<f64>() / n).collect()
            }
        };
        run.head(&pooled)
    }
}

impl Run<'_, '_> {
    fn linear(&mut self, site: u16, x: &[f64], counts: bool) -> Vec<f64> {
        let site = usize::from(site);
        let y = self.net.layers[site].forward(x, self.adapted);
        if counts {
            (self.each)(Seen::Linear { site, x, y: &y });
        }
        y
    }

    fn norm(&self, index: Option<u16>, x: &[f64]) -> Vec<f64> {
        index.map_or_else(|| x.to_vec(), |i| self.net.norms[usize::from(i)].forward(x))
    }

    fn head(&mut self, x: &[f64]) -> Vec<f64> {
        let (net, mut x) = (self.net, x.to_vec());
        if net.head == HeadKind::None {
            return x;
        }
        if let Some(site) = net.t.pooler_site() {
            x = self.linear(site, &x, true).into_iter().map(f64::tanh).collect();
        }
        self.linear(net.t.head_site(), &x, true)
    }

    fn embed(&mut self, row: &Row<'_>, ids: &[u32], valid: &[bool]) -> Vectors {
        let (net, t) = (self.net, &self.net.t);
        let table = |place: usize, index: usize| net.tables[place].iter_rows().nth(index).unwrap_or(&[]);
        let positions = usize::from(t.vocab > 0);
        let types = positions + usize::from(t.position == Position::Learned);
        (0..valid.len())
            .map(|i| {
                let mut x = if t.vocab > 0 {
                    table(0, ids[i] as usize).iter().map(|&v| f64::from(v)).collect()
                } else {
                    let width = row.features.len() / valid.len();
                    let given: Vec<f64> =
                        row.features[i * width..(i + 1) * width].iter().map(|&v| f64::from(v)).collect();
                    match t.input_site() {
                        Some(site) => self.linear(site, &given, valid[i]),
                        None => given,
                    }
                };
                let mut add = |row: &[f32]| x.iter_mut().zip(row).for_each(|(x, &v)| *x += f64::from(v));
                if t.position == Position::Learned {
                    add(table(positions, i));
                }
                if t.types > 0 {
                    add(table(types, row.types.get(i).map_or(0, |&k| usize::from(k))));
                }
                self.norm(t.embedding_norm(), &x)
            })
            .collect()
    }

    fn stack(
        &mut self,
        stack: Stack,
        row: &Row<'_>,
        ids: &[u32],
        valid: &[bool],
        memory: Option<(&Vectors, &[bool])>,
    ) -> Vectors {
        let t = &self.net.t;
        let pre = t.flags.has(Flags::PRE_NORM);
        let mut stream = self.embed(row, ids, valid);
        for layer in 0..t.blocks(stack) {
            let sites = t.block(stack, layer);
            self.add(&mut stream, pre, sites.attention_norm, |run, x| run.own(stack, layer, x, valid));
            if let (Some([q, k, v, o]), Some(norm), Some((memory, seen))) = (sites.cross, sites.cross_norm, memory) {
                self.add(&mut stream, pre, norm, |run, x| {
                    let each = |run: &mut Self, site, x: &Vectors, valid: &[bool]| -> Vectors {
                        x.iter().zip(valid).map(|(x, &v)| run.linear(site, x, v)).collect()
                    };
                    let (keys, values) = (each(run, k, memory, seen), each(run, v, memory, seen));
                    let queries = each(run, q, x, valid);
                    let heads = run.heads(&queries, &keys, &values, |_, j| seen[j], |_, _, _| 0.0);
                    each(run, o, &heads, valid)
                });
            }
            self.add(&mut stream, pre, sites.feed_norm, |run, x| {
                let feed = |(x, &valid): (&Vec<f64>, &bool)| {
                    let act = |x: f64| activate(run.net.t.activation, x);
                    let up = run.linear(sites.up, x, valid);
                    let inner: Vec<f64> = match sites.gate {
                        Some(gate) => run.linear(gate, x, valid).into_iter().zip(up).map(|(g, u)| act(g) * u).collect(),
                        None => up.into_iter().map(act).collect(),
                    };
                    run.linear(sites.down, &inner, valid)
                };
                x.iter().zip(valid).map(feed).collect()
            });
            for (token, (x, _)) in stream.iter().zip(valid).enumerate().filter(|(_, (_, v))| **v) {
                (self.each)(Seen::Block { stack, layer, token, x });
            }
        }
        let last = t.final_norm(stack);
        stream.iter().map(|x| self.norm(last, x)).collect()
    }

    /// A sub-layer, its norm and its residual.
    fn add(&mut self, stream: &mut Vectors, pre: bool, norm: u16, sub: impl FnOnce(&mut Self, &Vectors) -> Vectors) {
        let x: Vectors = stream.iter().map(|x| self.norm(pre.then_some(norm), x)).collect();
        let y = sub(self, &x);
        for (x, y) in stream.iter_mut().zip(y) {
            let sum: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            *x = self.norm((!pre).then_some(norm), &sum);
        }
    }

    /// Self-attention.
    fn own(&mut self, stack: Stack, layer: u16, x: &Vectors, valid: &[bool]) -> Vectors {
        let (net, t) = (self.net, &self.net.t);
        let sites = t.block(stack, layer);
        let (query, kv) = (t.query_width(), t.kv_width());
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (x, &valid) in x.iter().zip(valid) {
            match sites.key_value {
                Some([key, value]) => {
                    q.push(self.linear(sites.query, x, valid));
                    k.push(self.linear(key, x, valid));
                    v.push(self.linear(value, x, valid));
                }
                None => {
                    let all = self.linear(sites.query, x, valid);
                    q.push(all[..query].to_vec());
                    k.push(all[query..query + kv].to_vec());
                    v.push(all[query + kv..].to_vec());
                }
            }
        }
        if t.position == Position::Rotary {
            for (position, (q, k)) in q.iter_mut().zip(&mut k).enumerate() {
                rotate(q, t.head_dim, &net.rope, position);
                rotate(k, t.head_dim, &net.rope, position);
            }
        }
        let causal = stack == Stack::Decoder;
        let relative = net.relative[usize::from(causal)].as_ref();
        let bias = |head: usize, i: usize, j: usize| {
            let Some((table, source)) = relative else { return 0.0 };
            let row = source.buckets.get(usize::from(j > i)).unwrap_or(&source.buckets[0]);
            let bucket = usize::from(row[i.abs_diff(j).min(row.len() - 1)]);
            table.iter_rows().nth(bucket).map_or(0.0, |r| f64::from(r[head]))
        };
        let heads = self.heads(&q, &k, &v, |i, j| valid[j] && (!causal || j <= i), bias);
        heads.iter().zip(valid).map(|(x, &valid)| self.linear(sites.output, x, valid)).collect()
    }

    fn heads(
        &self,
        q: &Vectors,
        k: &Vectors,
        v: &Vectors,
        sees: impl Fn(usize, usize) -> bool,
        bias: impl Fn(usize, usize, usize) -> f64,
    ) -> Vectors {
        let t = &self.net.t;
        let (width, group, score) = (t.head_dim, t.heads / t.kv_heads, t.score.to_f64());
        let of = |i: usize, q: &Vec<f64>| -> Vec<f64> {
            let seen: Vec<usize> = (0..k.len()).filter(|&j| sees(i, j)).collect();
            (0..t.heads)
                .flat_map(|head| {
                    let (own, shared) =
                        (head * width..(head + 1) * width, head / group * width..(head / group + 1) * width);
                    let product = |j: &usize| -> f64 {
                        let dot: f64 = q[own.clone()].iter().zip(&k[*j][shared.clone()]).map(|(a, b)| a * b).sum();
                        score * dot + bias(head, i, *j)
                    };
                    let scores: Vec<f64> = seen.iter().map(product).collect();
                    let values: Vec<&[f64]> = seen.iter().map(|&j| &v[j][shared.clone()]).collect();
                    attend(&scores, &values, width)
                })
                .collect()
        };
        q.iter().enumerate().map(|(i, q)| of(i, q)).collect()
    }
}
