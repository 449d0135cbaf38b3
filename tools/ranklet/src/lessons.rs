//! What a transformer learns from, and is measured on: sequences, each with what is to come of it.
//!
//! | head | tensors beside those of [`sequences`] |
//! |---|---|
//! | classification | `labels` I64 (batch) |
//! | classification of every token | `labels` I64 (batch, seq), −100 where nothing is told |
//! | language model | none; or `labels` I64 (batch, seq), −100 where nothing is told, moved by one as transformers does |
//! | yes or no | `labels` I64 or `targets` F32, (batch, outputs), of 0 and 1 |
//! | values | `targets` F32 (batch, outputs) |

use crate::checkpoint::Checkpoint;
use crate::dataset::{self, Targets};
use crate::infer::block;
use crate::metrics::{argmax, cross_entropy};
use crate::sequences::{self, Batch};
use crate::tensor::shape;
use crate::text::tokenizer::Tokenizer;
use anyhow::{Context, Result, bail, ensure};
use ranklet::model::spec::{Pool, Transformer};
use ranklet::model::{Active, HeadKind, Model, Scratch};
use ranklet::train::{IGNORE, LossKind, Rule, SequenceTarget, Target, Trainer};

/// A sequence, and what is to come of it.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// One sequence.
    pub batch: Batch,
    /// What is to come of it.
    pub answer: Answer,
}

/// What is to come of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A class.
    Class(usize),
    /// Yes or no, an output each.
    Labels(Vec<bool>),
    /// Values.
    Values(Vec<f32>),
    /// A class a token, or [`IGNORE`].
    Tokens(Vec<u32>),
}

/// transformers' label of a token that is not told.
const NOT_TOLD: i64 = -100;

/// Reads sequences and their answers.
///
/// # Errors
/// A tensor that is missing or does not fit; a label out of range; no sequences; nothing that is told.
pub fn read(file: &Checkpoint, model: &Model<'_>, t: &Transformer, loss: LossKind) -> Result<Vec<Lesson>> {
    let batch = Batch::read(file, model, t)?;
    let outputs = model.spec().outputs;
    let answers: Vec<Answer> = if t.pool == Pool::None {
        ensure!(
            loss == LossKind::CrossEntropy,
            "this base gives outputs for every token, which are trained by cross-entropy, not by another --loss"
        );
        tokens(file, model, &batch)?
    } else {
        match dataset::targets(file, loss, batch.count, outputs)? {
            Targets::Classes(classes) => classes.into_iter().map(Answer::Class).collect(),
            Targets::Labels(labels) => labels.chunks_exact(outputs).map(|l| Answer::Labels(l.to_vec())).collect(),
            Targets::Values(values) => values.chunks_exact(outputs).map(|v| Answer::Values(v.to_vec())).collect(),
        }
    };
    Ok(answers.into_iter().enumerate().map(|(row, answer)| Lesson { batch: batch.one(row), answer }).collect())
}

/// The classes of all tokens.
fn tokens(file: &Checkpoint, model: &Model<'_>, batch: &Batch) -> Result<Vec<Answer>> {
    let language = model.spec().head == HeadKind::Language;
    let (outputs, path) = (model.spec().outputs, file.path().display());
    let expected = [batch.count, batch.length];
    let labels: Vec<i64> = if file.contains("labels") {
        let t = file.i64s("labels")?;
        if t.shape != expected {
            return Err(file.wrong_shape("labels", &t.shape, &format!("{}, one a token", shape(&expected))).into());
        }
        t.data
    } else if language {
        // Padding tells nothing.
        let row = |row: usize| {
            let row = batch.row(row);
            let told = |(&id, &valid): (&u32, &bool)| if valid { i64::from(id) } else { NOT_TOLD };
            row.ids.iter().zip(row.valid).map(told).collect::<Vec<_>>()
        };
        (0..batch.count).flat_map(row).collect()
    } else {
        bail!("{path}: no tensor `labels`; this base takes I64 [batch, seq], {NOT_TOLD} where nothing is told");
    };
    let class = |(at, &label): (usize, &i64)| match u32::try_from(label) {
        Ok(class) if (class as usize) < outputs => Ok(class),
        _ if label == NOT_TOLD => Ok(IGNORE),
        _ => bail!(
            "{path}: label {label} at [{}, {}]; expected 0 to {}, or {NOT_TOLD} where nothing is told",
            at / batch.length,
            at % batch.length,
            outputs - 1
        ),
    };
    let all = labels.iter().enumerate().map(class).collect::<Result<Vec<u32>>>()?;
    let answer = |(row, labels): (usize, &[u32])| {
        let mut labels = labels.to_vec();
        if language {
            // The output of a token is held against the next token's label.
            labels.rotate_left(1);
            labels.last_mut().into_iter().for_each(|l| *l = IGNORE);
        }
        ensure!(
            labels.iter().any(|&l| l != IGNORE),
            "{path}: row {row} tells nothing: no token has a label that could be learned (all are {NOT_TOLD}, or only the first, which nothing precedes)"
        );
        Ok(Answer::Tokens(labels))
    };
    all.chunks_exact(batch.length).enumerate().map(answer).collect()
}

/// Lessons from text: for a classifier `label<TAB>text` a line, for a language model the whole text, cut into windows of `length`
/// tokens (what is left over at the end is left out, if it is not all there is).
///
/// # Errors
/// A line without a label, or with one that the base does not have; a text without tokens.
pub fn from_text(
    text: &str,
    tokenizer: &Tokenizer,
    model: &Model<'_>,
    t: &Transformer,
    length: usize,
    label: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<Lesson>> {
    match model.spec().head {
        HeadKind::Language => {
            ensure!((2..=t.positions).contains(&length), "--length {length}: expected 2 to {}", t.positions);
            let ids = tokenizer.encode(text)?;
            ensure!(ids.len() > 1, "the text has {} tokens; a language model learns from 2 or more", ids.len());
            let whole = ids.chunks_exact(length.min(ids.len()));
            let lesson = |ids: &[u32]| {
                let mut labels = ids[1..].to_vec();
                labels.push(IGNORE);
                Lesson { batch: Batch::text(t, ids, vec![]), answer: Answer::Tokens(labels) }
            };
            Ok(whole.map(lesson).collect())
        }
        HeadKind::Classification if t.pool != Pool::None => {
            let lesson = |(number, line): (usize, &str)| -> Result<Lesson> {
                let number = number + 1;
                let Some((name, text)) = line.split_once('\t') else {
                    bail!("line {number}: expected a label, a tab, and a text");
                };
                let Some(class) = label(name.trim()) else {
                    let most = model.spec().outputs - 1;
                    bail!("line {number}: label {name:?}; expected 0 to {most}, or a name of the base's id2label");
                };
                let encoded = tokenizer.encode_with_places(text)?;
                ensure!(!encoded.ids.is_empty(), "line {number}: a text without tokens");
                let fits = encoded.types.iter().all(|&ty| usize::from(ty) < t.types);
                let batch = Batch::text(t, &encoded.ids, if fits { encoded.types } else { vec![] });
                Ok(Lesson { batch, answer: Answer::Class(class) })
            };
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let lessons = lines.map(lesson).collect::<Result<Vec<_>>>()?;
            ensure!(!lessons.is_empty(), "no texts; expected a label, a tab, and a text a line");
            Ok(lessons)
        }
        _ => bail!("--text is for language models and for classifiers of texts; give this base its data with --data"),
    }
}

impl Lesson {
    /// Gives it to a trainer.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn give(
        &self,
        t: &Transformer,
        trainer: &mut Trainer<'_, '_, '_, Rule>,
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        let features = if t.vocab == 0 { self.batch.row(0).features.len() } else { 0 };
        let (mut raw, mut values) = (vec![0; features], vec![]);
        let sequence = self.batch.sequence(t, 0, &mut raw)?;
        let pooled = |target| match self.batch.last(t, 0) {
            None => SequenceTarget::Pooled(target),
            Some(index) => SequenceTarget::At(index, target),
        };
        let target = match &self.answer {
            Answer::Class(class) => pooled(Target::Class(*class)),
            Answer::Labels(labels) => pooled(Target::Labels(labels)),
            Answer::Values(all) => {
                values.resize(all.len(), 0);
                let exponent = block(all, &mut values)?;
                pooled(Target::Values(&values, exponent))
            }
            Answer::Tokens(labels) => SequenceTarget::Tokens(labels),
        };
        if t.has_cross() {
            trainer.pair(sequence, self.batch.decoder(0), target, scratch)?;
        } else {
            trainer.sequence(sequence, target, scratch)?;
        }
        Ok(())
    }
}

/// How good outputs are, over lessons.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean over all answers: tokens, or sequences.
    pub loss: f64,
    /// Answers.
    pub answers: u64,
    /// Right ones; none for values.
    pub right: Option<u64>,
}

/// Runs a model on lessons. `each` is called once a lesson.
///
/// # Errors
/// What the core refuses.
pub fn measure(
    model: &Model<'_>,
    t: &Transformer,
    adapters: &[Active<'_>],
    lessons: &[Lesson],
    mut each: impl FnMut(),
) -> Result<Score> {
    let outputs = model.spec().outputs;
    let (mut score, mut right) = (Score::default(), 0);
    for (number, lesson) in lessons.iter().enumerate() {
        let out = sequences::run(model, t, adapters, &lesson.batch, || ());
        let out = out.with_context(|| format!("row {number}"))?.data;
        let mut count = |loss: f64, good: bool| {
            score.loss += loss;
            score.answers += 1;
            right += u64::from(good);
        };
        match &lesson.answer {
            Answer::Class(class) => count(cross_entropy(&out, *class), argmax(&out) == *class),
            Answer::Tokens(labels) => {
                for (row, &label) in out.chunks_exact(outputs).zip(labels).filter(|(_, l)| **l != IGNORE) {
                    count(cross_entropy(row, label as usize), argmax(row) == label as usize);
                }
            }
            Answer::Labels(labels) => {
                for (&z, &yes) in out.iter().zip(labels) {
                    let z = f64::from(z);
                    let wrong_by = if yes { -z } else { z };
                    count(wrong_by.max(0.0) + (-z.abs()).exp().ln_1p(), (z > 0.0) == yes);
                }
            }
            Answer::Values(values) => {
                for (&y, &v) in out.iter().zip(values) {
                    count((f64::from(y) - f64::from(v)).powi(2), false);
                }
            }
        }
        each();
    }
    let values = matches!(lessons.first(), Some(Lesson { answer: Answer::Values(_), .. }));
    score.right = (!values).then_some(right);
    score.loss /= score.answers.max(1) as f64;
    Ok(score)
}

/// Most tokens of a sequence: of those that are trained on, and of an encoder's.
#[must_use]
pub fn longest(lessons: &[Lesson]) -> (usize, usize) {
    let most = |of: fn(&Batch) -> usize| lessons.iter().map(|l| of(&l.batch)).max().unwrap_or(1).max(1);
    (most(|b| if b.decoder_length() > 0 { b.decoder_length() } else { b.length }), most(|b| b.length))
}
