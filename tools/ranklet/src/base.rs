//! A base model in `f32`, as its checkpoint has it: spec and weights, checked against each other.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::spec::{FILE, Head, MlpSpec, SpecError};
use crate::tensor::{Matrix, name_list};
use ranklet::kernel::{MAX_DIM, MAX_OUTPUTS};
use ranklet::model::spec::MAX_LINEARS;
use std::path::{Path, PathBuf};

/// One linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Its module path in the checkpoint.
    pub module: String,
    /// (out, in).
    pub weight: Matrix,
    /// (out).
    pub bias: Option<Vec<f32>>,
}

/// Per-feature normalisation: the network is fed (x − mean) / std.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// (features).
    pub mean: Vec<f32>,
    /// (features), every one above zero.
    pub std: Vec<f32>,
}

/// A base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// What the spec file says.
    pub spec: MlpSpec,
    /// The linears, in the order of the data's way; each one's outputs are the next one's inputs.
    pub linears: Vec<Linear>,
    /// Of the input, if the checkpoint has one.
    pub normalization: Option<Normalization>,
}

/// Why a base cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The spec file.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A layer without rows or columns, or beyond what the device can add up.
    #[error("{path}: `{name}` is ({rows}, {cols}); a layer has 1 to {MAX_DIM} inputs, and 1 to {MAX_OUTPUTS} outputs")]
    Dimension {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its first dimension.
        rows: usize,
        /// Its second dimension.
        cols: usize,
    },
    /// One layer's outputs are not the next one's inputs.
    #[error(
        "{path}: `{before}` has {outputs} outputs, but `{after}` takes {inputs} inputs; is `modules` in {FILE} in the \
         order of the data's way?"
    )]
    Chain {
        /// The checkpoint.
        path: PathBuf,
        /// A module.
        before: String,
        /// Its outputs.
        outputs: usize,
        /// The next one.
        after: String,
        /// Its inputs.
        inputs: usize,
    },
    /// Tensors that no part of the spec asks for.
    #[error("{path}: no part of {FILE} claims {names}; name their modules there, or save the checkpoint without them")]
    Unclaimed {
        /// The checkpoint.
        path: PathBuf,
        /// The tensors.
        names: String,
    },
    /// A deviation that cannot be divided by.
    #[error(
        "{path}: `{name}` holds {value} for feature {feature}; a deviation must be above 0 (use 1 for a constant feature)"
    )]
    Deviation {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Which feature.
        feature: usize,
        /// Its deviation.
        value: f32,
    },
    /// Labels for outputs that do not exist, or too few outputs for the head.
    #[error("{path}: {problem}")]
    Head {
        /// The spec file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Base {
    /// Loads a checkpoint: a directory with `config.json` and weights, or a `.safetensors` file with `config.json`
    /// beside it.
    ///
    /// # Errors
    /// [`BaseError`]; a tensor that nobody claims is one.
    pub fn open(path: &Path) -> Result<Base, BaseError> {
        let checkpoint_first = !path.is_file() && !path.is_dir();
        let dir = if path.is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
        if checkpoint_first {
            Checkpoint::open(path)?; // Says that there is nothing, rather than that there is no spec.
        }
        let spec_path = dir.join(FILE);
        let spec = MlpSpec::read(&spec_path)?;
        let checkpoint = Checkpoint::open(path)?;
        Loader { path, spec_path, checkpoint, claimed: Vec::new() }.load(spec)
    }

    /// Width of the input.
    #[must_use]
    pub fn features(&self) -> usize {
        self.linears.first().map_or(0, |l| l.weight.cols)
    }

    /// Width of the output.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.linears.last().map_or(0, |l| l.weight.rows)
    }

    /// Weights and biases, counted as PyTorch counts parameters (a normalisation is none).
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let of = |l: &Linear| l.weight.data.len() + l.bias.as_ref().map_or(0, Vec::len);
        self.linears.iter().map(|l| of(l) as u64).sum()
    }
}

struct Loader<'a> {
    path: &'a Path,
    spec_path: PathBuf,
    checkpoint: Checkpoint,
    claimed: Vec<String>,
}

impl Loader<'_> {
    fn load(mut self, spec: MlpSpec) -> Result<Base, BaseError> {
        let path = self.path.to_owned();
        if spec.modules.len() > usize::from(MAX_LINEARS) {
            let problem = format!("names {} linear layers; an image holds {MAX_LINEARS}", spec.modules.len());
            return Err(BaseError::Head { path: self.spec_path, problem });
        }
        let mut linears: Vec<Linear> = Vec::new();
        for module in &spec.modules {
            let linear = self.linear(module)?;
            if let Some(before) = linears.last()
                && before.weight.rows != linear.weight.cols
            {
                return Err(BaseError::Chain {
                    path,
                    before: before.module.clone(),
                    outputs: before.weight.rows,
                    after: module.clone(),
                    inputs: linear.weight.cols,
                });
            }
            linears.push(linear);
        }
        let features = linears.first().map_or(0, |l| l.weight.cols);
        let outputs = linears.last().map_or(0, |l| l.weight.rows);
        let normalization = match &spec.normalization {
            Some((mean, std)) => Some(self.normalization(mean, std, features)?),
            None => None,
        };
        let unclaimed: Vec<&str> = self.checkpoint.names().filter(|n| !self.claimed.iter().any(|c| c == n)).collect();
        if !unclaimed.is_empty() {
            return Err(BaseError::Unclaimed { path, names: name_list(unclaimed, 12) });
        }
        if let Some((index, name)) = spec.labels.iter().find(|(i, _)| **i >= outputs) {
            let problem = format!("id2label names output {index} ({name:?}), but there are {outputs} outputs, from 0");
            return Err(BaseError::Head { path: self.spec_path, problem });
        }
        if spec.head == Head::Classification && outputs < 2 {
            let problem = "a classification head needs 2 outputs or more; for one yes/no logit use \"binary\"";
            return Err(BaseError::Head { path: self.spec_path, problem: problem.to_owned() });
        }
        Ok(Base { spec, linears, normalization })
    }

    fn linear(&mut self, module: &str) -> Result<Linear, BaseError> {
        let name = format!("{module}.weight");
        let weight = self.checkpoint.matrix(&name, "(out, in)")?;
        self.claimed.push(name.clone());
        if !(1..=MAX_OUTPUTS).contains(&weight.rows) || !(1..=MAX_DIM).contains(&weight.cols) {
            let (rows, cols) = (weight.rows, weight.cols);
            return Err(BaseError::Dimension { path: self.path.to_owned(), name, rows, cols });
        }
        let name = format!("{module}.bias");
        let bias = if self.checkpoint.contains(&name) {
            let bias = self.checkpoint.vector(&name, weight.rows, &format!("row of `{module}.weight`"))?;
            self.claimed.push(name);
            Some(bias)
        } else {
            None
        };
        Ok(Linear { module: module.to_owned(), weight, bias })
    }

    fn normalization(&mut self, mean: &str, std: &str, features: usize) -> Result<Normalization, BaseError> {
        let values = Normalization {
            mean: self.checkpoint.vector(mean, features, "feature")?,
            std: self.checkpoint.vector(std, features, "feature")?,
        };
        self.claimed.extend([mean.to_owned(), std.to_owned()]);
        match values.std.iter().position(|&s| s <= 0.0) {
            None => Ok(values),
            Some(feature) => Err(BaseError::Deviation {
                path: self.path.to_owned(),
                name: std.to_owned(),
                feature,
                value: values.std[feature],
            }),
        }
    }
}
