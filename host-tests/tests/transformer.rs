//! What transformers promise whatever their weights: bits that do not depend on how a text is cut, on padding, or on
//! what else the scratch was used for; refusals; plans that suffice.

use proptest::prelude::*;
use ranklet::fixed::{Block, Exp};
use ranklet::layer::normalize::Input;
use ranklet::model::{Active, Cache, CacheType, HeadKind, Model, Plan, RunError, Sequence, SequenceScratch, Workspace};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::transformer::{bert, gpt2, image, llama, sensor, t5};
use ranklet_host_tests::fixture::{AdapterFixture, relative_l2};

/// A block that outlives its scratch.
type Owned = (Vec<i16>, Exp);

fn owned(block: Block<'_>) -> Owned {
    (block.mantissas.to_vec(), block.exponent)
}

fn floats(block: &Owned) -> Vec<f64> {
    block.0.iter().map(|&m| f64::from(m) * f64::from(block.1.get()).exp2()).collect()
}

/// Memory of exactly the size that a plan tells, filled with what others left.
struct Desk(Vec<u8>);

impl Desk {
    fn new(plan: &Plan<'_>) -> Desk {
        Desk(vec![0xA5; plan.bytes() + 15])
    }

    fn split(&mut self, plan: &Plan<'_>) -> (SequenceScratch<'_>, Cache<'_>) {
        Workspace::new(&mut self.0).sequence(plan).expect("planned")
    }
}

/// Logits of every token, the text given in pieces.
fn in_pieces(
    model: &Model<'_>,
    plan: &Plan<'_>,
    source: &[u32],
    ids: &[u32],
    pieces: &[usize],
    adapters: &[Active<'_>],
) -> Vec<Owned> {
    let mut desk = Desk::new(plan);
    let (mut scratch, mut cache) = desk.split(plan);
    if !source.is_empty() {
        model.encode(&mut scratch, &mut cache, Sequence::tokens(source), adapters).expect("encodes");
    }
    let (mut rest, mut out) = (ids, vec![]);
    for &piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(piece.min(rest.len()));
        model.decode(&mut scratch, &mut cache, Sequence::tokens(now), adapters).expect("decodes");
        out.extend((0..now.len()).map(|i| owned(model.logits(&mut scratch, i, adapters).expect("logits"))));
        rest = later;
    }
    assert_eq!(cache.len(), ids.len());
    out
}

fn plan<'a>(file: &'a ImageFile, tokens: usize, cache: CacheType) -> Plan<'a> {
    Plan::new(file.bytes()).expect("a plan").tokens(tokens).source(12).context(32).cache(cache)
}

/// Token by token, in pieces, or at once: the same bits, for every kind of decoder, with two adapters.
#[test]
fn how_a_text_is_cut_changes_no_bit() {
    let ids: Vec<u32> = (0..21).map(|i| (i * 17 + 5) % 50).collect();
    for ((spec, t), source) in [(llama(), &[][..]), (gpt2(), &[]), (t5(), &[3, 9, 27, 31, 1, 0, 4])] {
        for to in [WeightType::I16, WeightType::I8] {
            let file = image(spec, t, to, 7);
            let model = file.model().expect("a model");
            let pairs =
                [AdapterFixture::random(&model, 3, 0.2, 2.0, 8), AdapterFixture::random(&model, 5, 0.2, 1.0, 9)];
            let opened = [pairs[0].open(&model), pairs[1].open(&model)];
            let adapters = [opened[0].view(), opened[1].view()];
            let whole = in_pieces(&model, &plan(&file, 21, CacheType::I16), source, &ids, &[21], &adapters);
            let base = in_pieces(&model, &plan(&file, 21, CacheType::I16), source, &ids, &[21], &[]);
            assert_ne!(whole, base, "the adapters do something");
            for pieces in [&[1][..], &[5, 1, 2], &[8, 13]] {
                let cut = in_pieces(&model, &plan(&file, 13, CacheType::I16), source, &ids, pieces, &adapters);
                assert!(cut == whole, "{:?}, pieces of {pieces:?}", t.position);
            }
            // A token sees nothing that comes later.
            let mut other = ids.clone();
            other[15] = 1;
            let changed = in_pieces(&model, &plan(&file, 21, CacheType::I16), source, &other, &[21], &adapters);
            assert_eq!(changed[..15], whole[..15]);
            assert_ne!(changed[15..], whole[15..]);
        }
    }
}

#[test]
fn an_8_bit_cache_is_near() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I16, 17);
    let model = file.model().expect("a model");
    let ids: Vec<u32> = (0..30).map(|i| (i * 7 + 3) % 50).collect();
    let run = |cache| in_pieces(&model, &plan(&file, 8, cache), &[], &ids, &[8], &[]);
    let all = |v: Vec<Owned>| v.iter().flat_map(floats).collect::<Vec<f64>>();
    let error = relative_l2(&all(run(CacheType::I8)), &all(run(CacheType::I16)));
    println!("8-bit cache: {error:.2e}");
    // Seven bits a row of keys and values: 2^-8 / √3 of the peak, somewhat more after three layers.
    assert!(error > 1e-4 && error < 2e-2, "{error}");
    let bytes = |cache| plan(&file, 8, cache).cache_bytes();
    assert!(bytes(CacheType::I8) * 10 < bytes(CacheType::I16) * 7);
}

/// What is padded never touches what is not, bit for bit, in an encoder and behind a cross-attention.
#[test]
fn padding_has_no_influence() {
    for (spec, t) in [bert(), t5()] {
        let file = image(spec, t, WeightType::I8, 23);
        let model = file.model().expect("a model");
        let plan = plan(&file, 12, CacheType::I16);
        let run = |ids: &[u32], valid: Option<&[bool]>, count: usize| -> Vec<Owned> {
            let mut desk = Desk::new(&plan);
            let (mut scratch, mut cache) = desk.split(&plan);
            let sequence = valid.map_or(Sequence::tokens(ids), |v| Sequence::tokens(ids).valid(v));
            model.encode(&mut scratch, &mut cache, sequence, &[]).expect("encodes");
            let mut out: Vec<Owned> = (0..count).map(|i| owned(model.hidden(&scratch, i).expect("a state"))).collect();
            if t.has_cross() {
                model.decode(&mut scratch, &mut cache, Sequence::tokens(&[0, 5, 9]), &[]).expect("decodes");
                out.extend((0..3).map(|i| owned(model.hidden(&scratch, i).expect("a state"))));
            }
            out
        };
        let short = [4, 8, 15, 16, 23, 42, 1];
        let alone = run(&short, None, 7);
        for padding in [[0; 5], [49, 3, 1, 7, 30]] {
            let ids = [&short[..], &padding].concat();
            let valid = [vec![true; 7], vec![false; 5]].concat();
            assert!(run(&ids, Some(&valid), 7) == alone, "padding {padding:?}");
        }
        // In the middle, too: what stands there does not matter.
        let valid = [true, true, false, true, true, true, true];
        let mut other = short;
        other[2] = 33;
        let but =
            |v: Vec<Owned>| v.into_iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, v)| v).collect::<Vec<_>>();
        assert_eq!(but(run(&short, Some(&valid), 7)), but(run(&other, Some(&valid), 7)));
    }
}

/// The scratch's history, and how large it was planned, change nothing.
#[test]
fn a_scratch_has_no_memory() {
    let (spec, t) = sensor();
    let file = image(spec, t, WeightType::I8, 29);
    let model = file.model().expect("a model");
    let samples: Vec<i16> = (0..50).map(|i| ((i * 7919) % 20_000 - 10_000) as i16).collect();
    let run = |plan: &Plan<'_>, before: bool| {
        let mut desk = Desk::new(plan);
        let (mut scratch, mut cache) = desk.split(plan);
        if before {
            let noise = vec![12345; 10];
            let other = Sequence::features(Input::i16(&noise, Exp(-3)), 2);
            model.encode(&mut scratch, &mut cache, other, &[]).expect("encodes");
            model.pooled(&mut scratch, other, &[]).expect("pools");
        }
        let sequence = Sequence::features(Input::i16(&samples, Exp(-12)), 10);
        model.encode(&mut scratch, &mut cache, sequence, &[]).expect("encodes");
        owned(model.pooled(&mut scratch, sequence, &[]).expect("pools"))
    };
    let exact = Plan::new(file.bytes()).expect("a plan").tokens(10);
    let first = run(&exact, false);
    assert_eq!(first, run(&exact, true));
    assert_eq!(first, run(&exact.tokens(31), true));
}

#[test]
fn refusals_say_what_is_wrong() {
    let (spec, t) = llama();
    let file = image(spec, t, WeightType::I8, 31);
    let model = file.model().expect("a model");
    let plan = Plan::new(file.bytes()).expect("a plan").tokens(4).context(6);
    let mut desk = Desk::new(&plan);
    let (mut scratch, mut cache) = desk.split(&plan);
    let mut decode = |ids: &[u32], cache: &mut Cache<'_>| model.decode(&mut scratch, cache, Sequence::tokens(ids), &[]);
    assert_eq!(decode(&[], &mut cache), Err(RunError::Length { found: 0, limit: 4 }));
    assert_eq!(decode(&[1; 5], &mut cache), Err(RunError::Length { found: 5, limit: 4 }));
    assert_eq!(decode(&[1, 50], &mut cache), Err(RunError::Token { index: 1, found: 50, vocab: 50 }));
    assert_eq!(decode(&[1, 2, 3, 4], &mut cache), Ok(()));
    assert_eq!(decode(&[1, 2, 3], &mut cache), Err(RunError::Context { needed: 7, capacity: 6 }));
    assert_eq!(cache.len(), 4, "a refusal leaves the text as it was");
    assert_eq!(decode(&[1, 2], &mut cache), Ok(()));
    cache.clear();
    assert_eq!(decode(&[9], &mut cache), Ok(()));
    assert_eq!(model.encode(&mut scratch, &mut cache, Sequence::tokens(&[1]), &[]), Err(RunError::Architecture));
    let features = Sequence::features(Input::i16(&[1; 24], Exp(0)), 1);
    assert_eq!(model.decode(&mut scratch, &mut cache, features, &[]), Err(RunError::InputKind));
    assert_eq!(model.logits(&mut scratch, 1, &[]).map(|_| ()), Err(RunError::Index { found: 1, len: 1 }));

    let (spec, t) = t5();
    let file = image(spec, t, WeightType::I8, 31);
    let model = file.model().expect("a model");
    let other = Plan::new(file.bytes()).expect("a plan").tokens(4).source(4);
    let e = model.encode(&mut scratch, &mut cache, Sequence::tokens(&[1]), &[]);
    assert!(matches!(e, Err(RunError::Shape(_))), "another network's scratch: {e:?}");
    let mut desk = Desk::new(&other);
    let (mut scratch, mut cache) = desk.split(&other);
    assert_eq!(model.decode(&mut scratch, &mut cache, Sequence::tokens(&[0]), &[]), Err(RunError::NoSource));
    assert_eq!(spec.head, HeadKind::Classification);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// One head or many, shared or not, of any width, one token or the longest text: cut or whole, the same bits.
    #[test]
    fn shapes(kv_heads in 1_usize..4, group in 1_usize..4, half in 1_usize..5, dim in 1_usize..20, hidden in 1_usize..20, length in 1_usize..=32, wide in any::<bool>(), seed in any::<u64>()) {
        let (_, t) = llama();
        let mut t = ranklet::model::spec::Transformer { kv_heads, heads: kv_heads * group, head_dim: 2 * half, dim, hidden, decoder: 2, ..t };
        if wide {
            t.flags = t.flags.or(ranklet::model::spec::Flags::WIDE);
        }
        let spec = ranklet_host_tests::fixture::transformer::spec(HeadKind::Language, 0, 50, t);
        let file = image(spec, t, WeightType::I8, seed);
        let model = file.model().expect("a model");
        let ids: Vec<u32> = (0..length as u32).map(|i| (i * 13 + 1) % 50).collect();
        let whole = in_pieces(&model, &plan(&file, 32, CacheType::I16), &[], &ids, &[32], &[]);
        let cut = in_pieces(&model, &plan(&file, 3, CacheType::I16), &[], &ids, &[3, 1], &[]);
        prop_assert_eq!(whole, cut);
    }
}
