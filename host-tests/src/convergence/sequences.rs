//! Transformers: rows of the turned digits as sequences, and a language model that takes on another style.

use super::digits::images;
use super::run::{Run, Settings, Task, batches, mean};
use crate::fixture::{Sample, pairs_of};
use crate::oracle::{Goal, Item, Pair, Scalar, SequenceTrainer};
use ranklet::fixed::hash::Seed;
use ranklet::model::{Active, Model, Plan, Roles, Train, Workspace};
use ranklet::train::{Learner, Optimizer, SequenceTarget, Target, Trainer};
use ranklet_cli::checkpoint::Checkpoint;
use ranklet_cli::hf::{self, config::Config};
use ranklet_cli::image::{self, ImageFile};
use ranklet_cli::quantize::WeightType;
use ranklet_cli::reference::Reference;
use ranklet_cli::sequences::{self, Batch};
use ranklet_cli::text::{Choice, Text};
use std::path::{Path, PathBuf};

/// A transformer, and the data to adapt it with.
#[derive(Debug)]
pub struct Sequences {
    /// The base, with `i8` weights.
    pub image: ImageFile,
    /// The same in floats.
    pub reference: Reference,
    /// Which layers get a pair.
    pub on: Roles,
    /// To be trained on.
    pub train: Vec<Item>,
    /// Not to be trained on.
    pub held_out: Vec<Item>,
}

/// `models`.
#[must_use]
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

impl Sequences {
    /// A base of `models`.
    ///
    /// # Panics
    /// Where it is missing, or does not convert.
    #[must_use]
    pub fn new(base: &str, on: Roles, [train, held_out]: [Vec<Item>; 2]) -> Sequences {
        let directory = models().join(base);
        let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
        let config = Config::read(&directory.join("config.json")).expect("its configuration");
        let mut network = hf::describe(&config, &checkpoint).expect("a network");
        network.text = Text::of(&directory, &network, Choice::Auto).expect("a tokenizer, or none");
        let converted = image::transformer::convert(&checkpoint, &network, WeightType::I8, false, || ());
        let image = ImageFile::of(Path::new(base), &converted.expect("an image").bytes);
        let reference = Reference::read(&checkpoint, &network).expect("weights");
        let reference = reference.quantized(&image.model().expect("a model"));
        Sequences { image, reference, on, train, held_out }
    }

    /// The turned digits, row by row.
    ///
    /// # Panics
    /// Where a file of `models` is missing.
    #[must_use]
    pub fn rows() -> Sequences {
        let item = |sample: &Sample| {
            // Exact in 16 bits: the network takes pixels from 0 to 1, of sixteenths.
            let pixels = sample.raw.iter().map(|&v| f32::from(v) / 16.0).collect();
            Item { batch: Batch::features(pixels, 8), goal: Goal::Class(sample.class) }
        };
        let items = images().map(|part| part.iter().map(item).collect());
        Sequences::new("rows/base", Roles::ALL, items)
    }

    /// The language model of `models/story`, and two chapters of Jane Austen; sequences of `tokens`.
    ///
    /// # Panics
    /// Where a file of `models` is missing.
    #[must_use]
    pub fn style(tokens: usize) -> Sequences {
        let items = ["train", "heldout"].map(|part| {
            let bytes = std::fs::read(models().join(format!("story/style/{part}.u16"))).expect("tokens");
            let ids: Vec<u32> = bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
            let t = Sequences::spec_of("story/base");
            ids.chunks_exact(tokens).map(|ids| Item { batch: Batch::text(&t, ids, vec![]), goal: Goal::Next }).collect()
        });
        Sequences::new("story/base", Roles::Q | Roles::V, items)
    }

    /// The spec of a base of `models`.
    ///
    /// # Panics
    /// Where it is missing.
    #[must_use]
    pub fn spec_of(base: &str) -> ranklet::model::spec::Transformer {
        let directory = models().join(base);
        let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
        let config = Config::read(&directory.join("config.json")).expect("its configuration");
        hf::describe(&config, &checkpoint).expect("a network").transformer
    }

    /// The memory plan of a training.
    ///
    /// # Panics
    /// Never: the image is an open model's.
    #[must_use]
    pub fn plan(&self, s: &Settings) -> Plan<'_> {
        let tokens = self.train[0].batch.length;
        let room = if s.rule.moments() == 2 { Train::adamw() } else { Train::momentum() };
        let plan = Plan::new(self.image.bytes()).expect("a plan").tokens(tokens).source(tokens);
        plan.train(room.rank(s.rank).alpha(s.alpha).on(self.on))
    }

    /// Loss and accuracy over the training and the held-out items, in the order of [`METRICS`](super::run::METRICS).
    pub fn finals(&self, mut output: impl FnMut(&Item) -> Vec<f64>) -> [f64; 4] {
        let mut over = |items: &[Item]| {
            let (mut loss, mut given, mut right) = (0.0, 0, 0);
            for item in items {
                let y = output(item);
                loss += item.loss(&y).0;
                let (g, r) = item.answers(&y);
                given += g;
                right += r;
            }
            [loss / items.len() as f64, right as f64 / given as f64]
        };
        let ([lt, at], [lh, ah]) = (over(&self.train), over(&self.held_out));
        [lt, lh, at, ah]
    }

    /// What the device gives, with these adapters on.
    ///
    /// # Panics
    /// Where the core refuses.
    #[must_use]
    pub fn output(&self, model: &Model<'_>, adapters: &[Active<'_>], item: &Item) -> Vec<f64> {
        let t = model.spec().transformer().expect("a transformer");
        let out = sequences::run(model, t, adapters, &item.batch, || ()).expect("inference");
        out.data.into_iter().map(f64::from).collect()
    }
}

/// A goal, as the core's trainer takes it.
#[must_use]
pub fn target(goal: &Goal) -> SequenceTarget<'_> {
    match goal {
        Goal::Class(class) => SequenceTarget::Pooled(Target::Class(*class)),
        Goal::Labels(labels) => SequenceTarget::Pooled(Target::Labels(labels)),
        Goal::Next => SequenceTarget::Next,
    }
}

impl Task for Sequences {
    fn fixed(&self, s: &Settings, seed: u32) -> (Run, Vec<Pair<f64>>) {
        let model = self.image.model().expect("a model");
        let t = model.spec().transformer().expect("a transformer");
        let plan = self.plan(s);
        let mut memory = vec![0xA5; plan.bytes() + 15]; // Contents mean nothing: garbage must not matter.
        let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
        let mut learner = learn.fresh(&model, Seed(seed)).expect("planned for it");
        let pairs = |l: &Learner<'_>| pairs_of(l.records(), l.high(), l.low());
        let start = pairs(&learner);
        let mut losses = Vec::new();
        let trainer = Trainer::new(&model, &mut learner, s.rule).expect("a trainer");
        let mut trainer = trainer.accumulate(s.batch as u32).seed(Seed(seed));
        let mut raw = vec![0; self.train[0].batch.length * model.spec().features];
        for batch in batches(self.train.len(), s, seed) {
            let step = batch.iter().map(|&i| {
                let item = &self.train[i];
                let sequence = item.batch.sequence(t, 0, &mut raw).expect("a sequence");
                trainer.sequence(sequence, target(&item.goal), &mut scratch).expect("a sample");
                trainer.step(&mut scratch).expect("its units").to_f64()
            });
            losses.push(mean(&step.collect::<Vec<f64>>()));
        }
        let read = self.finals(|item| self.output(&model, &[learner.view()], item));
        let learned = SequenceTrainer::<f32>::adapters(self.reference.convert(), &pairs(&learner), s.rule.into());
        let finals = self.finals(|item| learned.run(&item.batch).iter().map(|y| y.wide()).collect());
        (Run { losses, finals, read }, start)
    }

    fn float<T: Scalar>(&self, s: &Settings, seed: u32, start: &[Pair<f64>]) -> Run {
        let mut trainer = SequenceTrainer::<T>::adapters(self.reference.convert(), start, s.rule.into());
        trainer.accumulate = s.batch;
        let mut losses = Vec::new();
        for batch in batches(self.train.len(), s, seed) {
            let step = batch.iter().map(|&i| trainer.item(&self.train[i]).wide());
            losses.push(mean(&step.collect::<Vec<f64>>()));
        }
        let finals = self.finals(|item| trainer.run(&item.batch).iter().map(|y| y.wide()).collect());
        Run { losses, finals, read: finals }
    }
}
