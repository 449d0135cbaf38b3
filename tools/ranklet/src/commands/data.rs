//! What `train` and `eval` are given: a safetensors file, or text and a tokenizer.

use super::export::base_metadata;
use crate::dataset::{self, Inputs, Targets};
use crate::files;
use crate::image::metadata;
use crate::lessons::{self, Lesson};
use crate::text::tokenizer::Tokenizer;
use anyhow::{Context, Result, bail, ensure};
use ranklet::model::Model;
use ranklet::train::LossKind;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct DataArgs {
    /// A perceptron: `inputs` F32 (N, features), and `labels` I64 (N) or `targets` F32 (N, outputs). A transformer: `input_ids` I64 (N,
    /// seq) or `inputs` F32 (N, seq, features), with `attention_mask` and so on as for `run`; and `labels` I64 (N), or (N, seq) with
    /// -100 where nothing is told (a language model needs none), or `targets`.
    #[arg(long, required_unless_present = "text")]
    pub data: Option<PathBuf>,
    /// Text: for a classifier a label, a tab and a text a line; for a language model just text.
    #[arg(long, value_name = "FILE", conflicts_with = "data", requires = "tokenizer")]
    pub text: Option<PathBuf>,
    /// The checkpoint's directory, or its tokenizer.json.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Language models: text is cut into pieces of so many tokens [default: 64, or what the base takes].
    #[arg(long)]
    pub length: Option<usize>,
}

/// Data, by the kind of the base.
#[derive(Debug)]
pub enum Data {
    /// Rows for a perceptron.
    Rows(Inputs, Targets),
    /// Sequences for a transformer.
    Lessons(Vec<Lesson>),
}

impl Data {
    /// How many samples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Data::Rows(inputs, _) => inputs.rows(),
            Data::Lessons(lessons) => lessons.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl DataArgs {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.data.as_deref().or(self.text.as_deref()).unwrap_or(Path::new(""))
    }

    /// Files that are read.
    #[must_use]
    pub fn read(&self) -> Vec<&Path> {
        [&self.data, &self.text, &self.tokenizer].into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Opens the data, or another file of the same kind.
    ///
    /// # Errors
    /// What is wrong with it; no samples.
    pub fn open(&self, path: &Path, model: &Model<'_>, loss: LossKind) -> Result<Data> {
        let data = self.read_from(path, model, loss)?;
        ensure!(!data.is_empty(), "{}: no samples", path.display());
        Ok(data)
    }

    fn read_from(&self, path: &Path, model: &Model<'_>, loss: LossKind) -> Result<Data> {
        let transformer = model.spec().transformer();
        if self.text.is_some() {
            let Some(t) = transformer else {
                bail!("--text: this base is a multilayer perceptron, which reads no text; give it --data");
            };
            ensure!(
                loss == LossKind::CrossEntropy,
                "--text: its labels are classes, which take cross-entropy, not another --loss"
            );
            let tokenizer = Tokenizer::open(self.tokenizer.as_deref().unwrap_or(Path::new("")), t)?;
            let text = files::read_text(path).with_context(|| {
                format!("cannot read {} as text (beside --text, --eval is text, too)", path.display())
            })?;
            let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
            let names = base_metadata(model);
            let outputs = model.spec().outputs;
            let label = |name: &str| {
                let by_name = (0..outputs).find(|&i| metadata::label(&names, i) == Some(name));
                by_name.or_else(|| name.parse().ok().filter(|&i: &usize| i < outputs))
            };
            let length = self.length.unwrap_or(64.min(t.positions));
            let lessons = lessons::from_text(text, &tokenizer, model, t, length, label);
            return Ok(Data::Lessons(lessons.with_context(|| path.display().to_string())?));
        }
        ensure!(self.length.is_none(), "--length is for --text");
        let file = dataset::open(path)?;
        let Some(t) = transformer else {
            let inputs = dataset::inputs(&file, model.spec().features)?;
            ensure!(inputs.rows() > 0, "{}: `inputs` has no rows", path.display());
            let targets = dataset::targets(&file, loss, inputs.rows(), model.spec().outputs)?;
            return Ok(Data::Rows(inputs, targets));
        };
        Ok(Data::Lessons(lessons::read(&file, model, t, loss)?))
    }
}
