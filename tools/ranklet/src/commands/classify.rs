//! `ranklet classify --base base.rkl [--adapter a.rkl[:scale] …] --tokenizer DIR --text TEXT… | --file FILE`

use super::{AdapterArg, export::base_metadata};
use crate::files;
use crate::image::ImageFile;
use crate::infer;
use crate::progress;
use crate::report::{Report, table};
use crate::sequences::{self, Batch};
use crate::tensor::{excerpt, printable};
use crate::text::Tokenizer;
use crate::text::classification::{Label, best, labels};
use crate::text::tokenizer::Encoded;
use anyhow::{Context, Result, bail, ensure};
use ranklet::model::spec::{Pool, Transformer};
use ranklet::model::{HeadKind, Model};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image, of a classifier.
    #[arg(long)]
    pub base: PathBuf,
    /// An adapter image, `:scale` behind it multiplies its scaling; several add up.
    #[arg(long, value_name = "FILE[:SCALE]", num_args = 1..)]
    pub adapter: Vec<AdapterArg>,
    /// The checkpoint's tokenizer.json, or a directory with it.
    #[arg(long)]
    pub tokenizer: PathBuf,
    /// A text; may be given several times.
    #[arg(long, allow_hyphen_values = true)]
    pub text: Vec<String>,
    /// A file with one text a line, UTF-8; `-` is stdin. Empty lines are none.
    #[arg(long, required_unless_present = "text")]
    pub file: Option<PathBuf>,
}

/// A text and what the model makes of it: one row of labels, or one a token.
struct Answer<'t> {
    text: &'t str,
    encoded: Encoded,
    rows: Vec<Vec<Label>>,
}

/// Classifies.
///
/// # Errors
/// What is wrong with the files or a text.
pub fn execute(args: &Args, json: bool) -> Result<Report> {
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let t = classifier(&model).with_context(|| args.base.display().to_string())?;
    let files = super::open_adapters(&args.adapter)?;
    let (adapters, mut notes) = super::bind(&files, &model)?;
    let tokenizer = Tokenizer::open(&args.tokenizer, t)?;
    let texts = texts(args)?;
    let metadata = base_metadata(&model);
    let (head, outputs) = (model.spec().head, model.spec().outputs);
    let bar = progress::bar(texts.len() as u64, infer::macs(&model) * 16 * texts.len() as u64, json, "texts");
    let mut answers = vec![];
    for (number, text) in (1..).zip(&texts) {
        let encoded = tokenizer.encode_with_places(text)?;
        ensure!(!encoded.ids.is_empty(), "text {number}, {}, has no tokens", quoted(text));
        if let Some(all) = encoded.cut_from {
            notes.push(format!("text {number} was cut from {all} tokens to {}, the base's most", encoded.ids.len()));
        }
        let types =
            if encoded.types.iter().all(|&ty| usize::from(ty) < t.types) { encoded.types.clone() } else { vec![] };
        let out = sequences::run(&model, t, &adapters, &Batch::text(t, &encoded.ids, types), || ())?;
        if let Some(note) = super::beyond_f32(&format!("outputs of text {number}"), &out.data) {
            notes.push(note);
        }
        let rows = out.data.chunks_exact(outputs).map(|row| labels(head, row, &metadata)).collect();
        answers.push(Answer { text, encoded, rows });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let human = if t.pool == Pool::None { tokens_table(&answers) } else { table(&text_rows(head, &answers)) };
    let list: Vec<Value> = answers.iter().map(|a| a.json(head, t.pool == Pool::None)).collect();
    Ok(Report::new(super::with_notes(human, &notes), json!({"texts": list, "notes": notes})))
}

/// The transformer, if it is one that labels.
fn classifier<'m>(model: &'m Model<'_>) -> Result<&'m Transformer> {
    let Some(t) = model.spec().transformer() else {
        bail!("`classify` takes a transformer that reads text, and this base is a multilayer perceptron; `run` runs it")
    };
    match model.spec().head {
        HeadKind::Language => {
            bail!("`classify` takes a classifier, and this base is a language model; `generate` writes")
        }
        HeadKind::None => bail!(
            "`classify` takes a classifier, and this base has no head; convert its ForSequenceClassification or \
             ForTokenClassification checkpoint"
        ),
        _ => Ok(t),
    }
}

fn texts(args: &Args) -> Result<Vec<String>> {
    let mut texts = args.text.clone();
    if let Some(file) = &args.file {
        let (name, all) = if file == Path::new("-") {
            let mut all = vec![];
            std::io::stdin().lock().read_to_end(&mut all).context("cannot read stdin")?;
            ("stdin".to_owned(), String::from_utf8(all).context("stdin is no UTF-8")?)
        } else {
            let name = file.display().to_string();
            let all = files::read_text(file).with_context(|| format!("cannot read {name}"))?;
            (name, all)
        };
        let all = all.strip_prefix('\u{FEFF}').unwrap_or(&all);
        let before = texts.len();
        texts.extend(all.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
        ensure!(texts.len() > before, "{name} holds no text; expected one a line");
    }
    Ok(texts)
}

fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(printable(text)))
}

fn probability(value: f64) -> String {
    format!("{value:.4}")
}

/// One line a text; of independent questions and of values, one line an output.
fn text_rows(head: HeadKind, answers: &[Answer<'_>]) -> Vec<Vec<String>> {
    let value = if head == HeadKind::Regression { "value" } else { "probability" };
    let mut rows = vec![["label", value, "text"].map(str::to_owned).to_vec()];
    for answer in answers {
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        let shown: Vec<&Label> = match head {
            HeadKind::Classification => best(row).map(|(_, label)| label).into_iter().collect(),
            _ => row.iter().collect(),
        };
        let of = |label: &Label| vec![label.name.clone(), probability(label.value), excerpt(answer.text.to_owned())];
        rows.extend(shown.into_iter().map(of));
    }
    rows
}

/// One line a token, the template's left out; a heading a text where there are several.
fn tokens_table(answers: &[Answer<'_>]) -> String {
    let tables = answers.iter().map(|answer| {
        let mut rows = vec![["token", "label", "probability"].map(str::to_owned).to_vec()];
        rows.extend(answer.tokens().filter_map(|(_, piece, labels)| {
            let (_, label) = best(labels)?;
            Some(vec![piece.to_owned(), label.name.clone(), probability(label.value)])
        }));
        let heading = if answers.len() > 1 { format!("{}\n", printable(answer.text)) } else { String::new() };
        heading + &table(&rows)
    });
    tables.collect::<Vec<_>>().join("\n\n")
}

impl Answer<'_> {
    /// Of each token of the text: its index, its part of the text, its labels.
    fn tokens(&self) -> impl Iterator<Item = (usize, &str, &[Label])> {
        let places = self.encoded.places.iter().zip(&self.rows).enumerate();
        places.filter_map(|(i, (place, labels))| {
            let (range, _) = place.as_ref()?;
            Some((i, self.text.get(range.clone()).unwrap_or(""), labels.as_slice()))
        })
    }

    fn json(&self, head: HeadKind, by_token: bool) -> Value {
        let value = if head == HeadKind::Regression { "value" } else { "probability" };
        let all = |labels: &[Label]| -> Value {
            labels.iter().map(|l| json!({"label": l.name, value: l.value})).collect::<Vec<_>>().into()
        };
        let answer = |labels: &[Label]| -> Map<String, Value> {
            let mut map = Map::new();
            if let Some((index, label)) = best(labels).filter(|_| head == HeadKind::Classification) {
                map.insert("label".to_owned(), json!(label.name));
                map.insert("index".to_owned(), json!(index));
                map.insert(value.to_owned(), json!(label.value));
            }
            map.insert("all".to_owned(), all(labels));
            map
        };
        let mut map = Map::new();
        map.insert("text".to_owned(), json!(self.text));
        map.insert("input_ids".to_owned(), json!(self.encoded.ids));
        if by_token {
            let tokens = self.tokens().map(|(i, piece, labels)| {
                let word = self.encoded.places.get(i).and_then(|p| p.as_ref()?.1);
                let mut token = Map::new();
                token.insert("token".to_owned(), json!(piece));
                token.insert("position".to_owned(), json!(i));
                token.insert("word".to_owned(), json!(word));
                token.extend(answer(labels));
                Value::Object(token)
            });
            map.insert("tokens".to_owned(), tokens.collect());
        } else {
            map.extend(answer(self.rows.first().map_or(&[][..], Vec::as_slice)));
        }
        Value::Object(map)
    }
}
