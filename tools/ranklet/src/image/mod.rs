//! Image files: `.rkl`, as the device reads them. Written by the core's own emitter, read by its own checks.
//!
//! | file | what it does |
//! |---|---|
//! | [`base`] | a base in `f32` becomes an image |
//! | [`adapter`] | an adapter in `f32` becomes an image, and back |
//! | [`transformer`] | a transformer's checkpoint becomes an image |
//! | [`sections`] | a base image while it is put together |
//! | [`stored`] | a base's weights in floats, as its image has them |
//! | [`metadata`] | the JSON object that travels with an image |

pub mod adapter;
pub mod base;
pub mod metadata;
pub mod sections;
pub mod stored;
pub mod transformer;

use crate::adapter::Site;
use crate::files;
use crate::quantize::planes::misjoined;
use crate::tensor::name_list;
use anyhow::{Context, Result, anyhow};
use ranklet::image::layout::ALIGN;
use ranklet::image::{Head, Kind};
use ranklet::model::Model;
use ranklet::model::spec::transformer::Table;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// An image file in memory, at a multiple of 16, as the core's readers need it.
pub struct ImageFile {
    path: PathBuf,
    /// The image, with slack in front; the heap block never moves, so neither does the aligned part.
    bytes: Vec<u8>,
    start: usize,
}

impl std::fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFile").field("path", &self.path).field("len", &self.bytes().len()).finish()
    }
}

impl ImageFile {
    /// Reads a file and checks head and payload.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn open(path: &Path) -> Result<ImageFile> {
        let (bytes, start) =
            files::read_aligned(path, ALIGN).with_context(|| format!("cannot read {}", path.display()))?;
        let file = ImageFile { path: path.to_owned(), bytes, start };
        if file.bytes().get(8..).is_some_and(|b| b.starts_with(b"{\"")) {
            return Err(anyhow!(
                "{}: a safetensors file where an image (.rkl) is needed; `ranklet convert` makes one",
                path.display()
            ));
        }
        let head = file.head()?;
        head.check_payload(file.bytes()).with_context(|| path.display().to_string())?;
        Ok(file)
    }

    /// From bytes; `path` is for messages.
    #[must_use]
    pub fn of(path: &Path, image: &[u8]) -> ImageFile {
        let mut bytes = vec![0; image.len() + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        bytes[start..start + image.len()].copy_from_slice(image);
        bytes.truncate(start + image.len());
        ImageFile { path: path.to_owned(), bytes, start }
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The head, checked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn head(&self) -> Result<Head> {
        Head::parse(self.bytes()).with_context(|| self.path.display().to_string())
    }

    /// As a base.
    ///
    /// # Errors
    /// What is wrong with it; an adapter where a base is needed; two layers of one name, for everything that leaves the
    /// image again goes by the name.
    pub fn model(&self) -> Result<Model<'_>> {
        let hint = if self.head()?.kind == Kind::Adapter { "; this is the file for --adapter" } else { "" };
        let path = self.path.display();
        let model = Model::open(self.bytes()).map_err(|e| anyhow!("{path}: {e}{hint}"))?;
        let mut seen = HashSet::new();
        match sites(&model).into_iter().find_map(|s| seen.replace(s.module)) {
            Some(twice) => Err(anyhow!("{path}: two of its layers are called {}", name_list([twice.as_str()], 1))),
            None => Ok(model),
        }
    }

    /// As an adapter of this base.
    ///
    /// # Errors
    /// What is wrong with it; an adapter of another base; planes that no converter and no device writes.
    pub fn adapter(&self, model: &Model<'_>) -> Result<ranklet::model::Adapter<'_>> {
        let hint = if self.head()?.kind == Kind::Base { "; this is the file for --base" } else { "" };
        let path = self.path.display();
        let adapter = ranklet::model::Adapter::open(model, self.bytes()).map_err(|e| anyhow!("{path}: {e}{hint}"))?;
        match misjoined(adapter.high(), adapter.low()) {
            Some(at) => Err(anyhow!("{path}: element {at} of its planes is beyond ±(2^31 − 2^15): not ranklet's work")),
            None => Ok(adapter),
        }
    }
}

/// The linear layers of a base image. Layers of an image without names are called by their number.
#[must_use]
pub fn sites(model: &Model<'_>) -> Vec<Site> {
    let of = |site| {
        let l = model.linear_spec(site)?;
        let name = model.site_name(site);
        let module = if name.is_empty() { site.to_string() } else { name.to_owned() };
        Some(Site { module, inputs: l.inputs, outputs: l.outputs })
    };
    (0..model.spec().linears).filter_map(of).collect()
}

/// Parameters of a base image, counted as PyTorch counts them: weights and biases of the layers, and a transformer's
/// tables, norms and relative biases. A head that is the token table counts once.
#[must_use]
pub fn parameters(model: &Model<'_>) -> u64 {
    let (spec, head, bytes) = (model.spec(), model.head(), model.bytes());
    let elements = |section| head.section(bytes, section).map_or(0, |s| u64::from(s.rows) * u64::from(s.cols));
    let layers = (0..spec.linears).filter_map(|site| model.linear_spec(site));
    let mut sections: Vec<u16> = layers.flat_map(|l| [l.weight, l.bias]).collect();
    if let Some(t) = spec.transformer() {
        let tables = [Table::Tokens, Table::Positions, Table::Types];
        sections.extend(tables.into_iter().filter_map(|table| t.table(spec, head, bytes, table)).map(|t| t.weight));
        let norms = (0..t.norms()).filter_map(|n| t.norm(spec, head, bytes, n));
        sections.extend(norms.flat_map(|n| [n.weight, n.bias]));
        sections.extend(t.bias);
    }
    sections.sort_unstable();
    sections.dedup();
    sections.into_iter().map(elements).sum()
}

/// A writer of the standard library, as the core's emitter takes it.
#[derive(Debug, Default)]
pub struct Sink<W>(pub W);

impl<W> embedded_io::ErrorType for Sink<W> {
    type Error = std::io::Error;
}

impl<W: std::io::Write> embedded_io::Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
