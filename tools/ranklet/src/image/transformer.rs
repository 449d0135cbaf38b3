//! A transformer's checkpoint becomes an image, one matrix at a time: memory holds one matrix in floats and its mantissas,
//! and neither the checkpoint nor the image.
//!
//! The `source` fingerprint is the truncated SHA-256 of: `"ranklet source 2\n"`, the family, head, features and outputs
//! as u32, the transformer's part of the spec (without sections, and with a 16-bit stream), and then, in the spec's
//! order, every table and every layer (module path, u64 rows and columns, f32 weight (out, in); u8 1 and the f32 bias, or
//! u8 0), every norm (u8 1 and its f32 weight, likewise its bias, if it has one), the rotary angles as u32, and the relative
//! biases (`encoder` or `decoder`, and a matrix). Little-endian; −0 as +0; lengths of texts as u32 before them. A tied
//! head counts as its table. Where a tensor lies, in which type and under which prefix, is no part of it.

use super::base::{Converted, LayerReport, add_quantized, le};
use super::sections::{Sections, Spool, Unwritten, part};
use crate::checkpoint::Checkpoint;
use crate::hf::{Network, NormSource, Source, matrix};
use crate::quantize::recipe::Recipe;
use crate::quantize::{WeightType, quantize, scalars};
use crate::tensor::Matrix;
use anyhow::{Context, Result, bail};
use ranklet::image::Fingerprint;
use ranklet::image::layout::{Dtype, NONE, section};
use ranklet::model::spec::transformer::NormSpec;
use ranklet::model::spec::{Body, Flags, Position, Roles, Transformer};
use ranklet::model::{HeadKind, LinearSpec, Spec};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Converts, in memory.
///
/// # Errors
/// As [`prepare`].
pub fn convert(
    checkpoint: &Checkpoint,
    network: &Network,
    to: impl Into<Recipe>,
    wide: bool,
    each: impl FnMut(),
) -> Result<Converted> {
    prepare(checkpoint, network, to, wide, Spool::memory(), each)?.into_memory()
}

/// Converts up to the point where the image can be written. `each` is called once a layer, for a progress bar.
///
/// # Errors
/// A tensor that is missing or has another shape than the spec needs; a model beyond what the format can hold.
pub fn prepare(
    checkpoint: &Checkpoint,
    network: &Network,
    to: impl Into<Recipe>,
    wide: bool,
    spool: Spool,
    mut each: impl FnMut(),
) -> Result<Unwritten> {
    let mut t = network.transformer;
    if wide && !t.flags.has(Flags::PRE_NORM) {
        bail!("a 32-bit residual stream is for networks whose norms stand in front; behind a norm nothing is large");
    }
    let recipe = to.into();
    let names =
        || network.linears.iter().map(|l| l.module.as_str()).chain(network.tables.iter().map(|t| t.module.as_str()));
    recipe.check(&names().collect::<Vec<_>>())?;
    let head = network.linears.last().filter(|_| network.tied()).map(|l| l.module.as_str());
    let mut writer = Writer { checkpoint, sections: Sections::new(spool), hash: Hash::new(network), layers: vec![] };
    if wide {
        t.flags = t.flags.or(Flags::WIDE);
    }
    let mut tables = vec![];
    for (i, source) in network.tables.iter().enumerate() {
        let own = source.module.as_str();
        let to = recipe.of(&[own, head.filter(|_| i == 0).unwrap_or(own)]);
        tables.push(writer.linear(source, NONE, to, table_shape(&t, i))?);
    }
    let mut records = vec![];
    for (site, source) in network.linears.iter().enumerate() {
        let tied = network.tied() && site + 1 == network.linears.len();
        let record = match tables.first() {
            Some(tokens) if tied => *tokens,
            _ => {
                let shape = shape(&t, network, role(&t, network, site));
                writer.linear(source, site as u16, recipe.of(&[&source.module]), shape)?
            }
        };
        records.push(LinearSpec { role: role(&t, network, site), ..record });
        each();
    }
    let norms = network.norms.iter().map(|n| writer.norm(n, t.dim)).collect::<Result<Vec<_>>>()?;
    if t.position == Position::Rotary {
        writer.hash.numbers(&network.rope);
        let data = le(&network.rope, |v| v.to_le_bytes());
        t.rope = writer.sections.push(part(section::ROPE, NONE, Dtype::I32, 0, 1, network.rope.len(), data))?;
    }
    for (stack, relative) in network.relative.iter().enumerate() {
        let Some(relative) = relative else { continue };
        let table = checkpoint.matrix(&relative.table, "(buckets, heads)")?;
        let buckets = 1 + relative.buckets.iter().flatten().copied().max().map_or(0, usize::from);
        if (table.rows, table.cols) != (buckets, t.heads) {
            let expected = format!("({buckets}, {}), by config.json", t.heads);
            return Err(checkpoint.wrong_shape(&relative.table, &[table.rows, table.cols], &expected).into());
        }
        writer.hash.matrix(["encoder", "decoder"][stack], &table);
        let turns = |v: f32| (f64::from(v) * std::f64::consts::LOG2_E * 65536.0).round_ties_even() as i32;
        let values: Vec<i32> =
            (0..table.cols).flat_map(|h| table.iter_rows().map(move |row| turns(row[h])).collect::<Vec<_>>()).collect();
        let data = le(&values, |v| v.to_le_bytes());
        let bias = part(section::RELATIVE_BIAS, NONE, Dtype::I32, -16, table.cols, table.rows, data);
        t.bias[stack] = writer.sections.push(bias)?;
        let (rows, cols) = (relative.buckets.len(), relative.buckets[0].len());
        t.buckets[stack] =
            writer.sections.push(part(section::BUCKETS, NONE, Dtype::U8, 0, rows, cols, relative.buckets.concat()))?;
    }
    let Writer { mut sections, hash, layers, .. } = writer;
    let names: Vec<&str> = network.linears.iter().map(|l| l.module.as_str()).collect();
    sections.text(section::NAMES, &names.join("\n"))?;
    sections.text(section::METADATA, &metadata(network, &layers))?;
    if !network.text.vocabulary.is_empty() {
        let data = network.text.vocabulary.clone();
        sections.push(part(section::VOCABULARY, NONE, Dtype::Bytes, 0, 1, data.len(), data))?;
    }
    let spec = Spec {
        head: network.head,
        features: network.features,
        outputs: network.outputs,
        linears: records.len() as u16,
        mean: NONE,
        scale: NONE,
        body: Body::Transformer(t),
    };
    let mut bytes = spec.to_bytes().to_vec();
    bytes.extend(t.to_bytes());
    bytes.extend(records.iter().chain(&tables).flat_map(LinearSpec::to_bytes));
    bytes.extend(norms.iter().flat_map(NormSpec::to_bytes));
    let source = hash.finish();
    let mut unwritten = sections.finish(source, &bytes, layers)?;
    let skeleton = unwritten.skeleton()?;
    ranklet::model::Plan::new(&skeleton).context("this network is beyond what the format can hold")?;
    Ok(unwritten)
}

struct Writer<'c> {
    checkpoint: &'c Checkpoint,
    sections: Sections,
    hash: Hash,
    layers: Vec<LayerReport>,
}

impl Writer<'_> {
    /// A matrix of `shape`, (outputs, inputs).
    fn linear(&mut self, source: &Source, site: u16, to: WeightType, shape: [usize; 2]) -> Result<LinearSpec> {
        let m = matrix(self.checkpoint, source)?;
        if [m.rows, m.cols] != shape {
            let of = |[o, i]: [usize; 2]| if source.transposed { [i, o] } else { [o, i] };
            let expected = format!("{}, by config.json", crate::tensor::shape(&of(shape)));
            return Err(self.checkpoint.wrong_shape(&source.weight, &of([m.rows, m.cols]), &expected).into());
        }
        let q = quantize(&m, to);
        self.layers.push(LayerReport {
            module: source.module.clone(),
            inputs: m.cols,
            outputs: m.rows,
            snr_db: q.snr_db(&m),
        });
        self.hash.matrix(&source.module, &m);
        let bias = match &source.bias {
            Some(name) => Some(self.checkpoint.vector(name, m.rows, &format!("output of `{}`", source.module))?),
            None => None,
        };
        self.hash.vector(bias.as_deref());
        add_quantized(&mut self.sections, site, q, bias.as_deref())
    }

    fn norm(&mut self, source: &NormSource, dim: usize) -> Result<NormSpec> {
        let mut vector = |name: &str, kind| -> Result<u16> {
            let values = self.checkpoint.vector(name, dim, "channel")?;
            self.hash.vector(Some(&values));
            let (m, e) = scalars::i32s(&values);
            self.sections.push(part(kind, NONE, Dtype::I32, e, 1, dim, le(&m, |v| v.to_le_bytes())))
        };
        let weight = vector(&source.weight, section::NORM_WEIGHT)?;
        let bias = match &source.bias {
            Some(name) => vector(name, section::BIAS)?,
            None => NONE,
        };
        Ok(NormSpec { weight, bias })
    }
}

/// What a table must be: (rows, dim).
fn table_shape(t: &Transformer, place: usize) -> [usize; 2] {
    let positions = if t.position == Position::Learned { t.positions } else { 0 };
    let rows = [t.vocab, positions, t.types].into_iter().filter(|&rows| rows > 0).nth(place);
    [rows.unwrap_or(0), t.dim]
}

/// What a layer must be: (outputs, inputs).
fn shape(t: &Transformer, network: &Network, role: Roles) -> [usize; 2] {
    let (dim, query, kv) = (t.dim, t.query_width(), t.kv_width());
    match Roles(role.0 & !Roles::CROSS.0) {
        Roles::INPUT => [dim, network.features],
        Roles::POOLER => [dim, dim],
        Roles::HEAD => [network.outputs, dim],
        Roles::QKV => [query + 2 * kv, dim],
        Roles::Q => [query, dim],
        Roles::K | Roles::V => [kv, dim],
        Roles::O => [dim, query],
        Roles::DOWN => [dim, t.hidden],
        _ => [t.hidden, dim],
    }
}

/// The role of a site, as the spec's order has it.
fn role(t: &Transformer, network: &Network, site: usize) -> Roles {
    use ranklet::model::spec::Stack::{Decoder, Encoder};
    let site = site as u16;
    if t.input_site() == Some(site) {
        return Roles::INPUT;
    }
    if t.pooler_site() == Some(site) {
        return Roles::POOLER;
    }
    if network.head != HeadKind::None && site == t.head_site() {
        return Roles::HEAD;
    }
    for (stack, blocks) in [(Encoder, t.encoder), (Decoder, t.decoder)] {
        for sites in (0..blocks).map(|i| t.block(stack, i)) {
            let [key, value] = sites.key_value.unwrap_or([sites.query; 2]);
            let [q, k, v, o] = sites.cross.unwrap_or([u16::MAX; 4]);
            let cross = |role: Roles| role | Roles::CROSS;
            let all = [
                (sites.query, if sites.key_value.is_some() { Roles::Q } else { Roles::QKV }),
                (key, Roles::K),
                (value, Roles::V),
                (sites.output, Roles::O),
                (q, cross(Roles::Q)),
                (k, cross(Roles::K)),
                (v, cross(Roles::V)),
                (o, cross(Roles::O)),
                (sites.gate.unwrap_or(u16::MAX), Roles::GATE),
                (sites.up, Roles::UP),
                (sites.down, Roles::DOWN),
            ];
            if let Some((_, role)) = all.into_iter().find(|(s, _)| *s == site) {
                return role;
            }
        }
    }
    Roles::HIDDEN
}

fn metadata(network: &Network, layers: &[LayerReport]) -> String {
    let mut metadata = Map::new();
    metadata.insert("model_type".to_owned(), json!(network.family));
    if !network.labels.is_empty() {
        let labels = network.labels.iter().map(|(i, name)| (i.to_string(), json!(name)));
        metadata.insert("id2label".to_owned(), Value::Object(labels.collect()));
    }
    if let Some(ends) = &network.text.ends {
        metadata.insert("eos_token_id".to_owned(), json!(ends));
    }
    let snr = layers.iter().map(|l| (l.module.clone(), json!((l.snr_db * 10.0).round() / 10.0)));
    metadata.insert("snr_db".to_owned(), Value::Object(snr.collect()));
    Value::Object(metadata).to_string()
}

/// The `source` fingerprint while it grows.
struct Hash(Sha256);

impl Hash {
    fn new(network: &Network) -> Hash {
        let mut hash = Hash(Sha256::new());
        hash.0.update(b"ranklet source 2\n");
        hash.text(&network.family);
        hash.numbers(&[network.head as u32, network.features as u32, network.outputs as u32]);
        hash.0.update(network.transformer.to_bytes());
        hash
    }

    fn text(&mut self, s: &str) {
        self.0.update((s.len() as u32).to_le_bytes());
        self.0.update(s.as_bytes());
    }

    fn numbers(&mut self, values: &[u32]) {
        values.iter().for_each(|n| self.0.update(n.to_le_bytes()));
    }

    fn floats(&mut self, values: &[f32]) {
        // A piece at a time: the digest of four bytes alone costs more than they do.
        for piece in values.chunks(1024) {
            self.0.update(le(piece, |v: f32| (v + 0.0).to_le_bytes()));
        }
    }

    fn matrix(&mut self, name: &str, m: &Matrix) {
        self.text(name);
        self.0.update((m.rows as u64).to_le_bytes());
        self.0.update((m.cols as u64).to_le_bytes());
        self.floats(&m.data);
    }

    fn vector(&mut self, values: Option<&[f32]>) {
        self.0.update([u8::from(values.is_some())]);
        self.floats(values.unwrap_or(&[]));
    }

    fn finish(self) -> Fingerprint {
        let mut out = Fingerprint::default();
        out.0.iter_mut().zip(self.0.finalize().iter()).for_each(|(o, h)| *o = *h);
        out
    }
}
