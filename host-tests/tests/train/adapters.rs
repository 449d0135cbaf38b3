//! Adapters that are saved, resumed, switched and summed.

use super::{ADAMW, How, PLAIN, data, fixture, pairs, state, train};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::train::Trainer;
use ranklet_host_tests::fixture::{AdapterFixture, Desk, Sample, infer, relative_l2, save};
use ranklet_host_tests::oracle::Pair;
use ranklet_host_tests::tolerance::MERGED;

#[test]
fn what_is_saved_comes_back() {
    let fixture = fixture();
    let model = fixture.model();
    let samples = data(40, 10);
    let (saved, trained) = train(&model, ADAMW, PLAIN, &samples, |l, _| (save(l), state(l)));
    let adapter = ranklet::model::Adapter::open(&model, saved.bytes()).expect("a sound image");
    assert!(adapter.same_image());
    assert_eq!((adapter.records().to_vec(), adapter.high().to_vec(), adapter.low().to_vec()), trained);
    let live = train(&model, ADAMW, PLAIN, &samples, |l, _| infer(&model, &samples[0], &[l.view()]));
    assert_eq!(infer(&model, &samples[0], &[adapter.view()]), live, "in flash as in RAM");

    let mut desk = Desk::new(&model, Some(Train::adamw().rank(6)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.resume(&model, &adapter).expect("planned for more");
    assert_eq!(state(&learner), trained, "resumed: the same A and B");
    assert_eq!(save(&learner).bytes(), saved.bytes(), "and the same image again");
    let mut t = Trainer::new(&model, &mut learner, ADAMW).expect("a trainer");
    t.sample(samples[0].input(), samples[0].target(), &mut scratch).expect("a sample");
    t.step(&mut scratch).expect("its units");
    assert_ne!(state(&learner), trained, "and it goes on");
}

#[test]
fn adapters_switch_as_separately_merged_models_would() {
    let fixture = fixture();
    let model = fixture.model();
    let net = fixture.dequantized();
    let (one, two) = (data(150, 12), data(150, 13));
    let learn =
        |samples: &[Sample], seed| train(&model, ADAMW, How { seed, ..PLAIN }, samples, |l, _| (save(l), pairs(l)));
    let (first, first_pairs) = learn(&one, 1);
    let (second, second_pairs) = learn(&two, 2);
    let open = |file: &'_ ranklet_cli::image::ImageFile| -> Vec<f64> {
        let a = ranklet::model::Adapter::open(&model, file.bytes()).expect("a sound image");
        one.iter().flat_map(|x| infer(&model, x, &[a.view()])).collect()
    };
    let merged = |pairs: &[Pair<f64>]| -> Vec<f64> {
        let net = net.merged(pairs);
        one.iter().flat_map(|x| net.run(&x.values(), &[])).collect()
    };
    let (a, b, again) = (open(&first), open(&second), open(&first));
    assert_eq!(a, again, "back to the first, bit for bit");
    let none: Vec<f64> = one.iter().flat_map(|x| infer(&model, x, &[])).collect();
    assert!(relative_l2(&a, &b) > 0.05 && relative_l2(&a, &none) > 0.05, "they do differ");
    MERGED.check(relative_l2(&a, &merged(&first_pairs)), "the first");
    MERGED.check(relative_l2(&b, &merged(&second_pairs)), "the second");
    MERGED.check(relative_l2(&none, &merged(&[])), "none");
}

#[test]
fn an_adapter_without_its_low_plane_is_not_resumed() {
    let fixture = fixture();
    let model = fixture.model();
    let adapter = AdapterFixture::random(&model, 4, 0.5, 2.0, 91);
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(2)));
    let (_, learn) = desk.split();
    let refused = learn.resume(&model, &adapter.open(&model)).map(|_| ());
    assert!(matches!(refused, Err(ranklet::train::LearnError::Rank { found: 4, limit: 2 })), "{refused:?}");
    let bytes = adapter.high_only(&model);
    let image = ranklet::model::Adapter::open(&model, bytes.bytes()).expect("usable");
    let mut desk = Desk::new(&model, Some(Train::adamw().rank(4)));
    let (_, learn) = desk.split();
    let refused = learn.resume(&model, &image).map(|_| ());
    assert_eq!(refused, Err(ranklet::train::LearnError::NoLowPlane));
}

#[test]
fn a_scaling_that_no_image_holds_is_refused() {
    use ranklet::image::record::RecordProblem;
    use ranklet::model::AdapterError;
    use ranklet::train::LearnError;
    let fixture = fixture();
    let model = fixture.model();
    for (by, refused) in [(0, false), (1000, false), (1100, true), (-900, false), (-1100, true)] {
        let mut desk = Desk::new(&model, Some(Train::sgd().rank(4).scaling(Real::ONE.scale(by))));
        let (_, learn) = desk.split();
        match learn.fresh(&model, Seed(1)) {
            Ok(l) => {
                assert!(!refused, "2^{by}");
                let saved = save(&l);
                assert!(ranklet::model::Adapter::open(&model, saved.bytes()).is_ok(), "2^{by}");
            }
            Err(e) => {
                let problem = RecordProblem::Exponent;
                assert_eq!((e, refused), (LearnError::Adapter(AdapterError::Record { index: 0, problem }), true));
            }
        }
    }
}

/// Several adapters add up; factors scale, subtract and switch off, as the same changes to merged weights would.
#[test]
fn adapters_sum_and_scale_as_merged_models_would() {
    let fixture = fixture();
    let model = fixture.model();
    let net = fixture.dequantized();
    let samples = data(150, 18);
    let images = [93, 94].map(|seed| AdapterFixture::random(&model, 4, 0.5, 2.0, seed));
    let [first, second] = images.each_ref().map(|i| i.open(&model));
    let scaled = |a: &ranklet::model::Adapter<'_>, by: f64| -> Vec<Pair<f64>> {
        let mut pairs = ranklet_host_tests::fixture::adapter::high_pairs(a);
        pairs.iter_mut().for_each(|p| p.scaling *= by);
        pairs
    };
    let run = |active: &[ranklet::model::Active<'_>]| -> Vec<f64> {
        samples.iter().flat_map(|x| infer(&model, x, active)).collect()
    };
    for (f, s) in [(1.0, 1.0), (0.5, 1.0), (-1.0, 0.25), (0.0, 2.0), (0.0, 0.0)] {
        let found = run(&[first.scaled(Real::from_f64(f)), second.scaled(Real::from_f64(s))]);
        let merged = net.merged(&scaled(&first, f)).merged(&scaled(&second, s));
        let expected: Vec<f64> = samples.iter().flat_map(|x| merged.run(&x.values(), &[])).collect();
        MERGED.check(relative_l2(&found, &expected), &format!("{f} of the first and {s} of the second"));
    }
    let off = Real::ZERO;
    assert_eq!(run(&[first.scaled(off), second.scaled(off)]), run(&[]), "switched off is absent, bit for bit");
    assert_eq!(run(&[first.view(), second.scaled(off)]), run(&[first.view()]));
}
