//! The container: key-value pairs, and tensors by name. Little-endian, versions 2 and 3.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type u32, value | tensors: name, dimensions u32, u64 each,
//! type u32, offset u64 | padding | data                            texts: length u64, bytes; arrays: type u32, length u64
//! ```
//!
//! Nothing in it is believed: every length is checked against what is left of the file.

use crate::files;
use crate::tensor::{Matrix, printable, shape};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a file starts with.
pub const MAGIC: &[u8] = b"GGUF";

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system said no.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a GGUF file, or a part of one, or beyond what is read here.
    #[error("{path}: {problem}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

/// A value that somebody may ask for; the rest is passed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Text.
    Text(String),
    /// A number, of whatever type.
    Number(f64),
    /// An array, or a truth value.
    Other,
}

/// Where a tensor is: its dimensions, the fastest first, its type, and its place in the data.
#[derive(Clone, Debug)]
struct Place {
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// A file in memory.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    data: usize,
    fields: BTreeMap<String, Field>,
    tensors: BTreeMap<String, Place>,
}

/// What is left to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Rest<'a> {
    fn take(&mut self, n: u64) -> Parsed<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        let part = part.ok_or_else(|| format!("it ends within a field at byte {} of its head", self.at))?;
        self.at += part.len();
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N as u64).map(|b| b.try_into().unwrap_or([0; N]))
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Parsed<String> {
        let n = self.u64()?;
        self.take(n).map(|b| String::from_utf8_lossy(b).into_owned())
    }

    fn field(&mut self) -> Parsed<Field> {
        let kind = self.u32()?;
        match kind {
            8 => self.text().map(Field::Text),
            9 => {
                let (of, n) = (self.u32()?, self.u64()?);
                match of {
                    // Texts have no common length.
                    8 => (0..n).try_for_each(|_| self.text().map(drop))?,
                    of => drop(self.take(width(of)?.checked_mul(n).ok_or("an array of no possible length")?)?),
                }
                Ok(Field::Other)
            }
            7 => self.take(1).map(|_| Field::Other),
            kind => {
                let bytes = self.take(width(kind)?)?;
                let mut wide = [0; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                let (bits32, bits64) =
                    (u32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]), u64::from_le_bytes(wide));
                Ok(Field::Number(match kind {
                    1 => f64::from(wide[0] as i8),
                    3 => f64::from(bits32 as u16 as i16),
                    5 => f64::from(bits32 as i32),
                    6 => f64::from(f32::from_bits(bits32)),
                    11 => bits64 as i64 as f64,
                    12 => f64::from_bits(bits64),
                    _ => bits64 as f64,
                }))
            }
        }
    }
}

/// Bytes of a value.
fn width(kind: u32) -> Parsed<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => Err(format!("a field of type {other}, which is not known here")),
    }
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(path: &Path) -> Result<File, FileError> {
        let bytes = files::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
        File::parse(path, bytes).map_err(|problem| FileError::Format { path: path.to_owned(), problem })
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Parsed<File> {
        let (mut fields, mut tensors) = (BTreeMap::new(), BTreeMap::new());
        let mut rest = Rest { bytes: &bytes, at: 0 };
        if rest.take(4)? != MAGIC {
            return Err("not a GGUF file".to_owned());
        }
        let version = rest.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF of version {version}; 2 and 3 are read"));
        }
        let (count, pairs) = (rest.u64()?, rest.u64()?);
        for _ in 0..pairs {
            let key = rest.text()?;
            fields.insert(key, rest.field()?);
        }
        for _ in 0..count {
            let name = rest.text()?;
            let dims = (0..rest.u32()?).map(|_| rest.u64()).collect::<Parsed<Vec<u64>>>()?;
            let place = Place { dims, kind: rest.u32()?, offset: rest.u64()? };
            if tensors.insert(name.clone(), place).is_some() {
                return Err(format!("two tensors are called `{}`", printable(&name)));
            }
        }
        let align = match fields.get("general.alignment") {
            Some(Field::Number(n)) if *n >= 1.0 && *n <= 65536.0 => *n as usize,
            None => 32,
            Some(_) => return Err("`general.alignment` is no number from 1 to 65536".to_owned()),
        };
        let data = rest.at.next_multiple_of(align);
        Ok(File { path: path.to_owned(), bytes, data, fields, tensors })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A field.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.get(key)
    }

    /// A field that is a text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.fields.get(key) {
            Some(Field::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor of two dimensions as `f32`, from F32, F16 or BF16.
    ///
    /// # Errors
    /// [`FileError::Format`]: none of that name; another type or shape; values that are not finite.
    pub fn matrix(&self, name: &str) -> Result<Matrix, FileError> {
        let wrong = |problem: String| FileError::Format { path: self.path.clone(), problem };
        let place = self.tensors.get(name).ok_or_else(|| wrong(format!("holds no tensor `{name}`")))?;
        let dims: Vec<usize> = place.dims.iter().rev().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
        let &[rows, cols] = dims.as_slice() else {
            return Err(wrong(format!("tensor `{name}` has shape {}; expected two dimensions", shape(&dims))));
        };
        let size = match place.kind {
            0 => 4,
            1 | 30 => 2,
            kind => {
                let problem = "expected F32, F16 or BF16; convert it with --outtype f32";
                return Err(wrong(format!("tensor `{name}` is of GGUF's type {kind}; {problem}")));
            }
        };
        let start = usize::try_from(place.offset).ok().and_then(|o| o.checked_add(self.data));
        let length = rows.checked_mul(cols).and_then(|n| n.checked_mul(size));
        let range = start.zip(length).and_then(|(start, n)| Some(start..start.checked_add(n)?));
        let Some(bytes) = range.and_then(|range| self.bytes.get(range)) else {
            return Err(wrong(format!("tensor `{name}` reaches beyond the file's end; copy it again")));
        };
        let data: Vec<f32> = match place.kind {
            0 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            1 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            _ => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        };
        match data.iter().position(|v| !v.is_finite()) {
            Some(at) => {
                let (row, col) = (at / cols, at % cols);
                Err(wrong(format!("tensor `{name}` holds {} at [{row}, {col}]; every value must be finite", data[at])))
            }
            None => Ok(Matrix::new(rows, cols, data)),
        }
    }
}
