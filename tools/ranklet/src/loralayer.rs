//! Plain PyTorch: the `state_dict` of a hand-written `LoRALayer`, with `W` (out, in), `A` (out, r), `B` (r, in) and
//! ΔW = alpha · A B. Against PEFT the two names are swapped, and alpha is not divided by the rank; nothing in the
//! file says so, which is why it takes an explicit option.

use crate::adapter::{Adapter, MAX_RANK, Pair, PairError, Site};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::image::stored::Stored;
use crate::tensor::{Matrix, name_list, shape};
use serde_json::Map;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why it cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraLayerError {
    /// The file.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Tensors that cannot be used.
    #[error("{path}: {problem}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        problem: String,
    },
}

/// Reads the file (or directory with `model.safetensors`): `<module>.A`, `<module>.B` and perhaps `<module>.W`; for
/// a base of one layer also plain `A`, `B`, `W`. `alpha` is the layer's, as its code has it.
///
/// # Errors
/// [`LoraLayerError`]: left-over tensors, half a pair, a `W` that is not the base's.
pub fn read(path: &Path, alpha: f64, base: &Stored<'_>) -> Result<Adapter, LoraLayerError> {
    let sites = base.sites();
    let file = Checkpoint::open(path)?;
    let wrong = |problem: String| LoraLayerError::Tensors { path: path.to_owned(), problem };
    let mut modules = BTreeSet::new();
    let mut unknown = Vec::new();
    for name in file.names() {
        match name.rsplit_once('.').unwrap_or(("", name)) {
            (module, "A" | "B" | "W") => {
                modules.insert(module.to_owned());
            }
            _ => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let names = name_list(unknown, 8);
        return Err(wrong(format!("left-over tensors that no rule claims: {names}; expected <module>.A, .B and .W")));
    }
    let mut pairs = Vec::new();
    for module in modules {
        let key = |part: &str| if module.is_empty() { part.to_owned() } else { format!("{module}.{part}") };
        let target = match (module.is_empty(), sites) {
            (false, _) => module.as_str(),
            (true, [only]) => only.module.as_str(),
            (true, _) => {
                let known = name_list(sites.iter().map(|s| s.module.as_str()), 8);
                let problem = format!("`A` and `B` name no module, and the base has {}: {known}", sites.len());
                return Err(wrong(problem));
            }
        };
        for part in ["A", "B"] {
            if !file.contains(&key(part)) {
                return Err(wrong(format!("`{}` is missing; a LoRALayer has A and B", key(part))));
            }
        }
        // Theirs: ΔW = alpha · A B with A (out, r), B (r, in). Ours: ΔW = s · B A.
        let b = file.matrix(&key("A"), "(out, r)")?;
        let a = file.matrix(&key("B"), "(r, in)")?;
        let pair = Pair::fit(target, a, b, alpha, sites).map_err(|e| wrong(theirs(&e)))?;
        if file.contains(&key("W")) {
            let w = file.matrix(&key("W"), "(out, in)")?;
            compare(&w, pair.site, base).map_err(|why| wrong(format!("`{}` {why}", key("W"))))?;
        }
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(wrong("holds no tensors".to_owned()));
    }
    pairs.sort_by_key(|p| p.site);
    if let Some(twice) = pairs.windows(2).find(|w| w[0].site == w[1].site) {
        let module = &sites[twice[0].site].module;
        return Err(wrong(format!("`A` without a module and `{module}.A` mean the same layer")));
    }
    Ok(Adapter { pairs, config: Map::new(), warnings: Vec::new() })
}

/// A misfit in the file's own terms: its A is (out, r), and its B (r, in).
fn theirs(e: &PairError) -> String {
    match e {
        PairError::Rank { module, a_rows, b_cols } => {
            format!("`{module}`: A is (…, {b_cols}) and B is ({a_rows}, …); both must be the rank, 1 to {MAX_RANK}")
        }
        PairError::Dimensions { module, a_cols, b_rows, inputs, outputs } => format!(
            "`{module}`: A is ({b_rows}, …) and B is (…, {a_cols}), but the base's layer has {outputs} outputs and \
             {inputs} inputs; a LoRALayer's A is (out, r), its B (r, in)"
        ),
        e @ PairError::Unknown { .. } => e.to_string(),
    }
}

fn compare(w: &Matrix, site: usize, base: &Stored<'_>) -> Result<(), String> {
    let Site { inputs, outputs, .. } = base.sites()[site];
    if (w.rows, w.cols) != (outputs, inputs) {
        let (found, expected) = (shape(&[w.rows, w.cols]), shape(&[outputs, inputs]));
        return Err(format!("has shape {found}, the base's layer {expected}"));
    }
    for (i, &v) in w.data.iter().enumerate() {
        let (row, col) = (i / inputs, i % inputs);
        let ours = base.value(site, row, col);
        if (f64::from(v) - ours).abs() > base.tolerance(site, row) {
            return Err(format!(
                "is not the base's weight: {v} at [{row}, {col}], where the base has {ours}; an adapter works on the \
                 base it was trained on only"
            ));
        }
    }
    Ok(())
}
