//! Layers on tiles of many tokens: a token's bits do not depend on its neighbours, nor on how the tokens are split over
//! calls; and the gradients of a tile are those of the float definition.

use proptest::prelude::*;
use ranklet::fixed::block::requantize;
use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real, Tile, TileMut};
use ranklet::layer::gradient::{GradScale, Gradient, TILE};
use ranklet::layer::linear::{LoraGradient, Scratch};
use ranklet::layer::{Activation, Dropout, Linear, Lora};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::adapter::high_pairs;
use ranklet_host_tests::fixture::base::power;
use ranklet_host_tests::fixture::{AdapterFixture, Fixture, relative_l2};
use ranklet_host_tests::tolerance::GRADIENT_DEQUANTIZED;
use std::ops::Range;

/// Token vectors of one width.
#[derive(Clone, Debug, PartialEq)]
struct Tokens {
    width: usize,
    mantissas: Vec<i16>,
    exponents: Vec<Exp>,
}

impl Tokens {
    fn empty(tokens: usize, width: usize) -> Tokens {
        Tokens { width, mantissas: vec![0x55; tokens * width], exponents: vec![Exp(7); tokens] }
    }

    /// Normal values; tokens lie octaves apart, and one in eight is zero.
    fn random(tokens: usize, width: usize, octaves: i32, d: &mut Draw) -> Tokens {
        let mut all = Tokens::empty(tokens, width);
        for (m, e) in all.mantissas.chunks_exact_mut(width).zip(&mut all.exponents) {
            let zero = d.below(8) == 0;
            let value = |d: &mut Draw| if zero { 0 } else { (f64::from(1 << 20) * d.normal()) as i64 };
            let values: Vec<i64> = (0..width).map(|_| value(d)).collect();
            *e = requantize(&values, -20 + (f64::from(octaves) * d.uniform()) as i32, m);
        }
        all
    }

    fn tile(&self) -> Tile<'_> {
        Tile { mantissas: &self.mantissas, exponents: &self.exponents }
    }

    fn tile_mut(&mut self) -> TileMut<'_> {
        TileMut { mantissas: &mut self.mantissas, exponents: &mut self.exponents }
    }

    fn part(&self, tokens: Range<usize>) -> Tokens {
        let mantissas = self.mantissas[tokens.start * self.width..tokens.end * self.width].to_vec();
        Tokens { width: self.width, mantissas, exponents: self.exponents[tokens].to_vec() }
    }

    fn join(parts: impl IntoIterator<Item = Tokens>) -> Tokens {
        let mut all = Tokens { width: 0, mantissas: vec![], exponents: vec![] };
        for p in parts {
            all.width = p.width;
            all.mantissas.extend(p.mantissas);
            all.exponents.extend(p.exponents);
        }
        all
    }

    /// One vector a token.
    fn values(&self) -> Vec<Vec<f64>> {
        let value = |m: i16, e: Exp| if e == Exp::ZERO { 0.0 } else { f64::from(m) * power(e.get()) };
        let rows = self.mantissas.chunks_exact(self.width).zip(&self.exponents);
        rows.map(|(row, &e)| row.iter().map(|&m| value(m, e)).collect()).collect()
    }
}

/// Buffers for any call below, full of garbage: contents mean nothing.
struct Buffers {
    acc: Vec<i64>,
    vector: Vec<i16>,
    rank: Vec<i16>,
    masked: Vec<i16>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { acc: vec![-7; 1 << 12], vector: vec![-7; 1 << 8], rank: vec![-7; 1 << 11], masked: vec![-7; 1 << 12] }
    }

    fn scratch(&mut self) -> Scratch<'_> {
        Scratch { acc: &mut self.acc, vector: &mut self.vector, rank: &mut self.rank, masked: &mut self.masked }
    }
}

/// The adapter as it stands for tokens from number `first` on.
fn from<'l>(lora: Lora<'l>, inputs: usize, first: usize) -> Lora<'l> {
    Lora { dropout: lora.dropout.map(|d| d.starting_at(first * inputs)), ..lora }
}

fn forward(linear: &Linear<'_>, x: &Tokens, loras: &[Lora<'_>], first: usize) -> Tokens {
    let mut y = Tokens::empty(x.exponents.len(), linear.outputs);
    let loras = loras.iter().map(|&l| from(l, linear.inputs, first));
    linear.forward(x.tile(), loras, y.tile_mut(), &mut Buffers::new().scratch()).expect("sizes that fit");
    y
}

/// dA and dB, and how they are scaled.
#[derive(Clone, Debug, PartialEq)]
struct Gradients {
    a: (Vec<i32>, GradScale),
    b: (Vec<i32>, GradScale),
}

impl Gradients {
    fn empty(lora: &Lora<'_>) -> Gradients {
        Gradients { a: (vec![0; lora.a.len()], GradScale::EMPTY), b: (vec![0; lora.b.len()], GradScale::EMPTY) }
    }

    fn values((values, scale): &(Vec<i32>, GradScale)) -> Vec<f64> {
        values.iter().map(|&v| f64::from(v) * power(scale.exponent())).collect()
    }
}

fn backward(
    linear: &Linear<'_>,
    x: &Tokens,
    dy: &Tokens,
    lora: Lora<'_>,
    first: usize,
    g: Option<&mut Gradients>,
) -> Tokens {
    let mut dx = Tokens::empty(x.exponents.len(), linear.inputs);
    let lora = from(lora, linear.inputs, first);
    let gradient = g.map(|g| LoraGradient {
        a: Some(Gradient { values: &mut g.a.0, scale: &mut g.a.1 }),
        b: Some(Gradient { values: &mut g.b.0, scale: &mut g.b.1 }),
    });
    linear
        .backward(
            x.tile(),
            dy.tile(),
            std::iter::once(lora),
            gradient,
            Some(dx.tile_mut()),
            &mut Buffers::new().scratch(),
        )
        .expect("sizes that fit");
    dx
}

/// A layer with an adapter and tokens for it.
#[derive(Clone, Debug)]
struct Setup {
    inputs: usize,
    outputs: usize,
    rank: usize,
    to: WeightType,
    tokens: usize,
    dropout: bool,
    seed: u64,
}

fn setups() -> impl Strategy<Value = Setup> {
    let types = prop::sample::select(vec![WeightType::I8, WeightType::I16, WeightType::I4]);
    (1_usize..40, 1_usize..40, 1_usize..9, types, 1_usize..21, any::<bool>(), any::<u64>()).prop_map(
        |(inputs, outputs, rank, to, tokens, dropout, seed)| Setup { inputs, outputs, rank, to, tokens, dropout, seed },
    )
}

/// What a test is given: the layer (with a ReLU), two adapters, x and dy.
type Test<'t> = &'t dyn Fn(&Linear<'_>, [Lora<'_>; 2], &Tokens, &Tokens);

fn with(s: &Setup, test: Test<'_>) {
    // Of two layers the first has the activation.
    let fixture = Fixture::random(&[s.inputs, s.outputs, 2], s.to, s.seed);
    let model = fixture.model();
    let images = [1, 2].map(|n| AdapterFixture::random(&model, s.rank, 0.5, 2.0, s.seed.wrapping_add(n)));
    let loras = images.each_ref().map(|i| i.open(&model).view().lora(0).expect("a pair on every layer"));
    let dropout = s.dropout.then(|| Dropout::new(Real::ratio(3, 10), Seed(9), 4, 0)).flatten();
    let mut d = Draw::new(s.seed ^ 0xABCD);
    let x = Tokens::random(s.tokens, s.inputs, 9, &mut d);
    let dy = Tokens::random(s.tokens, s.outputs, 9, &mut d);
    test(&model.linear(0), loras.map(|l| Lora { dropout, ..l }), &x, &dy);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_do_not_see_each_other(s in setups()) {
        with(&s, &|linear, loras, x, dy| {
            let each = || (0..s.tokens).map(|t| (t, x.part(t..t + 1), dy.part(t..t + 1)));
            let one = each().map(|(t, x, _)| forward(linear, &x, &loras, t));
            assert_eq!(forward(linear, x, &loras, 0), Tokens::join(one), "forward");
            let one = each().map(|(t, x, dy)| backward(linear, &x, &dy, loras[0], t, None));
            assert_eq!(backward(linear, x, dy, loras[0], 0, None), Tokens::join(one), "dx");

            let y = forward(linear, x, &loras, 0);
            let mut masked = dy.clone();
            Activation::Relu.backward(y.tile(), &mut masked.tile_mut());
            let one = each().map(|(t, _, mut dy)| {
                Activation::Relu.backward(y.part(t..t + 1).tile(), &mut dy.tile_mut());
                dy
            });
            assert_eq!(masked, Tokens::join(one), "activation");
            for ((d, before), y) in masked.values().concat().into_iter().zip(dy.values().concat()).zip(&y.mantissas) {
                assert_eq!(d, if *y > 0 { before } else { 0.0 }, "the mask, and canonical form keeps values");
            }
        });
    }

    /// The gradients' tiles count from a call's first token: whoever splits at their borders changes no bit.
    #[test]
    fn calls_may_be_split_at_tiles(s in setups(), cut in 1_usize..3) {
        with(&s, &|linear, [lora, _], x, dy| {
            let (mut whole, mut split) = (Gradients::empty(&lora), Gradients::empty(&lora));
            let dx = backward(linear, x, dy, lora, 0, Some(&mut whole));
            let cut = (cut * TILE).min(s.tokens);
            let parts = [0..cut, cut..s.tokens].into_iter().filter(|r| !r.is_empty());
            let parts = parts.map(|r| backward(linear, &x.part(r.clone()), &dy.part(r.clone()), lora, r.start, Some(&mut split)));
            assert_eq!(dx, Tokens::join(parts));
            assert_eq!(whole, split);
        });
    }
}

/// dA and dB of many tokens beside their definition, in floats on the same integers.
#[test]
fn gradients_of_a_tile_are_their_definition() {
    for (inputs, outputs, rank, tokens, dropout, seed) in
        [(33, 17, 3, 20, false, 1), (33, 17, 3, 20, true, 2), (8, 40, 8, 7, true, 3), (1, 1, 1, 20, false, 4)]
    {
        let s = Setup { inputs, outputs, rank, to: WeightType::I8, tokens, dropout, seed };
        let fixture = Fixture::random(&[inputs, outputs, 2], s.to, seed);
        let adapter = AdapterFixture::random(&fixture.model(), rank, 0.5, 2.0, seed + 1);
        let pair = high_pairs(&adapter.open(&fixture.model())).remove(0);
        with(&s, &|linear, [lora, _], x, dy| {
            let mut g = Gradients::empty(&lora);
            backward(linear, x, dy, lora, 0, Some(&mut g));
            let keep = lora.dropout.map_or(1.0, |d| d.keep_scale.to_f64());
            let (mut a, mut b) = (vec![0.0; rank * inputs], vec![0.0; outputs * rank]);
            for (t, (x, dy)) in x.values().into_iter().zip(dy.values()).enumerate() {
                let stays = |k: usize| lora.dropout.is_none_or(|d| d.keeps(t * inputs + k));
                let x: Vec<f64> = x.iter().enumerate().map(|(k, v)| if stays(k) { v * keep } else { 0.0 }).collect();
                for r in 0..rank {
                    let u: f64 = (0..inputs).map(|k| pair.a[r * inputs + k] * x[k]).sum();
                    let back: f64 = (0..outputs).map(|o| pair.b[o * rank + r] * dy[o]).sum();
                    (0..outputs).for_each(|o| b[o * rank + r] += pair.scaling * dy[o] * u);
                    (0..inputs).for_each(|k| a[r * inputs + k] += pair.scaling * back * x[k]);
                }
            }
            for (part, found, want) in [("dA", &g.a, &a), ("dB", &g.b, &b)] {
                let error = relative_l2(&Gradients::values(found), want);
                println!("{part} of {s:?}: {error:.2e}");
                GRADIENT_DEQUANTIZED.check(error, &format!("{part} of {s:?}"));
            }
        });
    }
}
