//! A tape: what was computed, in order, so that it can be walked back.
//!
//! Every node is a matrix (rows, columns), in a sequence (tokens, channels). Each operation has its forward, which puts a node
//! on the tape, and its backward, a match arm of [`Tape::backward`], beside each other in the order of this file.

use super::gradients::Gradients;
use super::layers::{Layer, Norm, activate, rotate, slope};
use super::scalar::{Scalar, add, dot};
use ranklet::layer::Activation;
use std::ops::Range;

/// A node of the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// Heads of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Of queries.
    pub heads: usize,
    /// Of queries that share a head of keys and values.
    pub group: usize,
    /// Width of a head.
    pub width: usize,
    /// What q · k is multiplied by.
    pub score: f64,
}

impl Heads {
    fn own(&self, head: usize) -> Range<usize> {
        head * self.width..(head + 1) * self.width
    }

    fn shared(&self, head: usize) -> Range<usize> {
        self.own(head / self.group)
    }
}

enum Op<S> {
    Given,
    Linear {
        x: Var,
        site: usize,
        adapted: bool,
    },
    Norm {
        x: Var,
        index: usize,
    },
    Sum(Var, Var),
    Product(Var, Var),
    Activation(Var, Activation),
    Columns {
        x: Var,
        start: usize,
    },
    Rotated {
        x: Var,
        width: usize,
    },
    /// Probabilities: (heads, queries, keys).
    Attention {
        q: Var,
        k: Var,
        v: Var,
        heads: Heads,
        p: Vec<S>,
    },
    /// Weights of the rows of x.
    Mean {
        x: Var,
        weights: Vec<S>,
    },
}

struct Node<S> {
    columns: usize,
    value: Vec<S>,
    op: Op<S>,
}

/// What was computed by the layers and norms of a network.
pub struct Tape<'r, S> {
    layers: &'r [Layer<S>],
    norms: &'r [Norm<S>],
    turns: &'r [u32],
    nodes: Vec<Node<S>>,
}

impl<S> std::fmt::Debug for Tape<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl<'r, S: Scalar> Tape<'r, S> {
    /// Empty. `turns`: the angle a position of each rotary frequency, in 2^-32 turns.
    #[must_use]
    pub const fn new(layers: &'r [Layer<S>], norms: &'r [Norm<S>], turns: &'r [u32]) -> Tape<'r, S> {
        Tape { layers, norms, turns, nodes: vec![] }
    }

    /// How many values it keeps.
    #[must_use]
    pub fn values(&self) -> usize {
        self.nodes.iter().map(|node| node.value.len()).sum()
    }

    /// The values of a node, row after row.
    #[must_use]
    pub fn value(&self, x: Var) -> &[S] {
        &self.nodes[x.0].value
    }

    /// Row `row` of a node.
    #[must_use]
    pub fn row(&self, x: Var, row: usize) -> &[S] {
        let columns = self.nodes[x.0].columns;
        &self.nodes[x.0].value[row * columns..(row + 1) * columns]
    }

    fn rows(&self, x: Var) -> std::slice::ChunksExact<'_, S> {
        self.nodes[x.0].value.chunks_exact(self.nodes[x.0].columns)
    }

    fn push(&mut self, columns: usize, value: Vec<S>, op: Op<S>) -> Var {
        self.nodes.push(Node { columns, value, op });
        Var(self.nodes.len() - 1)
    }

    fn like(&mut self, x: Var, value: Vec<S>, op: Op<S>) -> Var {
        self.push(self.nodes[x.0].columns, value, op)
    }

    /// What does not depend on anything that learns.
    pub fn given(&mut self, columns: usize, value: Vec<S>) -> Var {
        self.push(columns, value, Op::Given)
    }

    /// Layer `site` of every row.
    pub fn linear(&mut self, site: usize, x: Var, adapted: bool) -> Var {
        let layer = &self.layers[site];
        let y = self.rows(x).flat_map(|x| layer.forward(x, adapted)).collect();
        self.push(layer.outputs, y, Op::Linear { x, site, adapted })
    }

    /// Norm `index` of every row.
    pub fn norm(&mut self, index: usize, x: Var) -> Var {
        let norm = &self.norms[index];
        let mut y = vec![];
        for x in self.rows(x) {
            let scaled = norm.standard(x).0.into_iter().zip(&norm.weight).map(|(v, &w)| v * w);
            match &norm.bias {
                Some(bias) => y.extend(scaled.zip(bias).map(|(v, &b)| v + b)),
                None => y.extend(scaled),
            }
        }
        self.like(x, y, Op::Norm { x, index })
    }

    /// x + y.
    pub fn sum(&mut self, x: Var, y: Var) -> Var {
        let sum = self.value(x).iter().zip(self.value(y)).map(|(&x, &y)| x + y).collect();
        self.like(x, sum, Op::Sum(x, y))
    }

    /// x ⊙ y.
    pub fn product(&mut self, x: Var, y: Var) -> Var {
        let product = self.value(x).iter().zip(self.value(y)).map(|(&x, &y)| x * y).collect();
        self.like(x, product, Op::Product(x, y))
    }

    /// An activation of every value.
    pub fn activation(&mut self, activation: Activation, x: Var) -> Var {
        let y = self.value(x).iter().map(|&x| S::of(activate(activation, x.wide()))).collect();
        self.like(x, y, Op::Activation(x, activation))
    }

    /// Some of the columns.
    pub fn columns(&mut self, x: Var, range: Range<usize>) -> Var {
        let y = self.rows(x).flat_map(|row| row[range.clone()].to_vec()).collect();
        self.push(range.len(), y, Op::Columns { x, start: range.start })
    }

    /// Every row turned by its position, head by head.
    pub fn rotated(&mut self, x: Var, width: usize) -> Var {
        let (mut y, columns) = (self.value(x).to_vec(), self.nodes[x.0].columns);
        for (position, row) in y.chunks_exact_mut(columns).enumerate() {
            rotate(row, width, self.turns, position, false);
        }
        self.like(x, y, Op::Rotated { x, width })
    }

    /// Attention: `sees` says which key a query may look at, `bias` what is added to a score (of a head, by the two places).
    pub fn attention(
        &mut self,
        [q, k, v]: [Var; 3],
        heads: Heads,
        sees: impl Fn(usize, usize) -> bool,
        bias: impl Fn(usize, usize, usize) -> f64,
    ) -> Var {
        let (queries, keys) = (self.rows(q).len(), self.rows(k).len());
        let mut p = vec![S::ZERO; heads.heads * queries * keys];
        let mut y = vec![S::ZERO; queries * heads.heads * heads.width];
        for head in 0..heads.heads {
            for i in 0..queries {
                let at = (head * queries + i) * keys;
                let p = &mut p[at..at + keys];
                let seen: Vec<usize> = (0..keys).filter(|&j| sees(i, j)).collect();
                let own = &self.row(q, i)[heads.own(head)];
                let score = |j: usize| {
                    let product = dot(own, &self.row(k, j)[heads.shared(head)]);
                    S::of(heads.score) * product + S::of(bias(head, i, j))
                };
                seen.iter().for_each(|&j| p[j] = score(j));
                let max = seen.iter().map(|&j| p[j]).reduce(S::larger).unwrap_or(S::ZERO);
                seen.iter().for_each(|&j| p[j] = (p[j] - max).exponential());
                let sum: S = seen.iter().map(|&j| p[j]).sum();
                seen.iter().for_each(|&j| p[j] = p[j] / sum);
                let start = i * heads.heads * heads.width;
                let out = heads.own(head);
                let out = &mut y[start + out.start..start + out.end];
                seen.iter().for_each(|&j| add(out, p[j], &self.row(v, j)[heads.shared(head)]));
            }
        }
        self.push(heads.heads * heads.width, y, Op::Attention { q, k, v, heads, p })
    }

    /// A weighted mean of the rows, as one row.
    pub fn mean(&mut self, x: Var, weights: Vec<S>) -> Var {
        let mut y = vec![S::ZERO; self.nodes[x.0].columns];
        self.rows(x).zip(&weights).for_each(|(row, &w)| add(&mut y, w, row));
        self.like(x, y, Op::Mean { x, weights })
    }

    /// From `dL/dy`: the gradients of what learns, added to `to`.
    pub fn backward(&self, y: Var, dy: &[S], to: &mut Gradients<S>) {
        let mut gradients: Vec<Vec<S>> = vec![vec![]; y.0 + 1];
        gradients[y.0] = dy.to_vec();
        for (at, node) in self.nodes.iter().enumerate().take(y.0 + 1).rev() {
            let dy = std::mem::take(&mut gradients[at]);
            if dy.is_empty() {
                continue;
            }
            let mut give = |x: Var, dx: &[S]| {
                let sum = &mut gradients[x.0];
                sum.resize(dx.len(), S::ZERO);
                add(sum, S::ONE, dx);
            };
            let rows = || dy.chunks_exact(node.columns);
            match &node.op {
                Op::Given => {}
                &Op::Linear { x, site, adapted } => {
                    let layer = &self.layers[site];
                    let of = |(x, dy)| to.layer(site, layer, x, dy, adapted);
                    give(x, &self.rows(x).zip(rows()).flat_map(of).collect::<Vec<_>>());
                }
                &Op::Norm { x, index } => {
                    let norm = &self.norms[index];
                    let of = |(x, dy)| to.norm(index, norm, x, dy);
                    give(x, &self.rows(x).zip(rows()).flat_map(of).collect::<Vec<_>>());
                }
                &Op::Sum(x, y) => [x, y].into_iter().for_each(|v| give(v, &dy)),
                &Op::Product(x, y) => {
                    for (x, y) in [(x, y), (y, x)] {
                        give(x, &dy.iter().zip(self.value(y)).map(|(&d, &y)| d * y).collect::<Vec<_>>());
                    }
                }
                &Op::Activation(x, activation) => {
                    let slope = |(&d, &x): (&S, &S)| d * S::of(slope(activation, x.wide()));
                    give(x, &dy.iter().zip(self.value(x)).map(slope).collect::<Vec<_>>());
                }
                &Op::Columns { x, start } => {
                    let width = self.nodes[x.0].columns;
                    let mut dx = vec![S::ZERO; self.value(x).len()];
                    for (dx, dy) in dx.chunks_exact_mut(width).zip(rows()) {
                        dx[start..start + dy.len()].copy_from_slice(dy);
                    }
                    give(x, &dx);
                }
                &Op::Rotated { x, width } => {
                    let mut dx = dy.clone();
                    for (position, row) in dx.chunks_exact_mut(node.columns).enumerate() {
                        rotate(row, width, self.turns, position, true);
                    }
                    give(x, &dx);
                }
                Op::Attention { q, k, v, heads, p } => {
                    let gradients = self.attention_backward([*q, *k, *v], heads, p, &dy);
                    [*q, *k, *v].into_iter().zip(gradients).for_each(|(x, dx)| give(x, &dx));
                }
                Op::Mean { x, weights } => {
                    let row = |&w: &S| dy.iter().map(move |&d| w * d);
                    give(*x, &weights.iter().flat_map(row).collect::<Vec<_>>());
                }
            }
        }
    }

    /// With `ds = p (dp − Σ p dp)`: `dq = s ds k`, `dk = s dsᵀ q`, `dv = pᵀ dy`.
    fn attention_backward(&self, [q, k, v]: [Var; 3], heads: &Heads, p: &[S], dy: &[S]) -> [Vec<S>; 3] {
        let mut d = [q, k, v].map(|x| vec![S::ZERO; self.value(x).len()]);
        let [dq, dk, dv] = &mut d;
        let (queries, keys) = (self.rows(q).len(), self.rows(k).len());
        let widths = [q, k].map(|x| self.nodes[x.0].columns);
        let score = S::of(heads.score);
        for head in 0..heads.heads {
            let at = |row: usize, width: usize, part: Range<usize>| row * width + part.start..row * width + part.end;
            for i in 0..queries {
                let p = &p[(head * queries + i) * keys..][..keys];
                let own = at(i, widths[0], heads.own(head));
                let dy = &dy[own.clone()];
                let dp: Vec<S> = (0..keys).map(|j| dot(dy, &self.row(v, j)[heads.shared(head)])).collect();
                let mean = dot(p, &dp);
                for j in (0..keys).filter(|&j| p[j] > S::ZERO) {
                    let shared = at(j, widths[1], heads.shared(head));
                    add(&mut dv[shared.clone()], p[j], dy);
                    let ds = score * p[j] * (dp[j] - mean);
                    add(&mut dq[own.clone()], ds, &self.value(k)[shared.clone()]);
                    add(&mut dk[shared], ds, &self.value(q)[own.clone()]);
                }
            }
        }
        d
    }
}
