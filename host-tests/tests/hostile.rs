//! Hostile images: any byte string, and sound images with changed bytes whose checksums have been made to match again,
//! so that the deep checks are reached. An error or a valid view that then runs: never a panic. Overflow checks are on
//! in tests, so a sum that leaves its type would be one.

use proptest::prelude::*;
use ranklet::fixed::hash::Seed;
use ranklet::fixed::{Exp, Real};
use ranklet::image::layout::{ENTRY, HEADER, section};
use ranklet::layer::normalize::Input;
use ranklet::model::{Adapter, Model, Plan, Train, Workspace};
use ranklet::train::{AdamW, Optimizer, Sgd, Target, TrainError, Trainer};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::{AdapterFixture, Fixture, Sample, save};
use std::path::Path;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// Networks whose plan needs more than this are opened and planned, but not run: a hostile spec may ask for gigabytes.
const MEMORY: usize = 1 << 22;

fn aligned(bytes: &[u8]) -> ImageFile {
    ImageFile::of(Path::new("hostile"), bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Makes both checksums match, where the head has room for them.
fn reseal(bytes: &mut [u8]) {
    let (Some(head), Some(total)) = (u32_at(bytes, 8), u32_at(bytes, 12)) else { return };
    let (head, total) = (head as usize, total as usize);
    if (HEADER..=total).contains(&head) && total <= bytes.len() {
        let payload = CRC.checksum(&bytes[head..total]);
        bytes[20..24].copy_from_slice(&payload.to_le_bytes());
        let crc = CRC.checksum(&bytes[..head - 4]);
        bytes[head - 4..head].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Everything that can be done with a base: inference, training, saving.
fn use_base(bytes: &[u8], adapter: Option<&Adapter<'_>>) -> bool {
    let Ok(model) = Model::open(bytes) else { return false };
    let plan = Plan::new(bytes).expect("an open model has a plan");
    let _ = (plan.longest_unit_macs(), model.payload_crc_now(), model.normalize());
    let train = Train::adamw().rank(2).dropout();
    let plan = plan.train(train);
    for site in 0..model.spec().linears {
        let _ = (model.site_name(site), model.linear(site));
    }
    if plan.bytes() > MEMORY {
        return true;
    }
    let mut d = Draw::new(3);
    let x = Sample::random(model.spec().features, 1, &mut d);
    let mut memory = vec![0x5A; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("memory of the plan's size");
    let active = adapter.map(Adapter::view);
    let _ = model.infer(&mut scratch, x.input(), active.as_slice()).expect("a sound view runs");
    let mut learner = match adapter.filter(|a| !a.low().is_empty()) {
        Some(a) => match learn.resume(&model, a) {
            Ok(l) => l,
            Err(_) => return true, // larger than this plan
        },
        None => learn.fresh(&model, Seed(1)).expect("a sound view learns"),
    };
    let dy = vec![100_i16; model.spec().outputs];
    let cotangent = Target::Cotangent(&dy, ranklet::fixed::Exp(-7));
    let mut t = Trainer::new(&model, &mut learner, AdamW::DEFAULT).expect("planned for it");
    for _ in 0..3 {
        t.sample(x.input(), cotangent, &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    let sgd = Trainer::new(&model, &mut learner, Sgd::DEFAULT).expect("planned for it");
    let mut t = sgd.clip(ranklet::q!(1.0)).dropout(ranklet::q!(0.2)).expect("planned for it");
    t.sample(x.input(), cotangent, &mut scratch).expect("a sample");
    t.step(&mut scratch).expect("its units");
    // Whatever a base teaches, beyond 2^1024 too, a learner keeps what an image can hold.
    let saved = save(&learner);
    Adapter::open(&model, saved.bytes()).expect("what a learner wrote opens");
    true
}

/// Small bases of every weight type, with and without normalisation.
fn bases() -> Vec<Fixture> {
    let mut all = vec![];
    for to in [WeightType::I8, WeightType::I16, WeightType::I4] {
        let mut base =
            ranklet_host_tests::fixture::base::random(&[5, 9, 3], ranklet_cli::spec::Head::Classification, 71);
        all.push(Fixture::new(base.clone(), to));
        base.normalization = Some(ranklet_cli::base::Normalization { mean: vec![1.5; 5], std: vec![0.5; 5] });
        all.push(Fixture::new(base, to));
    }
    all
}

/// What is written where. Values at the edges of their types do most of the damage.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>)>> {
    let value = prop_oneof![
        any::<u8>().prop_map(|b| vec![b]),
        any::<u16>().prop_map(|v| v.to_le_bytes().to_vec()),
        prop::sample::select(vec![
            0_u32,
            1,
            0x7F,
            0x80,
            0xFF,
            0x3FF,
            0x400,
            0xFC00,
            0x7FFF,
            0x8000,
            0x8001,
            0xFFFF,
            0x10000,
            0x2_0000,
            0x2_0001,
            0x7FFF_FFFF,
            0x8000_0000,
            0xFFFF_FFFF
        ])
        .prop_flat_map(|v| prop::sample::select(vec![1, 2, 4]).prop_map(move |n| v.to_le_bytes()[..n].to_vec())),
        any::<u8>().prop_map(|b| vec![b; 40]),
        Just(vec![0x80; 64]),
        Just([0x00, 0x80].repeat(32)),
        Just([0xFF, 0x7F].repeat(32)),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), value), 1..8)
}

fn change(bytes: &mut [u8], changes: &[(prop::sample::Index, Vec<u8>)], head_only: bool) {
    let len = if head_only { u32_at(bytes, 8).unwrap_or(0) as usize } else { bytes.len() };
    for (at, value) in changes {
        let at = at.index(len);
        // Fields stand at even places: half the writes should hit one squarely.
        let at = if value.len() > 1 { at & !1 } else { at };
        let end = (at + value.len()).min(len);
        bytes[at..end].copy_from_slice(&value[..end - at]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), sound_start in any::<bool>()) {
        let mut bytes = bytes;
        if sound_start && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"RKLT\x01\x00\x01\x00");
        }
        reseal(&mut bytes);
        use_base(aligned(&bytes).bytes(), None);
    }

    #[test]
    fn changed_bases(which in 0_usize..6, changes in changes(), head_only in any::<bool>()) {
        let mut bytes = bases()[which].bytes().to_vec();
        change(&mut bytes, &changes, head_only);
        reseal(&mut bytes);
        use_base(aligned(&bytes).bytes(), None);
    }

    /// Only what a tensor holds: nearly all of these open, so that all arithmetic is reached.
    #[test]
    fn changed_tensors(which in 0_usize..6, changes in changes()) {
        let mut bytes = bases()[which].bytes().to_vec();
        let head = u32_at(&bytes, 8).unwrap() as usize;
        change(&mut bytes[head..], &changes, false);
        reseal(&mut bytes);
        use_base(aligned(&bytes).bytes(), None);
    }

    /// Exponents of sections, anywhere in what the head allows.
    #[test]
    fn changed_exponents(which in 0_usize..6, exponents in prop::collection::vec(prop_oneof![-1024_i16..=1024, Just(1024), Just(-1024)], 16)) {
        let mut bytes = bases()[which].bytes().to_vec();
        let sections = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
        for (i, e) in exponents.iter().take(sections).enumerate() {
            let at = HEADER + ENTRY * i + 6;
            bytes[at..at + 2].copy_from_slice(&e.to_le_bytes());
        }
        reseal(&mut bytes);
        prop_assert!(use_base(aligned(&bytes).bytes(), None));
    }

    #[test]
    fn changed_adapters(which in 0_usize..6, changes in changes(), head_only in any::<bool>()) {
        let base = &bases()[which];
        let model = base.model();
        let mut bytes = AdapterFixture::random(&model, 2, 0.5, 2.0, 72).bytes().to_vec();
        change(&mut bytes, &changes, head_only);
        reseal(&mut bytes);
        let image = aligned(&bytes);
        if let Ok(adapter) = Adapter::open(&model, image.bytes()) {
            let _ = adapter.metadata();
            use_base(base.bytes(), Some(&adapter));
        }
    }

    /// Records and planes alone: nearly all of these are sound, however wild.
    #[test]
    fn changed_pairs(which in 0_usize..6, changes in changes(), exponents in prop::collection::vec(-1024_i16..=1024, 6)) {
        let base = &bases()[which];
        let model = base.model();
        let mut bytes = AdapterFixture::random(&model, 2, 0.5, 2.0, 73).bytes().to_vec();
        let head = u32_at(&bytes, 8).unwrap() as usize;
        let planes = head + 2 * 48;
        change(&mut bytes[planes..], &changes, false);
        for (record, e) in exponents.chunks(3).enumerate() {
            for (field, e) in [20, 22, 28].into_iter().zip(e) {
                let at = head + 48 * record + field;
                bytes[at..at + 2].copy_from_slice(&e.to_le_bytes());
            }
        }
        reseal(&mut bytes);
        let image = aligned(&bytes);
        if let Ok(adapter) = Adapter::open(&model, image.bytes()) {
            prop_assert!(use_base(base.bytes(), Some(&adapter)));
        }
    }
}

#[test]
fn sound_images_are_taken() {
    // The guard of the tests above: they would pass on a core that refuses everything.
    for base in bases() {
        assert!(use_base(base.bytes(), None));
        let model = base.model();
        let adapter = AdapterFixture::random(&model, 2, 0.5, 2.0, 74);
        assert!(use_base(base.bytes(), Some(&adapter.open(&model))));
        let mut bytes = base.bytes().to_vec();
        reseal(&mut bytes);
        assert_eq!(bytes, base.bytes(), "resealing a sound image changes nothing");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let base = &bases()[1];
    let model = base.model();
    let adapter = AdapterFixture::random(&model, 2, 0.5, 2.0, 75);
    for len in 0..base.bytes().len() {
        assert!(Model::open(aligned(&base.bytes()[..len]).bytes()).is_err(), "{len} bytes of a base");
        assert!(Plan::new(&base.bytes()[..len]).is_err(), "a plan of {len} bytes of a base");
    }
    for len in 0..adapter.bytes().len() {
        assert!(Adapter::open(&model, aligned(&adapter.bytes()[..len]).bytes()).is_err(), "{len} bytes of an adapter");
    }
}

#[test]
fn every_damaged_byte_is_an_error() {
    let base = &bases()[0];
    for at in 0..base.bytes().len() {
        let mut bytes = base.bytes().to_vec();
        bytes[at] ^= 0x10;
        assert!(Model::open(aligned(&bytes).bytes()).is_err(), "byte {at}");
    }
}

/// A later version's images: everything as this one writes it, checksums included, but for one reserved byte.
#[test]
fn reserved_bytes_are_refused() {
    use ranklet::image::ImageError;
    use ranklet::image::head::{SectionProblem, SpecProblem};
    let base = &bases()[1];
    let sections = usize::from(u16::from_le_bytes([base.bytes()[16], base.bytes()[17]]));
    let (spec, head) = (HEADER + ENTRY * sections, u32_at(base.bytes(), 8).unwrap() as usize);
    let spec_len = usize::from(u16::from_le_bytes([base.bytes()[18], base.bytes()[19]]));
    let found = |at: usize| {
        let mut bytes = base.bytes().to_vec();
        assert_eq!(bytes[at], 0, "byte {at} is not reserved");
        bytes[at] = 1;
        reseal(&mut bytes);
        let image = aligned(&bytes);
        assert_eq!(Plan::new(image.bytes()).map(|_| ()), Model::open(image.bytes()).map(|_| ()));
        Model::open(image.bytes()).map(|_| ())
    };
    for at in 28..32 {
        assert_eq!(found(at), Err(ImageError::Reserved { offset: 28 }));
    }
    for (index, at) in (0..sections).flat_map(|i| (24..32).map(move |at| (i, HEADER + ENTRY * i + at))) {
        let problem = SectionProblem::Reserved;
        assert_eq!(found(at), Err(ImageError::Section { index: index as u16, problem }));
    }
    for at in 18..32 {
        assert_eq!(found(spec + at), Err(ImageError::Spec { offset: 18, problem: SpecProblem::Reserved }));
    }
    for (record, at) in (1..=2).flat_map(|r| (22..32).map(move |at| (32 * r, at))) {
        let wrong = ImageError::Spec { offset: record + 22, problem: SpecProblem::Reserved };
        assert_eq!(found(spec + record + at), Err(wrong));
    }
    for at in spec + spec_len..head - 4 {
        assert_eq!(found(at), Err(ImageError::Reserved { offset: spec + spec_len }));
    }

    // A spec that goes on where this version knows of nothing.
    let (model, sections) = (base.model(), base.bytes());
    let mut spec = model.head().spec(sections).to_vec();
    let end = spec.len();
    spec.extend([0; 16]);
    let sections: Vec<_> = (0..model.head().sections)
        .map(|i| {
            let s = model.head().section(sections, i).expect("counted");
            ranklet::image::NewSection {
                kind: s.kind,
                site: s.site,
                dtype: s.dtype,
                order: s.order,
                exponent: s.exponent,
                rows: s.rows,
                cols: s.cols,
                data: model.head().bytes_of(sections, &s),
            }
        })
        .collect();
    let emit = |spec: &[u8]| {
        let (kind, source, image) = (ranklet::image::Kind::Base, model.source(), model.head().image);
        let image = ranklet::image::NewImage { kind, source, image, spec, sections: &sections };
        let mut out = vec![0; image.total_len()];
        image.write_to(&mut &mut out[..]).expect("as long as it says");
        Model::open(aligned(&out).bytes()).map(|_| ())
    };
    assert_eq!(emit(&spec[..end]), Ok(()));
    assert_eq!(emit(&spec), Err(ImageError::Spec { offset: end, problem: SpecProblem::Reserved }));
}

#[test]
fn one_kind_is_not_the_other() {
    let base = &bases()[0];
    let model = base.model();
    let adapter = AdapterFixture::random(&model, 2, 0.5, 2.0, 76);
    assert!(Model::open(adapter.bytes()).is_err() && Plan::new(adapter.bytes()).is_err());
    assert!(Adapter::open(&model, base.bytes()).is_err());
    let other = Fixture::random(&[5, 9, 3], WeightType::I8, 1);
    assert!(Adapter::open(&other.model(), adapter.bytes()).is_err(), "another checkpoint's adapter");
}

/// Overwrites every section of a kind with a repeated pattern, and its exponent.
fn fill(bytes: &mut [u8], kind: u16, pattern: &[u8], exponent: Option<i16>) {
    let sections = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
    for entry in (0..sections).map(|i| HEADER + ENTRY * i) {
        if u16::from_le_bytes([bytes[entry], bytes[entry + 1]]) != kind {
            continue;
        }
        if let Some(e) = exponent {
            bytes[entry + 6..entry + 8].copy_from_slice(&e.to_le_bytes());
        }
        let (at, len) = (u32_at(bytes, entry + 8).unwrap() as usize, u32_at(bytes, entry + 12).unwrap() as usize);
        bytes[at..at + len].iter_mut().zip(pattern.iter().cycle()).for_each(|(b, p)| *b = *p);
    }
}

/// Inference and a few steps with numbers that no sane firmware has; what may be refused is a rate, nothing else.
/// Returns whether it trained.
fn run_with<O: Optimizer>(bytes: &[u8], adapter: Option<&[u8]>, e: Exp, factor: Real, optimizer: O) -> bool {
    let model = Model::open(bytes).expect("sound, however extreme");
    let plan = Plan::new(bytes).expect("an open model has a plan").train(Train::adamw().rank(2).dropout());
    assert!(plan.bytes() <= MEMORY);
    let mut memory = vec![0x5A; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("memory of the plan's size");
    let adapter = adapter.map(|a| Adapter::open(&model, a).expect("sound, however extreme"));
    let width = model.spec().features;
    let (narrow, wide) = (vec![i16::MIN; width], vec![i32::MIN + 1; width]);
    let dy = vec![i16::MIN; model.spec().outputs];
    let active: Vec<_> = adapter.iter().flat_map(|a| [a.view(), a.scaled(factor)]).collect();
    for input in [Input::i16(&narrow, e), Input::i32(&wide, e), Input::u8(&[255; 5], e)] {
        let _ = model.infer(&mut scratch, input, &active).expect("a sound view runs");
    }
    let mut learner = match &adapter {
        Some(a) => learn.resume(&model, a).expect("of the planned rank"),
        None => learn.fresh(&model, Seed(1)).expect("a sound view learns"),
    };
    let mut t = match Trainer::new(&model, &mut learner, optimizer) {
        Ok(t) => t.clip(factor).dropout(ranklet::q!(0.2)).expect("planned for it"),
        Err(TrainError::Hyperparameter { .. }) => return false,
        Err(e) => panic!("{e}"),
    };
    for target in [Target::Class(0), Target::Cotangent(&dy, e), Target::Class(2)] {
        t.sample(Input::i16(&narrow, e), target, &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units");
    }
    let saved = save(&learner);
    Adapter::open(&model, saved.bytes()).expect("what a learner wrote opens");
    true
}

fn edge_exponents() -> impl Strategy<Value = i16> {
    prop::sample::select(vec![-1024, -1023, -17, 0, 17, 1023, 1024])
}

fn any_exp() -> impl Strategy<Value = Exp> {
    prop::sample::select(vec![i16::MIN, i16::MIN + 1, -1024, -12, 0, 1024, i16::MAX - 1, i16::MAX]).prop_map(Exp)
}

/// From nothing over the usual to the ends of the type, of either sign.
fn any_real() -> impl Strategy<Value = Real> {
    let ends = vec![0, 1 << 30, i32::MAX, -(1 << 30), i32::MIN + 1, i32::MIN];
    let exponents = vec![i16::MIN, -16384, -1024, -40, -30, 0, 1024, 16384, i16::MAX];
    (prop::sample::select(ends), prop::sample::select(exponents)).prop_map(|(m, e)| Real::from_parts(m, e))
}

/// Mostly what is not refused, or nothing would be trained: see the guard in `extreme_rates_are_mostly_taken`.
fn any_rate() -> impl Strategy<Value = Real> {
    prop_oneof![1 => any_real(), 9 => any_real().prop_map(Real::abs)]
}

/// A decay that no rate makes larger than 1, for the same reason; or any.
fn any_decay() -> impl Strategy<Value = Real> {
    prop_oneof![1 => any_real(), 9 => Just(Real::ZERO)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every number at the end of its type at once.
    #[test]
    fn extreme_bases(
        which in 0_usize..6,
        weight in prop::sample::select(vec![vec![0x7F], vec![0x80], vec![0x81], vec![0x00, 0x80], vec![0xFF, 0x7F], vec![0]]),
        scale in prop::sample::select(vec![0_u16, 1, 0x8000, u16::MAX]),
        bias in prop::sample::select(vec![i32::MIN, i32::MAX, 0]),
        norm in prop::sample::select(vec![i32::MIN, i32::MAX, 0]),
        group in prop::sample::select(vec![0_u8, 63, 255]),
        (e1, e2, e3, e4) in (edge_exponents(), edge_exponents(), edge_exponents(), edge_exponents()),
        e in any_exp(),
        lr in any_rate(),
        factor in any_real(),
        decay in any_decay(),
        adam in any::<bool>(),
    ) {
        let mut bytes = bases()[which].bytes().to_vec();
        fill(&mut bytes, section::WEIGHT, &weight, None);
        fill(&mut bytes, section::ROW_SCALE, &scale.to_le_bytes(), Some(e1));
        fill(&mut bytes, section::BIAS, &bias.to_le_bytes(), Some(e2));
        fill(&mut bytes, section::GROUP_SCALE, &[group], None);
        fill(&mut bytes, section::INPUT_MEAN, &norm.to_le_bytes(), Some(e3));
        fill(&mut bytes, section::INPUT_SCALE, &norm.to_le_bytes(), Some(e4));
        reseal(&mut bytes);
        let image = aligned(&bytes);
        if adam {
            let _ = run_with(image.bytes(), None, e, factor, AdamW { lr, weight_decay: decay, ..AdamW::DEFAULT });
        } else {
            let _ = run_with(image.bytes(), None, e, factor, Sgd { lr, weight_decay: decay, ..Sgd::DEFAULT });
        }
    }

    #[test]
    fn extreme_adapters(
        which in 0_usize..6,
        high in prop::sample::select(vec![i16::MIN, i16::MAX, 0, -1]),
        low in prop::sample::select(vec![i16::MIN, i16::MAX, 0]),
        mantissa in prop::sample::select(vec![i32::MIN, -1, 0, 1, i32::MAX]),
        exponents in prop::collection::vec(prop_oneof![edge_exponents(), Just(i16::MIN)], 6),
        e in any_exp(),
        lr in any_rate(),
        factor in any_real(),
        adam in any::<bool>(),
    ) {
        let base = &bases()[which];
        let mut bytes = AdapterFixture::random(&base.model(), 2, 0.5, 2.0, 77).bytes().to_vec();
        fill(&mut bytes, section::LORA_HIGH, &high.to_le_bytes(), None);
        fill(&mut bytes, section::LORA_LOW, &low.to_le_bytes(), None);
        let head = u32_at(&bytes, 8).unwrap() as usize;
        for (record, e) in exponents.chunks(3).enumerate() {
            let at = head + 48 * record;
            for (field, e) in [20, 22, 28].into_iter().zip(e) {
                bytes[at + field..at + field + 2].copy_from_slice(&e.to_le_bytes());
            }
            bytes[at + 24..at + 28].copy_from_slice(&mantissa.to_le_bytes());
        }
        reseal(&mut bytes);
        let image = aligned(&bytes);
        if adam {
            let _ = run_with(base.bytes(), Some(image.bytes()), e, factor, AdamW { lr, ..AdamW::DEFAULT });
        } else {
            let _ = run_with(base.bytes(), Some(image.bytes()), e, factor, Sgd { lr, ..Sgd::DEFAULT });
        }
    }

    /// Records whose fields are wild: nearly all of these are refused.
    #[test]
    fn changed_records(
        which in 0_usize..6,
        changes in prop::collection::vec((0_usize..2, prop::sample::select(vec![(0, 2), (2, 2), (4, 4), (8, 4), (12, 4), (16, 4)]), prop_oneof![0_u32..80, Just(u32::MAX), Just(u32::MAX - 20)]), 1..4),
    ) {
        let base = &bases()[which];
        let model = base.model();
        let mut bytes = AdapterFixture::random(&model, 2, 0.5, 2.0, 78).bytes().to_vec();
        let head = u32_at(&bytes, 8).unwrap() as usize;
        for (record, (field, len), value) in changes {
            let at = head + 48 * record + field;
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        reseal(&mut bytes);
        let image = aligned(&bytes);
        if let Ok(adapter) = Adapter::open(&model, image.bytes()) {
            prop_assert!(use_base(base.bytes(), Some(&adapter)));
        }
    }

    /// Records that point anywhere inside the planes: smaller ranks, A and B over each other and over their neighbours.
    /// All of these are sound as far as memory goes, so whatever opens must run, learn and be saved.
    #[test]
    fn overlapping_records(
        which in 0_usize..6,
        records in prop::collection::vec((1_u16..=2, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 2),
    ) {
        let base = &bases()[which];
        let model = base.model();
        let fixture = AdapterFixture::random(&model, 2, 0.5, 2.0, 79);
        let plane = fixture.open(&model).high().len();
        let mut bytes = fixture.bytes().to_vec();
        let head = u32_at(&bytes, 8).unwrap() as usize;
        for (site, (rank, a, b)) in records.iter().enumerate() {
            let (at, l) = (head + 48 * site, model.linear(site as u16));
            let rank_of = usize::from(*rank);
            let offsets = [a.index(plane - rank_of * l.inputs + 1), b.index(plane - rank_of * l.outputs + 1)];
            bytes[at + 2..at + 4].copy_from_slice(&rank.to_le_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&(offsets[0] as u32).to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&(offsets[1] as u32).to_le_bytes());
        }
        reseal(&mut bytes);
        let image = aligned(&bytes);
        let adapter = Adapter::open(&model, image.bytes());
        prop_assert!(adapter.is_ok(), "inside the planes: {:?}", adapter.err());
        prop_assert!(use_base(base.bytes(), adapter.ok().as_ref()));
    }
}

/// Truncated by somebody who knows the format: the total length and both checksums say that all is well.
#[test]
fn every_resealed_truncation_is_an_error_or_runs() {
    for base in bases() {
        for len in 0..base.bytes().len() {
            let mut bytes = base.bytes()[..len].to_vec();
            if len >= HEADER {
                bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
                reseal(&mut bytes);
            }
            use_base(aligned(&bytes).bytes(), None);
        }
    }
}

/// The guard of the extreme cases: rates at the ends are refused or trained with, and most are trained with.
#[test]
fn extreme_rates_are_mostly_taken() {
    let base = &bases()[0];
    let mut taken = 0;
    for lr in [Real::ZERO, Real::from_parts(1, -40), Real::ONE, Real::from_parts(i32::MAX, i16::MAX)] {
        for e in [Exp(i16::MIN), Exp(-12), Exp(i16::MAX)] {
            taken += u32::from(run_with(base.bytes(), None, e, Real::ONE, AdamW { lr, ..AdamW::DEFAULT }));
            taken += u32::from(run_with(base.bytes(), None, e, Real::ONE, Sgd { lr, ..Sgd::DEFAULT }));
        }
    }
    assert_eq!(taken, 24);
    let lr = Real::int(-1);
    assert!(!run_with(base.bytes(), None, Exp(-12), Real::ONE, Sgd { lr, ..Sgd::DEFAULT }), "a negative rate");
}
