//! `ranklet inspect FILE`

use super::export::base_metadata;
use crate::adapter::trainable_line;
use crate::describe;
use crate::image::{ImageFile, metadata, parameters, sites};
use crate::report::{Report, bytes, decimal, table};
use crate::tensor::thousands;
use anyhow::{Context, Result, bail};
use ranklet::image::layout::{Dtype, NONE, VERSION, section};
use ranklet::image::{Head, Kind, LoraRecord};
use ranklet::layer::Activation;
use ranklet::model::{Plan, Train};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use zerocopy::FromBytes;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A base or adapter image.
    pub file: PathBuf,
    /// For an adapter: the image of its base, to check it against and to name its layers.
    #[arg(long)]
    pub base: Option<PathBuf>,
}

/// Inspects.
///
/// # Errors
/// What is wrong with the image, and where.
pub fn execute(args: &Args) -> Result<Report> {
    let file = ImageFile::open(&args.file)?;
    let head = file.head()?;
    let (sections, sections_json) = sections(&head, file.bytes());
    let mut human = format!(
        "{}: {} image, format {VERSION}, {} in {} sections, checksums right\nsource {}  image {}\n\n{sections}\n\n",
        args.file.display(),
        if head.kind == Kind::Base { "base" } else { "adapter" },
        bytes(head.total_len as u64),
        head.sections,
        head.source,
        head.image,
    );
    let mut json = json!({
        "file": super::shown(&args.file),
        "kind": if head.kind == Kind::Base { "base" } else { "adapter" },
        "format": VERSION,
        "bytes": head.total_len,
        "source": head.source.to_string(),
        "image": head.image.to_string(),
        "sections": sections_json,
    });
    let (text, more) = match head.kind {
        Kind::Base if args.base.is_some() => {
            bail!("{}: --base is for an adapter, and this is a base image itself", args.file.display())
        }
        Kind::Base => base(&file)?,
        Kind::Adapter => adapter(&file, &head, args)?,
    };
    human += &text;
    for (k, v) in more {
        json[k] = v;
    }
    Ok(Report::new(human, json))
}

fn sections(head: &Head, image: &[u8]) -> (String, Vec<Value>) {
    let mut rows = vec![["section", "layer", "type", "shape", "bytes", "offset"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for s in (0..head.sections).filter_map(|i| head.section(image, i)) {
        let name = match s.kind {
            section::WEIGHT => "weight",
            section::ROW_SCALE => "row scale",
            section::BIAS => "bias",
            section::GROUP_SCALE => "group scale",
            section::INPUT_MEAN => "input mean",
            section::INPUT_SCALE => "input scale",
            section::LORA_RECORDS => "LoRA records",
            section::LORA_HIGH => "LoRA high plane",
            section::LORA_LOW => "LoRA low plane",
            section::NAMES => "names",
            section::METADATA => "metadata",
            section::VOCABULARY => "vocabulary",
            section::NORM_WEIGHT => "norm weight",
            section::ROPE => "rotary angles",
            section::RELATIVE_BIAS => "relative bias",
            section::BUCKETS => "buckets",
            _ => "unknown",
        };
        let dtype = match s.dtype {
            Dtype::Bytes => "bytes",
            Dtype::I8 => "i8",
            Dtype::I16 => "i16",
            Dtype::I32 => "i32",
            Dtype::U8 => "u8",
            Dtype::U16 => "u16",
            Dtype::I4 => "i4",
            _ => "unknown",
        };
        let layer = if s.site == NONE { String::new() } else { s.site.to_string() };
        let shape = format!("({}, {})", s.rows, s.cols);
        let (length, offset) = (s.length.to_string(), s.offset.to_string());
        rows.push(vec![name.to_owned(), layer, dtype.to_owned(), shape, length, offset]);
        list.push(json!({
            "kind": s.kind, "name": name, "site": (s.site != NONE).then_some(s.site), "dtype": dtype,
            "order": s.order as u8, "rows": s.rows, "cols": s.cols, "exponent": s.exponent, "offset": s.offset, "bytes": s.length,
        }));
    }
    (table(&rows), list)
}

type Part = (String, Vec<(&'static str, Value)>);

fn base(file: &ImageFile) -> Result<Part> {
    let model = file.model()?;
    let spec = model.spec();
    let head = describe::head(spec.head);
    let meta = base_metadata(&model);
    let t = spec.transformer();
    let column = if t.is_some() { "role" } else { "activation" };
    let mut rows = vec![["site", "module", "in", "out", column, "SNR"].map(str::to_owned).to_vec()];
    let mut layers = Vec::new();
    for (i, site) in sites(&model).iter().enumerate() {
        let layer = model.linear_spec(i as u16);
        let role = layer.map_or(String::new(), |l| describe::role(l.role));
        let relu = layer.is_some_and(|l| l.activation == Activation::Relu);
        let shown = if t.is_some() { role.clone() } else { (if relu { "relu" } else { "" }).to_owned() };
        let snr = meta.get("snr_db").and_then(|m| m.get(&site.module)).cloned().unwrap_or(Value::Null);
        let quality = snr.as_f64().map_or(String::new(), |db| format!("{db:.1} dB"));
        let (inputs, outputs) = (site.inputs.to_string(), site.outputs.to_string());
        rows.push(vec![i.to_string(), site.module.clone(), inputs, outputs, shown, quality]);
        let mut layer =
            json!({"site": i, "module": site.module, "in": site.inputs, "out": site.outputs, "snr_db": snr});
        if t.is_some() {
            layer["role"] = json!(role);
        }
        layers.push(layer);
    }
    let plan = Plan::new(model.bytes())?;
    let training = plan.train(Train::adamw());
    let trainable = describe::trainable(&model, 8);
    let frozen = parameters(&model);
    let weights = describe::weight_types(&model);
    let family = match t {
        Some(_) => meta.get("model_type").and_then(Value::as_str).unwrap_or("transformer"),
        None => "mlp",
    };
    let input = match t {
        Some(t) if t.vocab > 0 => format!("{} tokens", thousands(t.vocab as u64)),
        _ => format!("{} features", spec.features),
    };
    let numbers = t.map_or(String::new(), |t| format!("{}\n", describe::transformer(t)));
    let memory = match t {
        Some(t) => format!("RAM for inference, {} tokens: {}", t.positions.min(32), bytes(plan.bytes() as u64)),
        None => format!(
            "RAM for inference {}; with training (AdamW, rank 8, every layer) {}",
            bytes(plan.bytes() as u64),
            bytes(training.bytes() as u64)
        ),
    };
    let text = format!(
        "{family}, head {head}, {input} to {} outputs, {} parameters as {weights}\n{numbers}\n{}\n\n\
         {memory}\nrank 8 on every layer: {}",
        spec.outputs,
        thousands(frozen),
        table(&rows),
        trainable_line(trainable, frozen),
    );
    let mut ram = json!({"inference": plan.bytes()});
    if t.is_none() {
        ram["training_adamw_rank8"] = json!(training.bytes());
    }
    let more = vec![
        ("model_type", json!(family)),
        ("head", json!(head)),
        ("weights", json!(weights)),
        ("parameters", json!(frozen)),
        ("layers", json!(layers)),
        ("id2label", meta.get("id2label").cloned().unwrap_or(Value::Null)),
        ("ram", ram),
        ("trainable_params_rank8", json!(trainable)),
        ("all_params_rank8", json!(trainable + frozen)),
        ("transformer", t.map_or(Value::Null, describe::transformer_json)),
    ];
    Ok((text, more))
}

fn adapter(file: &ImageFile, head: &Head, args: &Args) -> Result<Part> {
    let image = file.bytes();
    let find = |kind| head.find(image, kind).map_or(&[][..], |s| head.bytes_of(image, &s));
    let records = <[LoraRecord]>::ref_from_bytes(find(section::LORA_RECORDS))
        .map_err(|_| anyhow::anyhow!("{}: its table of LoRA records is misshapen", file.path().display()))?;
    let meta: Map<String, Value> = metadata::parse(std::str::from_utf8(find(section::METADATA)).unwrap_or(""));
    let mut frozen = meta.get("base_parameters").and_then(Value::as_u64);
    let mut names = Vec::new();
    let mut notes = Vec::new();
    if let Some(path) = &args.base {
        let base = ImageFile::open(path)?;
        let model = base.model()?;
        let adapter = file.adapter(&model).with_context(|| format!("against {}", path.display()))?;
        if !adapter.same_image() {
            notes.push("made with another quantization of this base's checkpoint".to_owned());
        }
        frozen = Some(parameters(&model));
        names = sites(&model).into_iter().map(|s| s.module).collect();
    }
    let mut rows = vec![["site", "module", "rank", "in", "out", "scaling", "more"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for r in records {
        let module = names.get(usize::from(r.site)).cloned().unwrap_or_default();
        let scaling = r.scaling().to_f64();
        rows.push(vec![
            r.site.to_string(),
            module.clone(),
            r.rank.to_string(),
            r.inputs.to_string(),
            r.outputs.to_string(),
            decimal(scaling, 6),
            more(r),
        ]);
        list.push(json!({
            "site": r.site, "module": module, "rank": r.rank, "in": r.inputs, "out": r.outputs, "scaling": scaling,
            "more": more(r),
        }));
    }
    let trainable = records.iter().fold(0, |sum: u64, r| sum.saturating_add(parameters_of(r)));
    let line = match frozen {
        Some(frozen) => trainable_line(trainable, frozen),
        None => format!("trainable params: {} (give --base for the whole line)", thousands(trainable)),
    };
    let extras = records.iter().any(LoraRecord::has_extras);
    let can_learn = head.find(image, section::LORA_LOW).is_some() && !extras;
    let text = format!(
        "{}\n\n{line}\n{}",
        table(&rows),
        match (can_learn, extras) {
            (true, _) => "has both planes: training can go on",
            (_, true) => "has more than A and B: for inference",
            (_, false) => "high plane only: for inference",
        }
    );
    let more = vec![
        ("pairs", json!(list)),
        ("trainable_params", json!(trainable)),
        ("all_params", json!(frozen.map(|f| f.saturating_add(trainable)))),
        ("can_train", json!(can_learn)),
        ("metadata", Value::Object(meta)),
        ("notes", json!(notes)),
    ];
    Ok((super::with_notes(text, &notes), more))
}

/// What a record has beside A and B, in the words of [`crate::adapter::Pair::more`].
fn more(r: &LoraRecord) -> String {
    let words = [(LoraRecord::WHOLE, "whole"), (LoraRecord::GAIN, "DoRA"), (LoraRecord::BIAS, "bias")];
    words.iter().filter(|(flag, _)| r.flags & flag != 0).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}

/// What was trained, as [`crate::adapter::Pair::parameters`] counts it; a record may claim anything.
fn parameters_of(r: &LoraRecord) -> u64 {
    let (rank, inputs, outputs) = (u64::from(r.rank), u64::from(r.inputs), u64::from(r.outputs));
    let zero = |e: i16| e == ranklet::fixed::Exp::ZERO.0;
    let has = |flag: u16| r.flags & flag != 0;
    let only_bias = r.flags == LoraRecord::BIAS && zero(r.a_exponent) && zero(r.b_exponent);
    let weights = match () {
        () if has(LoraRecord::WHOLE) => inputs.saturating_mul(outputs),
        () if only_bias => 0,
        () => rank * (inputs + outputs),
    };
    let vectors = u64::from(has(LoraRecord::GAIN)) + u64::from(has(LoraRecord::BIAS));
    weights.saturating_add(vectors * outputs)
}
