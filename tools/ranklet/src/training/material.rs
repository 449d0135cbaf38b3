//! What is trained on, a sample at a time.

use crate::dataset::{Inputs, Targets};
use crate::infer::{block, samples};
use crate::lessons::{Lesson, longest};
use anyhow::Result;
use ranklet::layer::normalize::Input;
use ranklet::model::spec::Transformer;
use ranklet::model::{Plan, Scratch};
use ranklet::train::{Rule, Target, Trainer};

/// Samples.
pub trait Material {
    /// How many.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The plan for samples of this size.
    fn sized<'m>(&self, plan: Plan<'m>) -> Plan<'m>;

    /// Gives one to a trainer.
    ///
    /// # Errors
    /// What the core refuses.
    fn give(&self, index: usize, trainer: &mut Trainer<'_, '_, '_, Rule>, scratch: &mut Scratch<'_>) -> Result<()>;
}

/// Rows of features, for a perceptron.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'d> {
    /// (rows, features).
    pub inputs: &'d Inputs,
    /// What they should have come out as.
    pub targets: &'d Targets,
    /// Width of the output.
    pub outputs: usize,
}

impl Material for Rows<'_> {
    fn len(&self) -> usize {
        self.inputs.rows()
    }

    fn sized<'m>(&self, plan: Plan<'m>) -> Plan<'m> {
        plan
    }

    fn give(&self, index: usize, trainer: &mut Trainer<'_, '_, '_, Rule>, scratch: &mut Scratch<'_>) -> Result<()> {
        let features = self.inputs.features;
        let (mut raw, mut values) = (vec![0; features], vec![0; self.outputs]);
        let exponent = samples(&self.inputs.data[index * features..(index + 1) * features], &mut raw)?;
        let of = index * self.outputs..(index + 1) * self.outputs;
        let target = match self.targets {
            Targets::Classes(classes) => Target::Class(classes[index]),
            Targets::Labels(labels) => Target::Labels(&labels[of]),
            Targets::Values(all) => {
                let exponent = block(&all[of], &mut values)?;
                Target::Values(&values, exponent)
            }
        };
        Ok(trainer.sample(Input::i32(&raw, exponent), target, scratch)?)
    }
}

/// Sequences, for a transformer.
#[derive(Clone, Copy, Debug)]
pub struct Lessons<'d> {
    /// The network's numbers.
    pub t: &'d Transformer,
    /// All of them.
    pub lessons: &'d [Lesson],
}

impl Material for Lessons<'_> {
    fn len(&self) -> usize {
        self.lessons.len()
    }

    fn sized<'m>(&self, plan: Plan<'m>) -> Plan<'m> {
        let (tokens, source) = longest(self.lessons);
        plan.tokens(tokens).source(source)
    }

    fn give(&self, index: usize, trainer: &mut Trainer<'_, '_, '_, Rule>, scratch: &mut Scratch<'_>) -> Result<()> {
        self.lessons[index].give(self.t, trainer, scratch)
    }
}
