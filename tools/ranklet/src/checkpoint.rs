//! Checkpoints as they lie on disk: a `.safetensors` file, or a directory with `model.safetensors`, or with
//! `model.safetensors.index.json` and its shards. Tensors by name, as finite `f32`.
//!
//! Headers are read when a checkpoint is opened, a tensor's bytes when it is asked for. Nothing in a file is believed: lengths, types, shapes and every value are checked, and a refusal names the file,
//! the tensor and the position.

mod shard;

use crate::files;
use crate::tensor::{Matrix, name_list, shape};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, TensorInfo};
use shard::Shard;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Neither a file nor a directory with weights in it.
    #[error("{path}: {found}; expected {expected}")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The file system said no.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a part of one.
    #[error("{path} ({size} bytes) is not a complete safetensors file; copy or save it again")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its length.
        size: u64,
        /// What the parser met.
        source: SafeTensorError,
    },
    /// The header says the same thing twice.
    #[error("{path}: {problem}")]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The index of a sharded checkpoint contradicts its shards.
    #[error("{path}: {problem}")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No tensor of that name.
    #[error("{path} holds no tensor `{name}`; it holds {found}")]
    Missing {
        /// Which checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it does hold.
        found: String,
    },
    /// A type that cannot be used here.
    #[error("{path}: tensor `{name}` is {found}; expected {expected}")]
    Dtype {
        /// Which file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
        /// What can be used.
        expected: &'static str,
    },
    /// Another shape than the rest of the model asks for.
    #[error("{path}: tensor `{name}` has shape {found}; expected {expected}")]
    Shape {
        /// Which file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: String,
        /// The shape it should have, with the names of the dimensions.
        expected: String,
    },
    /// NaN, infinity, or a value beyond `f32`.
    #[error("{path}: tensor `{name}` holds {value:?} at {position}; every value must be finite in f32")]
    NotFinite {
        /// Which file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The value.
        value: f64,
        /// Its index in the tensor, `[row, column]`.
        position: String,
    },
}

/// A tensor of any number of dimensions, row-major; every value is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub data: Vec<T>,
}

/// An open checkpoint: its headers in memory, its tensors by name, each read from its file when it is asked for.
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Tensor to shard, in alphabetical order.
    names: BTreeMap<String, usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path).field("tensors", &self.names.len()).finish()
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a model: a `.safetensors` file, or a directory as Hugging Face lays it out.
    ///
    /// # Errors
    /// [`CheckpointError`]; whatever is wrong with a header is found here, whatever is wrong with a value when the
    /// tensor is read.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        if path.is_file() {
            return Checkpoint::from_files(path, vec![path.to_owned()]);
        }
        let expected = "a .safetensors file, or a directory with model.safetensors (or model.safetensors.index.json \
                        and its shards)";
        if !path.is_dir() {
            let found = if path.exists() { files::found(path) } else { "no such file or directory" };
            return Err(not_found(path, found, expected));
        }
        let single = path.join("model.safetensors");
        if single.is_file() {
            return Checkpoint::from_files(path, vec![single]);
        }
        let index = path.join("model.safetensors.index.json");
        if index.is_file() {
            return Checkpoint::open_sharded(path, &index);
        }
        let pickled = ["pytorch_model.bin", "model.pt", "model.pth", "state_dict.pt"];
        if let Some(name) = pickled.iter().find(|n| path.join(n).is_file()) {
            let found = format!("only {name}, a pickle, which runs code when it is loaded and is not read");
            let expected = format!(
                "{expected}; in Python: safetensors.torch.save_file(torch.load('{name}', weights_only=True), \
                 'model.safetensors')"
            );
            return Err(not_found(path, &found, &expected));
        }
        Err(not_found(path, "a directory without weights", expected))
    }

    /// Opens one safetensors file, whatever its name.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], [`CheckpointError::Format`], [`CheckpointError::NotFound`].
    pub fn open_file(path: &Path) -> Result<Checkpoint, CheckpointError> {
        if !path.is_file() {
            return Err(not_found(path, files::found(path), "a .safetensors file"));
        }
        Checkpoint::from_files(path, vec![path.to_owned()])
    }

    fn open_sharded(dir: &Path, index_path: &Path) -> Result<Checkpoint, CheckpointError> {
        let wrong = |problem: String| CheckpointError::Index { path: index_path.to_owned(), problem };
        let index: Index = serde_json::from_slice(&read(index_path)?)
            .map_err(|e| wrong(format!("not an index with a `weight_map` of strings: {e}")))?;
        let mut files: Vec<PathBuf> = Vec::new();
        for file in index.weight_map.values() {
            // A shard lies beside its index; a name that leads elsewhere is no name of ours to open.
            if Path::new(file).file_name().is_none_or(|n| n != file.as_str()) {
                return Err(wrong(format!("shard {file:?} is not a plain file name")));
            }
            let file = dir.join(file);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        let open = Checkpoint::from_files(dir, files)?;
        for (name, file) in &index.weight_map {
            match open.names.get(name).and_then(|&s| open.shards.get(s)) {
                Some(shard) if shard.path().ends_with(file) => {}
                _ => return Err(wrong(format!("tensor `{name}` should be in {file}, which does not hold it"))),
            }
        }
        if let Some(name) = open.names.keys().find(|n| !index.weight_map.contains_key(*n)) {
            return Err(wrong(format!("tensor `{name}` is in a shard, but not in the index")));
        }
        Ok(open)
    }

    fn from_files(path: &Path, files: Vec<PathBuf>) -> Result<Checkpoint, CheckpointError> {
        let (mut shards, mut names) = (Vec::new(), BTreeMap::new());
        for file in files {
            let shard = Shard::open(&file)?;
            for name in shard.names() {
                if names.insert(name.clone(), shards.len()).is_some() {
                    let problem = format!("tensor `{name}` is in more than one shard");
                    return Err(CheckpointError::Index { path: file, problem });
                }
            }
            shards.push(shard);
        }
        Ok(Checkpoint { path: path.to_owned(), shards, names })
    }

    /// What was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<(&Shard, &TensorInfo), CheckpointError> {
        let found = self.names.get(name).and_then(|&s| {
            let shard = self.shards.get(s)?;
            Some((shard, shard.info(name)?))
        });
        found.ok_or_else(|| CheckpointError::Missing {
            path: self.path.clone(),
            name: name.to_owned(),
            found: name_list(self.names(), 12),
        })
    }

    /// A tensor as `f32`, from F32, F16, BF16 or F64 (rounded to nearest).
    ///
    /// # Errors
    /// [`CheckpointError::Missing`], [`Dtype`](CheckpointError::Dtype), [`NotFinite`](CheckpointError::NotFinite).
    pub fn f32s(&self, name: &str) -> Result<Tensor<f32>, CheckpointError> {
        let (shard, info) = self.find(name)?;
        // One type after the other, not by way of f64, and never the file's bytes as a whole: a table of embeddings is the
        // largest thing in memory.
        let data = match info.dtype {
            Dtype::F32 => elements(shard, info, f32::from_le_bytes)?,
            Dtype::F64 => elements(shard, info, |b| f64::from_le_bytes(b) as f32)?,
            Dtype::F16 => elements(shard, info, |b| f16::from_le_bytes(b).to_f32())?,
            Dtype::BF16 => elements(shard, info, |b| bf16::from_le_bytes(b).to_f32())?,
            found => {
                let expected = "F32, F16, BF16 or F64 (quantized checkpoints: save the unquantized weights)";
                let (path, name) = (shard.path().to_owned(), name.to_owned());
                return Err(CheckpointError::Dtype { path, name, found, expected });
            }
        };
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            let value = match info.dtype {
                Dtype::F64 => elements(shard, info, f64::from_le_bytes)?[at],
                _ => f64::from(data[at]),
            };
            return Err(CheckpointError::NotFinite {
                path: shard.path().to_owned(),
                name: name.to_owned(),
                value,
                position: position(&info.shape, at),
            });
        }
        Ok(Tensor { shape: info.shape.clone(), data })
    }

    /// A tensor as `i64`, from I64 or I32: labels and token ids.
    ///
    /// # Errors
    /// [`CheckpointError::Missing`], [`CheckpointError::Dtype`].
    pub fn i64s(&self, name: &str) -> Result<Tensor<i64>, CheckpointError> {
        let (shard, info) = self.find(name)?;
        let data = match info.dtype {
            Dtype::I64 => elements(shard, info, i64::from_le_bytes)?,
            Dtype::I32 => elements(shard, info, |b| i64::from(i32::from_le_bytes(b)))?,
            found => {
                let (path, name) = (shard.path().to_owned(), name.to_owned());
                return Err(CheckpointError::Dtype { path, name, found, expected: "I64 (or I32)" });
            }
        };
        Ok(Tensor { shape: info.shape.clone(), data })
    }

    /// A tensor of two dimensions.
    ///
    /// # Errors
    /// As [`f32s`](Checkpoint::f32s), and [`CheckpointError::Shape`]; `expected` says what the dimensions mean.
    pub fn matrix(&self, name: &str, expected: &str) -> Result<Matrix, CheckpointError> {
        let tensor = self.f32s(name)?;
        match *tensor.shape.as_slice() {
            [rows, cols] => Ok(Matrix { rows, cols, data: tensor.data }),
            ref other => Err(self.wrong_shape(name, other, expected)),
        }
    }

    /// A tensor of one dimension and a known length.
    ///
    /// # Errors
    /// As [`f32s`](Checkpoint::f32s), and [`CheckpointError::Shape`].
    pub fn vector(&self, name: &str, length: usize, meaning: &str) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.f32s(name)?;
        if tensor.shape != [length] {
            return Err(self.wrong_shape(name, &tensor.shape, &format!("({length}), one per {meaning}")));
        }
        Ok(tensor.data)
    }

    /// The error for a tensor of the wrong shape.
    #[must_use]
    pub fn wrong_shape(&self, name: &str, found: &[usize], expected: &str) -> CheckpointError {
        let path = self.find(name).map_or_else(|_| self.path.clone(), |(shard, _)| shard.path().to_owned());
        CheckpointError::Shape { path, name: name.to_owned(), found: shape(found), expected: expected.to_owned() }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    files::read(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })
}

fn not_found(path: &Path, found: &str, expected: &str) -> CheckpointError {
    CheckpointError::NotFound { path: path.to_owned(), found: found.to_owned(), expected: expected.to_owned() }
}

/// A tensor's elements, each from its bytes.
fn elements<T, const N: usize>(
    shard: &Shard,
    info: &TensorInfo,
    of: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, CheckpointError> {
    let (from, to) = info.data_offsets;
    let mut data = Vec::with_capacity((to - from) / N);
    shard.read(info, |piece| data.extend(piece.as_chunks::<N>().0.iter().map(|&b| of(b))))?;
    Ok(data)
}

/// `[row, column]` of a flat index.
fn position(dims: &[usize], flat: usize) -> String {
    let mut rest = flat;
    let mut index: Vec<String> = Vec::new();
    for &d in dims.iter().rev() {
        index.push((rest % d.max(1)).to_string());
        rest /= d.max(1);
    }
    index.reverse();
    format!("[{}]", index.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_the_last_dimension() {
        assert_eq!(position(&[2, 3], 4), "[1, 1]");
        assert_eq!(position(&[], 0), "[]");
    }
}
