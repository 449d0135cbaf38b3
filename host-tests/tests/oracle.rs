//! The core against the float oracle: outputs and gradients, awkward shapes, awkward adapters.

use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::model::{Active, Model, Roles, Train};
use ranklet::q;
use ranklet::train::{AdamW, Sgd, Target, Trainer};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::adapter::high_pairs;
use ranklet_host_tests::fixture::{AdapterFixture, Desk, Fixture, Sample, infer, relative_l2};
use ranklet_host_tests::oracle::{self, Masks, Mlp, Pair};
use ranklet_host_tests::tolerance::*;

/// Widths and rank: odd, wide, smallest, a bottleneck, smallest and largest rank, and ranks beyond the dimensions.
const SHAPES: [(&[usize], usize); 8] = [
    (&[7, 13, 5], 3),
    (&[512, 512], 8),
    (&[1, 1], 1),
    (&[3, 1, 2], 1),
    (&[33, 65, 31, 3], 1),
    (&[70, 90, 10], 64),
    (&[7, 13, 5], 64),
    (&[1, 1], 64),
];

fn samples(features: usize, n: usize, seed: u64) -> Vec<Sample> {
    let mut d = Draw::new(seed);
    (0..n).map(|_| Sample::random(features, 2, &mut d)).collect()
}

fn batch(features: usize) -> Vec<Sample> {
    samples(features, if features > 100 { 40 } else { 400 }, 77)
}

/// Relative L2 error over a batch; and the worst error of one vector, relative to the batch's usual (RMS) vector: a
/// single output may be the small difference of large terms, and has no size of its own to be measured by.
fn errors(model: &Model<'_>, adapters: &[Active<'_>], net: &Mlp<f64>, pairs: &[Pair<f64>]) -> (f64, f64) {
    let (mut found, mut expected, mut worst) = (vec![], vec![], 0.0_f64);
    let batch = batch(model.spec().features);
    for x in &batch {
        let (y, want) = (infer(model, x, adapters), net.run(&x.values(), pairs));
        worst = worst.max(y.iter().zip(&want).map(|(a, b)| (a - b) * (a - b)).sum());
        found.extend(y);
        expected.extend(want);
    }
    let usual = expected.iter().map(|v| v * v).sum::<f64>() / batch.len() as f64;
    (relative_l2(&found, &expected), (worst / usual).sqrt())
}

#[test]
fn outputs_with_an_adapter() {
    for (widths, rank) in SHAPES {
        for to in [WeightType::I16, WeightType::I8, WeightType::I4] {
            let fixture = Fixture::random(widths, to, 11);
            let model = fixture.model();
            let adapter = AdapterFixture::random(&model, rank, 0.3 / (rank as f64).sqrt(), 2.0, 12);
            let opened = adapter.open(&model);
            let what = format!("{widths:?}, rank {rank}, {}", to.name());
            let (original, _) = errors(&model, &[opened.view()], &fixture.original(), &adapter.pairs);
            let (arithmetic, vector) = errors(&model, &[opened.view()], &fixture.dequantized(), &high_pairs(&opened));
            println!("{what}: original {original:.2e}, dequantised {arithmetic:.2e}, worst vector {vector:.2e}");
            match to {
                WeightType::I16 => OUTPUT_I16.check(original, &what),
                WeightType::I8 => OUTPUT_I8.check(original, &what),
                WeightType::I4 => {} // Five bits or so: a matter of the checkpoint, not of the arithmetic.
            }
            OUTPUT_DEQUANTIZED.check(arithmetic, &what);
            OUTPUT_VECTOR.check(vector, &what);
        }
    }
}

#[test]
fn outputs_without_an_adapter() {
    for (widths, _) in SHAPES {
        let fixture = Fixture::random(widths, WeightType::I16, 21);
        let (batch, vector) = errors(&fixture.model(), &[], &fixture.original(), &[]);
        OUTPUT_I16.check(batch, &format!("{widths:?}"));
        OUTPUT_VECTOR.check(vector, &format!("{widths:?}"));
    }
}

#[test]
fn a_normalised_input() {
    let mut base = ranklet_host_tests::fixture::base::random(&[7, 13, 5], ranklet_cli::spec::Head::Classification, 3);
    base.normalization = Some(ranklet_cli::base::Normalization {
        mean: vec![0.5, -3.0, 0.0, 100.0, 1e-3, 7.5, -0.25],
        std: vec![1.0, 0.5, 2.0, 3.0, 0.7, 1.5, 0.9],
    });
    let fixture = Fixture::new(base, WeightType::I16);
    let (batch, _) = errors(&fixture.model(), &[], &fixture.original(), &[]);
    OUTPUT_I16.check(batch, "normalised");
    let (batch, _) = errors(&fixture.model(), &[], &fixture.dequantized(), &[]);
    OUTPUT_DEQUANTIZED.check(batch, "normalised");
}

#[test]
fn adapters_off_scaled_summed_and_negative() {
    let fixture = Fixture::random(&[7, 13, 5], WeightType::I16, 31);
    let model = fixture.model();
    let net = fixture.dequantized();
    let first = AdapterFixture::random(&model, 3, 0.5, 2.0, 32);
    let second = AdapterFixture::random(&model, 5, 0.5, -0.75, 33);
    let (a, b) = (first.open(&model), second.open(&model));
    let scaled = |adapter, by: f64| -> Vec<Pair<f64>> {
        high_pairs(adapter).into_iter().map(|p| Pair { scaling: p.scaling * by, ..p }).collect()
    };
    let check = |adapters: &[Active<'_>], pairs: &[Pair<f64>], what: &str| {
        OUTPUT_DEQUANTIZED.check(errors(&model, adapters, &net, pairs).0, what);
    };
    check(&[a.scaled(q!(0.5))], &scaled(&a, 0.5), "half");
    check(&[a.scaled(q!(-1.0))], &scaled(&a, -1.0), "negative");
    check(&[a.scaled(q!(1000.0))], &scaled(&a, 1000.0), "a thousandfold");
    let both = [high_pairs(&a), high_pairs(&b)].concat();
    check(&[a.view(), b.view()], &both, "summed");
    let many = [both, scaled(&a, -0.3)].concat();
    check(&[a.view(), b.view(), a.scaled(q!(-0.3))], &many, "three");
    for x in batch(7) {
        let base = infer(&model, &x, &[]);
        assert_eq!(infer(&model, &x, &[a.scaled(Real::ZERO)]), base, "off is the base, bit for bit");
        assert_eq!(infer(&model, &x, &[a.view(), a.scaled(q!(-1.0))]), base, "an adapter and its negative cancel");
        assert_eq!(infer(&model, &x, &[a.view(), b.view()]), infer(&model, &x, &[b.view(), a.view()]), "order");
    }
}

/// One weight and one value: every mantissa a sensor can deliver, so that each block's peak meets every place in its
/// octave.
#[test]
fn every_single_value() {
    let mut base = ranklet_host_tests::fixture::base::random(&[1, 1], ranklet_cli::spec::Head::Regression, 1);
    base.linears[0].bias = None;
    for weight in [1.0, -0.7, 1.9999, 3.0e-5] {
        base.linears[0].weight.data = vec![weight];
        let fixture = Fixture::new(base.clone(), WeightType::I16);
        let (model, net) = (fixture.model(), fixture.dequantized());
        let mut desk = Desk::new(&model, None);
        let mut scratch = desk.scratch();
        let (mut worst, mut sum) = ((0.0, 0), 0.0);
        for raw in 1..=i16::MAX {
            let x = Sample { raw: vec![raw], exponent: -14, class: 0 };
            let y = model.infer(&mut scratch, x.input(), &[]).expect("inference");
            let y = f64::from(y.mantissas[0]) * f64::from(y.exponent.get()).exp2();
            let error = (y / net.run(&x.values(), &[])[0] - 1.0).abs();
            sum += error;
            if error > worst.0 {
                worst = (error, raw);
            }
        }
        println!("weight {weight}: worst {:.2e} at {}, mean {:.2e}", worst.0, worst.1, sum / f64::from(i16::MAX));
        OUTPUT_SINGLE.check(worst.0, &format!("weight {weight}, value {}", worst.1));
    }
}

/// The logits of every image of the demo's task, each vector by itself.
#[test]
fn logits_of_the_digits() {
    let task = ranklet_host_tests::convergence::digits::Digits::turned();
    let (model, net) = (task.fixture.model(), task.fixture.dequantized());
    let all: Vec<f64> = (task.train.iter().chain(&task.held_out))
        .map(|x| relative_l2(&infer(&model, x, &[]), &net.run(&x.values(), &[])))
        .collect();
    let worst = all.iter().copied().fold(0.0, f64::max);
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    println!("{} images: worst {worst:.2e}, mean {mean:.2e}", all.len());
    LOGITS.check(worst, "one image");
}

/// Makes an awkward pair of an ordinary one.
type Change<'c> = &'c dyn Fn(&mut Pair<f64>);

#[test]
fn zero_and_extreme_adapters() {
    let fixture = Fixture::random(&[7, 13, 5], WeightType::I8, 41);
    let model = fixture.model();
    let net = fixture.dequantized();
    let random = AdapterFixture::random(&model, 3, 0.5, 2.0, 42).pairs;
    let with = |change: &dyn Fn(&mut Pair<f64>)| {
        let mut pairs = random.clone();
        pairs.iter_mut().for_each(change);
        AdapterFixture::new(&model, pairs)
    };
    let nothing: [(&str, Change<'_>); 3] =
        [("B = 0", &|p| p.b.fill(0.0)), ("A = 0", &|p| p.a.fill(0.0)), ("scaling 0", &|p| p.scaling = 0.0)];
    for (what, change) in nothing {
        let adapter = with(change);
        for x in batch(7) {
            assert_eq!(infer(&model, &x, &[adapter.open(&model).view()]), infer(&model, &x, &[]), "{what}");
        }
    }
    let power = |e: i32| ranklet_host_tests::fixture::base::power(e);
    let extremes: [(&str, Change<'_>); 6] = [
        ("A · 2^90, B · 2^-90", &|p| {
            p.a.iter_mut().for_each(|v| *v *= power(90));
            p.b.iter_mut().for_each(|v| *v *= power(-90));
        }),
        ("B · 2^100: the base drowns", &|p| p.b.iter_mut().for_each(|v| *v *= power(100))),
        ("B · 2^-100: the adapter drowns", &|p| p.b.iter_mut().for_each(|v| *v *= power(-100))),
        ("scaling 2^40", &|p| p.scaling = power(40)),
        ("scaling -2^-40", &|p| p.scaling = -power(-40)),
        ("one value far above the rest", &|p| p.a[0] = 3000.0),
    ];
    for (what, change) in extremes {
        let adapter = with(change);
        let opened = adapter.open(&model);
        let (batch, vector) = errors(&model, &[opened.view()], &net, &high_pairs(&opened));
        println!("{what}: {batch:.2e}, worst vector {vector:.2e}");
        OUTPUT_DEQUANTIZED.check(batch, what);
    }
    // An adapter of the last layer alone.
    let adapter = AdapterFixture::new(&model, vec![random[1].clone()]);
    let opened = adapter.open(&model);
    OUTPUT_DEQUANTIZED.check(errors(&model, &[opened.view()], &net, &high_pairs(&opened)).0, "one site");
}

/// dA and dB of the core for a random cotangent, record by record, beside those of the oracle.
fn gradients(
    fixture: &Fixture,
    adapter: &AdapterFixture,
    x: &Sample,
    dropout: Option<f64>,
) -> Vec<(Vec<f64>, [Vec<f64>; 2])> {
    let model = fixture.model();
    let opened = adapter.open(&model);
    let rank = adapter.pairs.iter().map(|p| p.rank).max().unwrap_or(1) as u16;
    let mut desk = Desk::new(&model, Some(Train::sgd().rank(rank).on(Roles::ALL).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.resume(&model, &opened).expect("planned for it");
    let mut d = Draw::new(5);
    let cotangent: Vec<i16> = (0..model.spec().outputs).map(|_| (3000.0 * d.normal()) as i16).collect();
    let sgd = Sgd { momentum: Real::ZERO, ..Sgd::DEFAULT };
    let mut t = Trainer::new(&model, &mut learner, sgd).expect("no moments").accumulate(100).seed(Seed(8));
    if let Some(p) = dropout {
        t = t.dropout(Real::from_f64(p)).expect("planned for it");
    }
    t.sample(x.input(), Target::Cotangent(&cotangent, Exp(-11)), &mut scratch).expect("a sample");
    t.step(&mut scratch).expect("its units");

    let dy: Vec<f64> = cotangent.iter().map(|&c| f64::from(c) / 2048.0).collect();
    let masks = dropout.map(|p| Masks { p, seed: Seed(8), sample: 1 });
    let of = |net: &Mlp<f64>, pairs: &[Pair<f64>]| {
        let trace = net.trace(&x.values(), pairs, masks);
        net.backward(&trace, pairs, masks, &dy).0
    };
    let original = of(&fixture.original(), &adapter.pairs);
    let exact = of(&fixture.dequantized(), &high_pairs(&opened));
    let mut all = vec![];
    for (index, (o, e)) in original.into_iter().zip(exact).enumerate() {
        let [a, b] = learner.gradient(index).expect("a record");
        for ((values, exponent), o, e) in [(a, o.a, e.a), (b, o.b, e.b)] {
            let unit = f64::from(exponent).exp2();
            all.push((values.iter().map(|&v| f64::from(v) * unit).collect(), [o, e]));
        }
    }
    all
}

/// How near the nearest ReLU is to its kink, relative to its layer's peak. At a kink the gradient jumps, so within
/// rounding of one there is nothing to compare.
fn margin(net: &Mlp<f64>, pairs: &[Pair<f64>], masks: Option<Masks>, x: &Sample) -> f64 {
    let mut least = f64::INFINITY;
    for site in (0..net.layers.len()).filter(|&site| net.layers[site].relu) {
        let mut cut = net.clone();
        cut.layers.truncate(site + 1);
        cut.layers[site].relu = false;
        let y = cut.trace(&x.values(), pairs, masks).pop().unwrap_or_default();
        let peak = y.iter().fold(0.0_f64, |p, y| p.max(y.abs()));
        least = y.iter().fold(least, |m, y| m.min(y.abs() / peak));
    }
    least
}

#[test]
fn gradients_of_awkward_shapes() {
    for (widths, rank) in SHAPES {
        for to in [WeightType::I16, WeightType::I8, WeightType::I4] {
            for dropout in [None, Some(0.25)] {
                let fixture = Fixture::random(widths, to, 51);
                let model = fixture.model();
                let adapter = AdapterFixture::random(&model, rank, 0.3 / (rank as f64).sqrt(), 2.0, 52);
                // Each tensor over several samples: in one of them a ReLU may have shut it off.
                let mut tensors = vec![(vec![], vec![], vec![]); 2 * model.spec().linears as usize];
                let net = fixture.dequantized();
                let mut all = samples(widths[0], if widths[0] > 100 { 3 } else { 100 }, 53);
                let n = all.len();
                let masks = dropout.map(|p| Masks { p, seed: Seed(8), sample: 1 });
                all.retain(|x| margin(&net, &adapter.pairs, masks, x) > 5e-4);
                assert!(4 * all.len() > 3 * n, "{widths:?}: only {} of {n} samples are off every kink", all.len());
                for x in all {
                    for (t, (g, [o, e])) in tensors.iter_mut().zip(gradients(&fixture, &adapter, &x, dropout)) {
                        t.0.extend(g);
                        t.1.extend(o);
                        t.2.extend(e);
                    }
                }
                for (n, (found, original, exact)) in tensors.iter().enumerate() {
                    let what = format!(
                        "{widths:?}, rank {rank}, {}, dropout {dropout:?}, {} of site {}",
                        to.name(),
                        ["dA", "dB"][n % 2],
                        n / 2
                    );
                    let (o, e) = (relative_l2(found, original), relative_l2(found, exact));
                    println!("{what}: original {o:.2e}, dequantised {e:.2e}");
                    if to == WeightType::I16 {
                        GRADIENT_I16.check(o, &what);
                    }
                    GRADIENT_DEQUANTIZED.check(e, &what);
                }
            }
        }
    }
}

#[test]
fn losses_are_the_oracles() {
    use ranklet::train::LossKind;
    let fixture = Fixture::random(&[7, 13, 5], WeightType::I16, 61);
    let model = fixture.model();
    let net = fixture.dequantized();
    let labels = [true, false, true, true, false];
    let values = [100_i16, -2000, 0, 32000, 7];
    let want: Vec<f64> = values.iter().map(|&v| f64::from(v) / 4096.0).collect();
    let targets = [
        (LossKind::CrossEntropy, Target::Class(3), oracle::Target::Class(3)),
        (LossKind::BinaryCrossEntropy, Target::Labels(&labels), oracle::Target::Labels(labels.to_vec())),
        (LossKind::MeanSquaredError, Target::Values(&values, Exp(-12)), oracle::Target::Values(want)),
    ];
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(1)).expect("planned for it");
    for (kind, target, want) in targets {
        for x in samples(7, 50, 62) {
            let mut t =
                Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("a trainer").accumulate(1000).loss(kind);
            t.sample(x.input(), target, &mut scratch).expect("a sample");
            let loss = t.step(&mut scratch).expect("its units").to_f64();
            let expected = oracle::loss(&net.run(&x.values(), &[]), &want).0;
            // Relative to 1 where a loss is nearly nothing.
            LOSS.check((loss - expected).abs() / expected.max(1.0), &format!("{kind:?}"));
        }
    }
}
