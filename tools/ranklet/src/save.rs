//! Writing safetensors: what `run`, `grad` and `export` give back.

use crate::tensor::Matrix;
use anyhow::{Context, Result};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::HashMap;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Out {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Out {
    /// Of any shape; `data` is row-major.
    #[must_use]
    pub fn f32s(shape: &[usize], data: &[f32]) -> Out {
        Out { dtype: Dtype::F32, shape: shape.to_vec(), bytes: data.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// Whole numbers, I64.
    #[must_use]
    pub fn i64s(shape: &[usize], data: &[i64]) -> Out {
        Out { dtype: Dtype::I64, shape: shape.to_vec(), bytes: data.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }
}

impl From<&Matrix> for Out {
    fn from(m: &Matrix) -> Out {
        Out::f32s(&[m.rows, m.cols], &m.data)
    }
}

impl View for Out {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A safetensors file in memory. `format: pt` is the metadata that the Hugging Face loaders look for.
///
/// # Errors
/// Where the names' header becomes too large for the format.
pub fn safetensors(tensors: impl IntoIterator<Item = (String, Out)>) -> Result<Vec<u8>> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(tensors, Some(metadata)).context("cannot serialize the tensors")
}
