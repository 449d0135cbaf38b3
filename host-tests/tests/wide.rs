//! Heads as wide as the core takes them: more outputs than inputs, up to [`MAX_OUTPUTS`], as large vocabularies need.

use ranklet::fixed::{Exp, Real, Tile, TileMut};
use ranklet::image::head::SpecProblem;
use ranklet::image::{ImageError, Kind, NewImage, NewSection};
use ranklet::kernel::{MAX_DIM, MAX_OUTPUTS, Weights};
use ranklet::layer::linear::{Extras, Scratch};
use ranklet::layer::{Activation, Linear, Lora};
use ranklet::model::spec::{RECORD, Transformer};
use ranklet::model::{Model, Plan, Sequence, Spec, Workspace};
use ranklet_cli::image::ImageFile;
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::fixture::transformer::{image, llama};
use std::path::Path;

/// Where the transformer's numbers stand in its spec: behind the fixed part.
const VOCAB: usize = RECORD + 8;

fn widest() -> (Spec, Transformer) {
    let (spec, t) = llama();
    let t = Transformer { dim: 2, hidden: 4, heads: 1, kv_heads: 1, head_dim: 2, decoder: 1, vocab: MAX_OUTPUTS, ..t };
    // q, k, v, o, gate, up, down, and the head.
    (Spec { outputs: MAX_OUTPUTS, linears: 8, ..spec }, t)
}

/// The same image under a spec in which the `u32` at `at` is `value`.
fn respecified(file: &ImageFile, at: usize, value: u32) -> Result<(), ImageError> {
    let (head, bytes) = (file.head().expect("a head"), file.bytes());
    let mut spec = head.spec(bytes).to_vec();
    spec[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let section = |i| head.section(bytes, i).expect("counted");
    let sections: Vec<NewSection<'_>> = (0..head.sections)
        .map(section)
        .map(|s| NewSection {
            kind: s.kind,
            site: s.site,
            dtype: s.dtype,
            order: s.order,
            exponent: s.exponent,
            rows: s.rows,
            cols: s.cols,
            data: head.bytes_of(bytes, &s),
        })
        .collect();
    let new = NewImage { kind: Kind::Base, source: head.source, image: head.image, spec: &spec, sections: &sections };
    let mut out = vec![0; new.total_len()];
    new.write_to(&mut &mut out[..]).expect("as long as it says");
    Model::open(ImageFile::of(Path::new("wide.rkl"), &out).bytes()).map(|_| ())
}

/// The last token of the widest vocabulary goes in, and its logit comes out: of a random network, that of the float product
/// of its last hidden state with the head's last row.
#[test]
fn the_widest_vocabulary_runs() {
    let (spec, t) = widest();
    let file = image(spec, t, WeightType::I16, 3);
    let model = file.model().expect("a base");
    let plan = Plan::new(file.bytes()).expect("a plan").tokens(1).context(1);
    let mut memory = vec![0; plan.bytes() + 64];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&plan).expect("planned");
    let ids = [MAX_OUTPUTS as u32 - 1];
    model.decode(&mut scratch, &mut cache, Sequence::tokens(&ids), &[]).expect("decodes");
    let value = |m: i16, e: Exp| f64::from(m) * f64::from(e.get()).exp2();
    let hidden = model.hidden(&scratch, 0).expect("a state");
    let hidden: Vec<f64> = hidden.mantissas.iter().map(|&m| value(m, hidden.exponent)).collect();
    let logits = model.logits(&mut scratch, 0, &[]).expect("logits");
    assert_eq!(logits.mantissas.len(), MAX_OUTPUTS);
    let head = model.linear(spec_head(&model));
    let Weights::I16(weights) = head.weights else { panic!("as it was made") };
    let unit = f64::from(logits.exponent.get()).exp2();
    for row in [0, MAX_DIM, MAX_OUTPUTS - 1] {
        let scale = f64::from(head.scales[row]) * f64::from(head.exponent).exp2();
        let want: f64 = (0..2).map(|k| f64::from(weights[2 * row + k]) * scale * hidden[k]).sum();
        let found = value(logits.mantissas[row], logits.exponent);
        assert!((found - want).abs() <= 0.5001 * unit, "row {row}: {found}, not {want}");
    }
    let beyond = MAX_OUTPUTS as u32 + 1;
    let dimension = |offset| Err(ImageError::Spec { offset, problem: SpecProblem::Dimension(beyond) });
    assert_eq!(respecified(&file, VOCAB, MAX_OUTPUTS as u32), Ok(()));
    assert_eq!(respecified(&file, VOCAB, beyond), dimension(VOCAB));
    // The head's record and the table's: in each, the outputs are the second field.
    let parsed = file.head().expect("a head");
    let bytes = parsed.spec(file.bytes());
    let widest = |at: &usize| bytes[*at..at + 4] == (MAX_OUTPUTS as u32).to_le_bytes();
    let outputs: Vec<usize> = (RECORD + 4..bytes.len() - 4).step_by(RECORD).filter(widest).collect();
    let [head, table] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(respecified(&file, head, beyond), dimension(head));
    // A table has the rows that the vocabulary says.
    let chain = ImageError::Spec { offset: table - 4, problem: SpecProblem::Chain };
    assert_eq!(respecified(&file, table, beyond), Err(chain));
}

fn spec_head(model: &Model<'_>) -> u16 {
    model.spec().transformer().expect("a transformer").head_site()
}

/// `s · Bᵀ dy` over as many outputs as there may be, every factor at its limit and of one sign, 2^63 but for what dy lacks
/// to 2^15: the largest sum of the backward pass.
#[test]
fn the_widest_gradient_fits() {
    let weights = vec![0_i8; MAX_OUTPUTS];
    let scales = vec![0_u16; MAX_OUTPUTS];
    let linear = Linear {
        weights: Weights::I8(&weights),
        inputs: 1,
        outputs: MAX_OUTPUTS,
        scales: &scales,
        exponent: 0,
        bias: None,
        activation: Activation::None,
    };
    let b = vec![1_i16 << 14; MAX_OUTPUTS];
    // Rounded to 16 bits it is 2^16: the largest factor.
    let scaling = Real::new((1 << 31) - 1, -31);
    assert_eq!(scaling.to_parts_16().0, 1 << 16);
    for sign in [1, -1] {
        let lora = Lora {
            rank: 1,
            a: &[1 << 14],
            a_exponent: Exp(-14),
            b: &b,
            b_exponent: Exp(-14),
            scaling,
            dropout: None,
            extras: Extras::NONE,
        };
        let dy = vec![sign * 32639; MAX_OUTPUTS];
        let (mut acc, mut vector) = (vec![0; MAX_OUTPUTS], vec![0; MAX_OUTPUTS]);
        let mut rank = vec![0; Linear::rank_len(1, 1)];
        let mut scratch = Scratch { acc: &mut acc, vector: &mut vector, rank: &mut rank, masked: &mut [] };
        let (mut dx, mut exponents) = ([0], [Exp::ZERO]);
        let tile = TileMut { mantissas: &mut dx, exponents: &mut exponents };
        let x = Tile { mantissas: &[0], exponents: &[Exp::ZERO] };
        let dy = Tile { mantissas: &dy, exponents: &[Exp(0)] };
        linear.backward(x, dy, std::iter::once(lora), None, Some(tile), &mut scratch).expect("fits");
        let found = f64::from(dx[0]) * f64::from(exponents[0].get()).exp2();
        let want = f64::from(sign) * 32639.0 * MAX_OUTPUTS as f64;
        // Two roundings to 16 bits.
        assert!((found / want - 1.0).abs() < 2.0 / 32768.0, "{found}, not {want}");
    }
}
