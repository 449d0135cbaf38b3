//! The oracle itself, against finite differences and hand-computed steps.

use super::*;
use crate::draw::Draw;
use ranklet::fixed::hash::Seed;

fn net(widths: &[usize], relu: bool, d: &mut Draw) -> Mlp<f64> {
    let last = widths.len() - 2;
    let layers = widths.windows(2).enumerate().map(|(i, w)| Linear {
        inputs: w[0],
        outputs: w[1],
        weight: (0..w[0] * w[1]).map(|_| d.uniform()).collect(),
        bias: (0..w[1]).map(|_| d.uniform()).collect(),
        relu: relu && i < last,
    });
    let layers = layers.collect();
    Mlp { mean: (0..widths[0]).map(|_| d.uniform()).collect(), factor: vec![0.75; widths[0]], layers }
}

fn pair(net: &Mlp<f64>, site: usize, rank: usize, d: &mut Draw) -> Pair<f64> {
    let l = &net.layers[site];
    let mut values = |n: usize| (0..n).map(|_| d.uniform()).collect();
    Pair { site, rank, a: values(rank * l.inputs), b: values(rank * l.outputs), scaling: -1.5 }
}

#[test]
fn gradients_are_finite_differences() {
    let mut d = Draw::new(5);
    let net = net(&[6, 9, 4], true, &mut d);
    // Two pairs on one layer: they add up, and each gets its own gradient.
    let pairs = vec![pair(&net, 0, 3, &mut d), pair(&net, 1, 2, &mut d), pair(&net, 1, 5, &mut d)];
    let x: Vec<f64> = (0..6).map(|_| 2.0 * d.uniform()).collect();
    let masks = Masks { p: 0.3, seed: Seed(4), sample: 9 };
    let targets =
        [Target::Class(2), Target::Labels(vec![true, false, false, true]), Target::Values(vec![0.5, -0.5, 2.0, 0.0])];
    for target in &targets {
        for masks in [None, Some(masks)] {
            let value = |x: &[f64], pairs: &[Pair<f64>]| {
                let trace = net.trace(x, pairs, masks);
                loss(&trace[2], target).0
            };
            let trace = net.trace(&x, &pairs, masks);
            let (gradients, dx) = net.backward(&trace, &pairs, masks, &loss(&trace[2], target).1);
            let h = 1e-6;
            let near = |got: f64, up: f64, down: f64| {
                let slope = (up - down) / (2.0 * h);
                assert!((got - slope).abs() <= 1e-7 * (1.0 + slope.abs()), "{got} {slope}");
            };
            for (n, g) in gradients.iter().enumerate() {
                for (i, &got) in g.a.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut p = pairs.clone();
                        p[n].a[i] += by;
                        value(&x, &p)
                    };
                    near(got, moved(h), moved(-h));
                }
                for (i, &got) in g.b.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut p = pairs.clone();
                        p[n].b[i] += by;
                        value(&x, &p)
                    };
                    near(got, moved(h), moved(-h));
                }
            }
            for (i, &got) in dx.iter().enumerate() {
                let moved = |by: f64| {
                    let mut x = x.clone();
                    x[i] += by;
                    value(&x, &pairs)
                };
                near(got * net.factor[i], moved(h), moved(-h)); // dx is that of the normalised input
            }
        }
    }
}

#[test]
fn merging_is_adding() {
    let mut d = Draw::new(6);
    let net = net(&[5, 7, 3], true, &mut d);
    let pairs = vec![pair(&net, 0, 2, &mut d), pair(&net, 1, 4, &mut d)];
    let x: Vec<f64> = (0..5).map(|_| d.uniform()).collect();
    let (a, b) = (net.run(&x, &pairs), net.merged(&pairs).run(&x, &[]));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
}

#[test]
fn sgd_by_hand() {
    let optimizer = Optimizer::Sgd { lr: 0.5, momentum: 0.5, weight_decay: 0.25 };
    let (mut p, mut m) = ([4.0_f64], Moments::new(1));
    // v = 1 + 0.25·4 = 2; p = 4 − 1 = 3.  v = 1 + 1 + 0.75 = 2.75; p = 3 − 1.375.
    optimizer.update(&mut p, &[1.0], &mut m, 1, 1.0);
    assert_eq!(p, [3.0]);
    optimizer.update(&mut p, &[1.0], &mut m, 2, 1.0);
    assert_eq!(p, [1.625]);
}

#[test]
fn adamw_by_hand() {
    let optimizer = Optimizer::AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.5 };
    let (mut p, mut m) = ([2.0_f64], Moments::new(1));
    // The first step is lr · sign(g), whatever g; the decay comes first: 2 · 0.95 − 0.1.
    optimizer.update(&mut p, &[1e-3], &mut m, 1, 1.0);
    assert!((p[0] - 1.8).abs() < 1e-5, "{}", p[0]);
    // A second, opposite gradient: m = (0.09 − 0.1)e-3 = −1e-5, v = 1.999e-9, so that
    // u = (−1e-5 / 0.19) / √(1.999e-9 / 1.999e-3) = −0.0526316.
    optimizer.update(&mut p, &[-1e-3], &mut m, 2, 1.0);
    assert!((p[0] - (1.8 * 0.95 + 0.1 * 0.052_631_6)).abs() < 2e-5, "{}", p[0]);
}

#[test]
fn clipping_and_accumulation_by_hand() {
    let net = Mlp {
        mean: vec![],
        factor: vec![],
        layers: vec![Linear { inputs: 1, outputs: 1, weight: vec![0.0], bias: vec![0.0], relu: false }],
    };
    let pairs = vec![Pair { site: 0, rank: 1, a: vec![1.0], b: vec![0.0_f64], scaling: 1.0 }];
    let mut t = Trainer::new(net, pairs, Optimizer::Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 });
    (t.accumulate, t.clip) = (2, Some(0.5));
    // dB is the cotangent, dA is 0: the mean of 3 and 1 is 2, clipped to 0.5.
    t.sample(&[1.0], &Target::Cotangent(vec![3.0]));
    assert_eq!(t.pairs[0].b, [0.0]);
    t.sample(&[1.0], &Target::Cotangent(vec![1.0]));
    assert!((t.pairs[0].b[0] + 0.5).abs() < 1e-6, "{:?}", t.pairs[0].b);
}

#[test]
fn schedules_follow_transformers() {
    let linear: Vec<f64> = (1..=8).map(|n| Schedule::Linear(2, 6).factor(n)).collect();
    assert_eq!(linear, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    assert_eq!(Schedule::Warmup(4).factor(2), 0.25);
    assert_eq!(Schedule::Warmup(4).factor(9), 1.0);
    assert_eq!(Schedule::Constant.factor(1), 1.0);
}
