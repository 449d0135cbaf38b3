//! A transformer block put together by hand: `cargo run --example lora_block`.
//!
//! The classical "LoRA transformer block", as it is written in PyTorch: queries and values come from linear layers with a
//! low-rank adapter on them and feed `nn.MultiheadAttention`'s heads; then a residual and a layer norm, a feed-forward of four
//! times the width with ReLU, a residual and a layer norm.
//!
//! ```text
//! y = norm(x + O · heads(Q x + s B_q A_q x,  K x,  V x + s B_v A_v x))
//! z = norm(y + down · relu(up · y))
//! ```
//!
//! The layers are the crate's, in integers; the same block in `f64`, below, says how far they are from it. A network that an
//! image describes needs none of this: `Model::encode` runs it. This is for those who build something else.

use ranklet::fixed::block::requantize;
use ranklet::fixed::{Block, Exp, Real, Tile, TileMut};
use ranklet::kernel::Weights;
use ranklet::layer::attention::{self, KeyValue, Rows, Visible};
use ranklet::layer::linear::{self, Extras};
use ranklet::layer::{Activation, Attention, Linear, Lora, Norm, NormKind, ShapeError, Vector, residual};

fn main() -> Result<(), ShapeError> {
    for (dim, heads) in [(512, 8), (10, 2)] {
        let (tokens, rank) = (12, 4);
        let block = LoraBlock::new(dim, heads, rank, &mut Draw(7));
        let x: Vec<f64> = (0..tokens * dim)
            .map({
                let mut d = Draw(8);
                move |_| d.uniform()
            })
            .collect();
        let x = Vectors::of(&x, dim);

        let with = block.forward(&x, true)?;
        let without = block.forward(&x, false)?;
        let (exact, exact_without) = (block.exact(&x.values(), true), block.exact(&x.values(), false));
        let effect = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let error = distance(&with.values(), &exact);
        let ours = effect(&with.values(), &without.values());
        let theirs = effect(&exact, &exact_without);
        println!(
            "embed {dim}, {heads} heads, {tokens} tokens, r = {rank}: off by {error:.1e}; \
             the adapters change {:.0} % of the output, off by {:.1e} of that",
            100.0 * norm(&theirs) / norm(&exact),
            distance(&ours, &theirs),
        );
        assert!(error < 1e-3 && distance(&ours, &theirs) < 5e-3);
    }
    Ok(())
}

/// Weights as they lie in flash: 16 bits, and a scale a row.
struct Flash {
    weights: Vec<i16>,
    scales: Vec<u16>,
    exponent: i16,
    bias: Vec<i32>,
    inputs: usize,
    activation: Activation,
}

/// Exponent of all biases: 1 is 2^24.
const BIAS: i16 = -24;

impl Flash {
    /// Uniform within ±1/√inputs, as `nn.Linear` starts.
    fn new(inputs: usize, outputs: usize, activation: Activation, d: &mut Draw) -> Flash {
        let bound = 1.0 / (inputs as f64).sqrt();
        // One scale for all rows: a converter would give each its own.
        let exponent = bound.log2().ceil() as i16 - 30;
        let unit = f64::from(exponent).exp2() * 32768.0;
        Flash {
            weights: (0..inputs * outputs).map(|_| (bound * d.uniform() / unit).round() as i16).collect(),
            scales: vec![32768; outputs],
            exponent,
            bias: (0..outputs).map(|_| (bound * d.uniform() * f64::from(-BIAS).exp2()) as i32).collect(),
            inputs,
            activation,
        }
    }

    fn layer(&self) -> Linear<'_> {
        Linear {
            weights: Weights::I16(&self.weights),
            inputs: self.inputs,
            outputs: self.scales.len(),
            scales: &self.scales,
            exponent: self.exponent,
            bias: Some(Vector { mantissas: &self.bias, exponent: BIAS }),
            activation: self.activation,
        }
    }
}

/// A and B as they lie in RAM.
struct Pair {
    rank: usize,
    a: Vec<i16>,
    b: Vec<i16>,
}

/// Exponent of A and of B: they lie within ±2^-2.
const PAIR: Exp = Exp(-17);

impl Pair {
    fn new(inputs: usize, outputs: usize, rank: usize, d: &mut Draw) -> Pair {
        let mut draw = |n: usize| (0..n).map(|_| (32_000.0 * d.uniform()) as i16).collect();
        Pair { rank, a: draw(rank * inputs), b: draw(outputs * rank) }
    }

    fn lora(&self) -> Lora<'_> {
        Lora {
            rank: self.rank,
            a: &self.a,
            a_exponent: PAIR,
            b: &self.b,
            b_exponent: PAIR,
            scaling: Real::int(2), // alpha = 2 r
            dropout: None,
            extras: Extras::NONE,
        }
    }
}

/// Token vectors, each under its own exponent.
#[derive(Clone)]
struct Vectors {
    mantissas: Vec<i16>,
    exponents: Vec<Exp>,
}

impl Vectors {
    fn zeros(tokens: usize, width: usize) -> Vectors {
        Vectors { mantissas: vec![0; tokens * width], exponents: vec![Exp::ZERO; tokens] }
    }

    /// Each vector rounded to 16 bits.
    fn of(values: &[f64], width: usize) -> Vectors {
        let mut out = Vectors::zeros(values.len() / width, width);
        let rows = values.chunks(width).zip(out.mantissas.chunks_mut(width)).zip(&mut out.exponents);
        for ((row, m), e) in rows {
            let exact: Vec<i64> = row.iter().map(|v| (v * 40_f64.exp2()) as i64).collect();
            *e = requantize(&exact, -40, m);
        }
        out
    }

    fn tile(&self) -> Tile<'_> {
        Tile { mantissas: &self.mantissas, exponents: &self.exponents }
    }

    fn tile_mut(&mut self) -> TileMut<'_> {
        TileMut { mantissas: &mut self.mantissas, exponents: &mut self.exponents }
    }

    fn values(&self) -> Vec<f64> {
        let width = self.mantissas.len() / self.exponents.len();
        let value = |(i, &m): (usize, &i16)| f64::from(m) * f64::from(self.exponents[i / width].get()).exp2();
        self.mantissas.iter().enumerate().map(value).collect()
    }
}

struct LoraBlock {
    dim: usize,
    heads: usize,
    /// Queries, keys, values, output, up, down.
    layers: [Flash; 6],
    /// On queries and on values.
    pairs: [Pair; 2],
    /// γ of both norms; β is left out.
    gamma: Vec<i32>,
}

/// Exponent of γ.
const GAMMA: i16 = -30;

impl LoraBlock {
    fn new(dim: usize, heads: usize, rank: usize, d: &mut Draw) -> LoraBlock {
        let mut layer = |inputs, outputs, act| Flash::new(inputs, outputs, act, d);
        let [q, k, v, o] = [(); 4].map(|()| layer(dim, dim, Activation::None));
        let (up, down) = (layer(dim, 4 * dim, Activation::Relu), layer(4 * dim, dim, Activation::None));
        LoraBlock {
            dim,
            heads,
            layers: [q, k, v, o, up, down],
            pairs: [(); 2].map(|()| Pair::new(dim, dim, rank, d)),
            gamma: (0..dim).map(|_| ((1.0 + 0.2 * d.uniform()) * 30_f64.exp2()) as i32).collect(),
        }
    }

    /// One linear layer for all tokens.
    fn linear(&self, index: usize, x: &Vectors, pair: Option<&Pair>) -> Result<Vectors, ShapeError> {
        let (layer, tokens) = (self.layers[index].layer(), x.exponents.len());
        let mut y = Vectors::zeros(tokens, layer.outputs);
        let mut acc = vec![0; Linear::acc_len(layer.inputs, layer.outputs, tokens)];
        let mut scratch = linear::Scratch { acc: &mut acc, vector: &mut [], rank: &mut [], masked: &mut [] };
        layer.forward(x.tile(), pair.map(Pair::lora).into_iter(), y.tile_mut(), &mut scratch)?;
        Ok(y)
    }

    /// Attention looks at one head at a time: (tokens, heads · width) becomes (heads, tokens, width).
    fn by_head(&self, x: &Vectors) -> Vectors {
        let (tokens, width) = (x.exponents.len(), self.dim / self.heads);
        let rows = (0..self.heads).flat_map(|h| (0..tokens).map(move |t| (t * self.heads + h) * width));
        Vectors {
            mantissas: rows.flat_map(|at| x.mantissas[at..at + width].to_vec()).collect(),
            exponents: x.exponents.repeat(self.heads),
        }
    }

    fn attend(&self, q: &Vectors, k: &Vectors, v: &Vectors) -> Result<Vectors, ShapeError> {
        let (tokens, width) = (q.exponents.len(), self.dim / self.heads);
        let (k, v) = (self.by_head(k), self.by_head(v));
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: width,
            score: Real::int(width as i64).rsqrt(),
            relative: None,
        };
        let (mut scores, mut weights) = (vec![0; tokens], vec![0; tokens]);
        let (mut acc, mut exponents) = (vec![0; self.dim], vec![0; self.heads]);
        let mut out = Vectors::zeros(tokens, self.dim);
        for (t, (m, e)) in out.mantissas.chunks_mut(self.dim).zip(&mut out.exponents).enumerate() {
            let kv = |h: usize| {
                let (rows, row) = (h * tokens * width..(h + 1) * tokens * width, h * tokens..(h + 1) * tokens);
                KeyValue {
                    keys: Rows::I16(&k.mantissas[rows.clone()]),
                    key_exponents: &k.exponents[row.clone()],
                    values: Rows::I16(&v.mantissas[rows]),
                    value_exponents: &v.exponents[row],
                }
            };
            // The "tokens" of this tile are the heads of one query.
            let own = vec![q.exponents[t]; self.heads];
            let q = Tile { mantissas: &q.mantissas[t * self.dim..(t + 1) * self.dim], exponents: &own };
            let mut scratch = attention::Scratch {
                scores: &mut scores,
                weights: &mut weights,
                acc: &mut acc,
                exponents: &mut exponents,
            };
            let visible = Visible { keys: tokens, valid: None };
            *e = attention.forward(q, t, kv, visible, m, &mut scratch)?;
        }
        Ok(out)
    }

    /// `norm(x + y)`.
    fn add_and_norm(&self, x: &Vectors, y: &Vectors) -> Result<Vectors, ShapeError> {
        let norm = Norm {
            kind: NormKind::Layer,
            weight: Vector { mantissas: &self.gamma, exponent: GAMMA },
            bias: None,
            epsilon: Real::ratio(1, 100_000),
        };
        let mut out = x.clone();
        let mut row = vec![0; self.dim];
        for (i, y) in y.tile().blocks().enumerate() {
            let m = &mut out.mantissas[i * self.dim..(i + 1) * self.dim];
            let e = &mut out.exponents[i];
            // The residual stream as one block: exact sum into accumulators, from which the norm reads.
            let stream = residual::Mantissas::Narrow(m);
            let exponent =
                residual::StreamMut { mantissas: stream, exponents: core::slice::from_mut(e), dim: self.dim }.sum(
                    0,
                    Block { ..y },
                    &mut row,
                );
            *e = norm.forward(&mut row, exponent, &mut out.mantissas[i * self.dim..(i + 1) * self.dim])?;
        }
        Ok(out)
    }

    fn forward(&self, x: &Vectors, adapted: bool) -> Result<Vectors, ShapeError> {
        let [on_q, on_v] = self.pairs.each_ref().map(|p| adapted.then_some(p));
        let (q, k, v) = (self.linear(0, x, on_q)?, self.linear(1, x, None)?, self.linear(2, x, on_v)?);
        let heads = self.attend(&q, &k, &v)?;
        let y = self.add_and_norm(x, &self.linear(3, &heads, None)?)?;
        let inner = self.linear(4, &y, None)?;
        self.add_and_norm(&y, &self.linear(5, &inner, None)?)
    }

    /// The same in `f64`, from the very weights that the integers use.
    fn exact(&self, x: &[f64], adapted: bool) -> Vec<f64> {
        let dim = self.dim;
        let linear = |index: usize, x: &[f64], pair: Option<&Pair>| -> Vec<f64> {
            let f = &self.layers[index];
            let unit = 32768.0 * f64::from(f.exponent).exp2();
            let weight: Vec<f64> = f.weights.iter().map(|&w| f64::from(w) * unit).collect();
            let small = f64::from(PAIR.get()).exp2();
            let row = |x: &[f64]| -> Vec<f64> {
                let u: Vec<f64> = pair.map_or(vec![], |p| {
                    p.a.chunks(f.inputs).map(|a| dot(a.iter().map(|&a| f64::from(a) * small), x)).collect()
                });
                let each = weight.chunks(f.inputs).zip(&f.bias).enumerate();
                let sum = each.map(|(o, (w, &b))| {
                    let b = f64::from(b) * f64::from(BIAS).exp2();
                    let added = pair.map_or(0.0, |p| {
                        2.0 * dot(p.b[o * p.rank..(o + 1) * p.rank].iter().map(|&b| f64::from(b) * small), &u)
                    });
                    dot(w.iter().copied(), x) + b + added
                });
                sum.map(|v| if f.activation == Activation::Relu { v.max(0.0) } else { v }).collect()
            };
            x.chunks(f.inputs).flat_map(row).collect()
        };
        let add_and_norm = |x: &[f64], y: &[f64]| -> Vec<f64> {
            let sum: Vec<f64> = x.iter().zip(y).map(|(x, y)| x + y).collect();
            let row = |s: &[f64]| -> Vec<f64> {
                let mean = s.iter().sum::<f64>() / dim as f64;
                let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / dim as f64;
                let gamma = self.gamma.iter().map(|&g| f64::from(g) * f64::from(GAMMA).exp2());
                s.iter().zip(gamma).map(|(v, g)| (v - mean) / (variance + 1e-5).sqrt() * g).collect()
            };
            sum.chunks(dim).flat_map(row).collect()
        };
        let [on_q, on_v] = self.pairs.each_ref().map(|p| adapted.then_some(p));
        let (q, k, v) = (linear(0, x, on_q), linear(1, x, None), linear(2, x, on_v));
        let width = dim / self.heads;
        let mut heads = vec![0.0; x.len()];
        for t in 0..x.len() / dim {
            for h in 0..self.heads {
                let part = |m: &[f64], t: usize| m[t * dim + h * width..t * dim + (h + 1) * width].to_vec();
                let query = part(&q, t);
                let score = |s: usize| dot(part(&k, s).into_iter(), &query) / (width as f64).sqrt();
                let p: Vec<f64> = (0..x.len() / dim).map(|s| score(s).exp()).collect();
                for (s, p_s) in p.iter().enumerate() {
                    for (o, v) in heads[t * dim + h * width..].iter_mut().zip(part(&v, s)) {
                        *o += p_s / p.iter().sum::<f64>() * v;
                    }
                }
            }
        }
        let y = add_and_norm(x, &linear(3, &heads, None));
        add_and_norm(&y, &linear(5, &linear(4, &y, None), None))
    }
}

fn dot(a: impl Iterator<Item = f64>, b: &[f64]) -> f64 {
    a.zip(b).map(|(a, b)| a * b).sum()
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Relative L2.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    norm(&found.iter().zip(expected).map(|(f, e)| f - e).collect::<Vec<f64>>()) / norm(expected)
}

/// Draws, always the same.
struct Draw(u64);

impl Draw {
    /// Within ±1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / 52_f64.exp2() - 1.0
    }
}
