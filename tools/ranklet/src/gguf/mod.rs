//! LoRA adapters as llama.cpp stores them: `<tensor of the base>.lora_a` (r, in) and `.lora_b` (out, r), and one alpha
//! for all of them; ΔW = alpha / r · B A, or B A where alpha is 0.
//!
//! | file | what it knows |
//! |---|---|
//! | [`mod@file`] | the container |
//! | this | names, and the order of rows |
//!
//! The names are GGUF's and become Hugging Face's. Llama's queries and keys have their rows in another order there: of
//! each head, halves interleaved, as llama.cpp rotates neighbours where Hugging Face rotates halves.

pub mod file;

use crate::adapter::{Adapter, AlphaError, MAX_RANK, Pair, PairError, check_alpha, find};
use crate::image::stored::Stored;
use crate::tensor::{Matrix, name_list};
use file::{Field, File, FileError, MAGIC};
use ranklet::model::spec::Transformer;
use serde_json::Map;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why an adapter cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The container.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not an adapter, or one that changes the arithmetic in another way.
    #[error("{path}: {problem}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        problem: String,
    },
    /// An alpha that no image can hold.
    #[error("{path}: `adapter.lora.alpha` is {alpha}: {source}")]
    Alpha {
        /// The file.
        path: PathBuf,
        /// What it says.
        alpha: f64,
        /// Why not.
        source: AlphaError,
    },
    /// A pair that does not fit the base.
    #[error("{path}")]
    Pair {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PairError,
    },
    /// Tensors that cannot be used.
    #[error("{path}: {problem}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        problem: String,
    },
}

/// The layers of a block, by family: GGUF's name, Hugging Face's, and whether the rows have llama.cpp's order.
struct Family {
    architectures: &'static [&'static str],
    /// What stands before a block's number in a module's path.
    block: &'static str,
    /// Whether the weights of a block's layers are (in, out) in Hugging Face's files.
    conv1d: bool,
    layers: &'static [(&'static str, &'static str, Rows)],
}

/// How the rows of a B stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Plain,
    /// Interleaved within each head of queries.
    Queries,
    /// Interleaved within each head of keys.
    Keys,
}

const FAMILIES: [Family; 4] = [
    Family {
        architectures: &["llama"],
        block: "model.layers",
        conv1d: false,
        layers: &[
            ("attn_q", "self_attn.q_proj", Rows::Queries),
            ("attn_k", "self_attn.k_proj", Rows::Keys),
            ("attn_v", "self_attn.v_proj", Rows::Plain),
            ("attn_output", "self_attn.o_proj", Rows::Plain),
            ("ffn_gate", "mlp.gate_proj", Rows::Plain),
            ("ffn_up", "mlp.up_proj", Rows::Plain),
            ("ffn_down", "mlp.down_proj", Rows::Plain),
        ],
    },
    Family {
        architectures: &["qwen2"],
        block: "model.layers",
        conv1d: false,
        layers: &[
            ("attn_q", "self_attn.q_proj", Rows::Plain),
            ("attn_k", "self_attn.k_proj", Rows::Plain),
            ("attn_v", "self_attn.v_proj", Rows::Plain),
            ("attn_output", "self_attn.o_proj", Rows::Plain),
            ("ffn_gate", "mlp.gate_proj", Rows::Plain),
            ("ffn_up", "mlp.up_proj", Rows::Plain),
            ("ffn_down", "mlp.down_proj", Rows::Plain),
        ],
    },
    Family {
        architectures: &["gpt2"],
        block: "transformer.h",
        conv1d: true,
        layers: &[
            ("attn_qkv", "attn.c_attn", Rows::Plain),
            ("attn_output", "attn.c_proj", Rows::Plain),
            ("ffn_up", "mlp.c_fc", Rows::Plain),
            ("ffn_down", "mlp.c_proj", Rows::Plain),
        ],
    },
    Family {
        architectures: &["bert"],
        block: "encoder.layer",
        conv1d: false,
        layers: &[
            ("attn_q", "attention.self.query", Rows::Plain),
            ("attn_k", "attention.self.key", Rows::Plain),
            ("attn_v", "attention.self.value", Rows::Plain),
            ("attn_output", "attention.output.dense", Rows::Plain),
            ("ffn_up", "intermediate.dense", Rows::Plain),
            ("ffn_down", "output.dense", Rows::Plain),
        ],
    },
];

/// Whether a file starts as GGUF does.
#[must_use]
pub fn is_gguf(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    path.is_file() && std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_ok() && start == *MAGIC
}

/// Reads an adapter for a base; `transformer` is what the base's spec says of its heads.
///
/// # Errors
/// [`GgufError`]: a model, or an adapter of another kind; an architecture or a tensor that is not known here, by name.
pub fn read(path: &Path, base: &Stored<'_>, transformer: Option<&Transformer>) -> Result<Adapter, GgufError> {
    let file = File::open(path)?;
    let (family, alpha) = check_kind(&file)?;
    let refuse = |problem: String| GgufError::Tensors { path: path.to_owned(), problem };
    let mut tensors = BTreeSet::new();
    let mut unknown = Vec::new();
    for name in file.names() {
        match name.strip_suffix(".lora_a").or_else(|| name.strip_suffix(".lora_b")) {
            Some(tensor) => drop(tensors.insert(tensor)),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let names = name_list(unknown, 8);
        return Err(refuse(format!("left-over tensors that no rule claims: {names}; expected ….lora_a and ….lora_b")));
    }
    let mut found = Vec::new();
    for tensor in tensors {
        let (module, rows) = module(tensor, family).ok_or_else(|| {
            let known = name_list(family.layers.iter().map(|(name, _, _)| *name), 12);
            refuse(format!("`{tensor}` is no linear layer that is known here: blk.N.… of {known}, or output"))
        })?;
        let (a, b) = (file.matrix(&format!("{tensor}.lora_a"))?, file.matrix(&format!("{tensor}.lora_b"))?);
        // A base with a head has its body in a module of its own.
        let longer = base.sites().iter().find(|s| s.module.ends_with(&format!(".{module}")));
        let module = longer.map_or(module, |s| s.module.clone());
        let site = find(&module, base.sites()).map_err(|source| GgufError::Pair { path: path.to_owned(), source })?;
        found.push(Found { tensor, module, site, rows, a, b });
    }
    let mut warnings = Vec::new();
    if family.conv1d && turn_back(&mut found, base).map_err(refuse)? {
        let warning = "llama.cpp's converter has exchanged A and B of GPT-2's layers, which llama.cpp would not load: \
                       they have been exchanged back";
        warnings.push(warning.to_owned());
    }
    let mut pairs = Vec::new();
    for Found { tensor, module, rows, a, mut b, .. } in found {
        let heads = transformer.map(|t| if rows == Rows::Keys { t.kv_heads } else { t.heads });
        if let (true, Some(heads)) = (rows != Rows::Plain, heads) {
            b = uninterleaved(&b, heads)
                .ok_or_else(|| refuse(format!("`{tensor}.lora_b` has {} rows, which are no {heads} heads", b.rows)))?;
        }
        let scaling = if alpha == 0.0 { 1.0 } else { alpha / a.rows.clamp(1, MAX_RANK) as f64 };
        let pair = Pair::fit(&module, a, b, scaling, base.sites());
        pairs.push(pair.map_err(|source| GgufError::Pair { path: path.to_owned(), source })?);
    }
    if pairs.is_empty() {
        return Err(refuse("holds no tensors".to_owned()));
    }
    pairs.sort_by_key(|p| p.site);
    Ok(Adapter { pairs, config: Map::new(), warnings })
}

/// A pair as it stands in the file.
struct Found<'f> {
    tensor: &'f str,
    module: String,
    site: usize,
    rows: Rows,
    a: Matrix,
    b: Matrix,
}

/// GPT-2's weights are (in, out) in Hugging Face's files. llama.cpp's converter transposes them, and with them the product
/// B A of PEFT, which is (out, in) already: it writes Bᵀ for A and Aᵀ for B. Exchanges them back, and tells whether it
/// had to.
///
/// # Errors
/// Where every layer is square, so that nothing tells.
fn turn_back(found: &mut [Found<'_>], base: &Stored<'_>) -> Result<bool, String> {
    let fits = |f: &Found<'_>, inputs: usize, outputs: usize| f.a.cols == inputs && f.b.rows == outputs;
    let mut of_blocks: Vec<&mut Found<'_>> = found.iter_mut().filter(|f| f.tensor.starts_with("blk.")).collect();
    let sides = |f: &Found<'_>| (base.sites()[f.site].inputs, base.sites()[f.site].outputs);
    let oblong = of_blocks.iter().find(|f| sides(f).0 != sides(f).1);
    let turned = match oblong {
        None if of_blocks.is_empty() => false,
        None => {
            let names = name_list(of_blocks.iter().map(|f| f.tensor), 8);
            return Err(format!(
                "its layers ({names}) are square, so that nothing tells whether llama.cpp's converter has exchanged A \
                 and B; give the PEFT adapter it was made from"
            ));
        }
        Some(f) => fits(f, sides(f).1, sides(f).0),
    };
    for f in of_blocks.iter_mut().filter(|_| turned) {
        (f.a, f.b) = (f.b.transposed(), f.a.transposed());
    }
    Ok(turned)
}

/// The family, and alpha.
fn check_kind(file: &File) -> Result<(&'static Family, f64), GgufError> {
    let wrong = |problem: String| Err(GgufError::Kind { path: file.path().to_owned(), problem });
    match file.text("general.type") {
        Some("adapter") => {}
        found => {
            let found = found.unwrap_or("missing");
            return wrong(format!(
                "`general.type` is {found:?}; expected \"adapter\": a GGUF of a LoRA, not of a model"
            ));
        }
    }
    match file.text("adapter.type") {
        Some("lora") => {}
        found => return wrong(format!("`adapter.type` is {:?}; expected \"lora\"", found.unwrap_or("missing"))),
    }
    if file.field("adapter.alora.invocation_tokens").is_some() {
        return wrong("`adapter.alora.invocation_tokens`: aLoRA is active behind certain tokens only".to_owned());
    }
    let alpha = match file.field("adapter.lora.alpha") {
        Some(Field::Number(alpha)) => *alpha,
        None => 0.0,
        Some(_) => return wrong("`adapter.lora.alpha` is no number".to_owned()),
    };
    check_alpha(alpha).map_err(|source| GgufError::Alpha { path: file.path().to_owned(), alpha, source })?;
    let architecture = file.text("general.architecture").unwrap_or("missing");
    match FAMILIES.iter().find(|f| f.architectures.contains(&architecture)) {
        Some(family) => Ok((family, alpha)),
        None => {
            let known = name_list(FAMILIES.iter().flat_map(|f| f.architectures.iter().copied()), 8);
            wrong(format!("`general.architecture` is {architecture:?}; known here are {known}"))
        }
    }
}

/// Hugging Face's path for a tensor: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj`.
fn module(tensor: &str, family: &Family) -> Option<(String, Rows)> {
    let layer = tensor.strip_suffix(".weight")?;
    if layer == "output" {
        return Some(("lm_head".to_owned(), Rows::Plain));
    }
    let (block, layer) = layer.strip_prefix("blk.")?.split_once('.')?;
    let number = block.parse::<u16>().ok()?;
    let (_, module, rows) = family.layers.iter().find(|(name, _, _)| *name == layer)?;
    Some((format!("{}.{number}.{module}", family.block), *rows))
}

/// Rows in Hugging Face's order: of each head, what stands at 2 j + p goes to p · half + j. None where the rows are not
/// so many heads of even size.
fn uninterleaved(b: &Matrix, heads: usize) -> Option<Matrix> {
    let width = b.rows.checked_div(heads)?;
    if width * heads != b.rows || !width.is_multiple_of(2) {
        return None;
    }
    let from = |row: usize| {
        let (head, within) = (row / width, row % width);
        let (half, j) = (within / (width / 2), within % (width / 2));
        head * width + 2 * j + half
    };
    let rows: Vec<&[f32]> = b.iter_rows().collect();
    let data = (0..b.rows).flat_map(|row| rows.get(from(row)).copied().unwrap_or(&[])).copied().collect();
    Some(Matrix::new(b.rows, b.cols, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_back_to_their_halves() {
        // Two heads of four: (0, 2, 1, 3) is where llama.cpp puts a head's rows.
        let b = Matrix::new(8, 1, vec![0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        let back = uninterleaved(&b, 2).unwrap();
        assert_eq!(back.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!((uninterleaved(&b, 3), uninterleaved(&b, 0), uninterleaved(&b, 8)), (None, None, None));
    }

    #[test]
    fn names_become_paths() {
        let of = |tensor: &str, i: usize| module(tensor, &FAMILIES[i]);
        let path = |s: &str, rows| Some((s.to_owned(), rows));
        assert_eq!(of("blk.3.attn_q.weight", 0), path("model.layers.3.self_attn.q_proj", Rows::Queries));
        assert_eq!(of("blk.12.ffn_down.weight", 1), path("model.layers.12.mlp.down_proj", Rows::Plain));
        assert_eq!(of("blk.0.attn_qkv.weight", 2), path("transformer.h.0.attn.c_attn", Rows::Plain));
        assert_eq!(of("output.weight", 2), path("lm_head", Rows::Plain));
        for unknown in ["token_embd.weight", "blk.x.attn_q.weight", "blk.1.attn_q.bias", "blk.1.attn_qkv.weight", ""] {
            assert_eq!(of(unknown, 0), None, "{unknown}");
        }
    }
}
