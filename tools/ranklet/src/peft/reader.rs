//! From tensors and configuration to pairs: one module at a time, everything claimed, everything checked.

use super::PeftError;
use super::config::{self, Biases, Config, Selects};
use super::keys::{self, Key, Part};
use crate::adapter::{Adapter, MAX_RANK, Pair, find};
use crate::checkpoint::Checkpoint;
use crate::image::stored::Stored;
use crate::tensor::name_list;
use crate::{dora, whole};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An adapter that is being read.
pub(super) struct Reader<'a> {
    /// Of the weights, for messages.
    pub(super) path: &'a Path,
    pub(super) config: &'a Config,
    pub(super) weights: &'a Checkpoint,
    pub(super) base: &'a Stored<'a>,
}

/// The tensors of one module, by what they are.
type Tensors<'n> = BTreeMap<Part, &'n str>;

impl Reader<'_> {
    /// All of it.
    pub(super) fn read(&self) -> Result<Adapter, PeftError> {
        let (fields, warnings) = (self.config.fields.clone(), self.config.warnings.clone());
        let mut adapter = Adapter { pairs: Vec::new(), config: fields, warnings };
        let modules = self.sort()?;
        self.check_saved(&modules, &mut adapter.warnings)?;
        self.check_biases(&modules)?;
        let mut paired = BTreeSet::new();
        for (module, tensors) in &modules {
            let plain = tensors.keys().filter(|p| matches!(p, Part::Weight | Part::Bias)).count();
            adapter.pairs.push(match plain {
                0 => {
                    let pair = self.lora(module, tensors, &mut adapter.warnings)?;
                    paired.insert(pair.site);
                    pair
                }
                n if n < tensors.len() => {
                    let names = name_list(tensors.values().copied(), 8);
                    return self.refuse(format!("`{module}` has a pair and was trained whole too: {names}"));
                }
                _ if tensors.contains_key(&Part::Weight) => self.whole(module, tensors)?,
                _ => self.only_bias(module, tensors)?,
            });
        }
        adapter.pairs.sort_by_key(|p| p.site);
        self.check_complete(&paired)?;
        Ok(adapter)
    }

    fn refuse<T>(&self, problem: String) -> Result<T, PeftError> {
        Err(PeftError::Tensors { path: self.path.to_owned(), problem })
    }

    fn site(&self, module: &str) -> Result<usize, PeftError> {
        find(module, self.base.sites()).map_err(|source| PeftError::Pair { path: self.path.to_owned(), source })
    }

    /// Sorts tensor names by module; whatever is on no list is refused by name.
    fn sort(&self) -> Result<BTreeMap<&str, Tensors<'_>>, PeftError> {
        let config = self.config;
        let mut modules: BTreeMap<&str, Tensors<'_>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for name in self.weights.names() {
            match keys::parse(name) {
                Key::Of { module, part } => {
                    let claimed = match part {
                        Part::Weight => config.saves(module),
                        Part::Bias => config.saves(module) || config.biases == Biases::All,
                        _ => true,
                    };
                    if !claimed {
                        unknown.push(name);
                    } else if let Some(twice) = modules.entry(module).or_default().insert(part, name) {
                        return self.refuse(format!("tensors `{twice}` and `{name}` mean the same"));
                    }
                }
                Key::NotSupported(what) => return self.refuse(format!("tensor `{name}`: not supported: {what}")),
                Key::Mlx => return self.refuse(format!("tensor `{name}`: {}", config::MLX)),
                Key::Unknown => unknown.push(name),
            }
        }
        if unknown.is_empty() {
            return Ok(modules);
        }
        let hint = if unknown.iter().any(|n| keys::carries_adapter_name(n)) {
            "; they carry an adapter's name, as a state_dict() does: save with PEFT's save_pretrained() instead"
        } else if unknown.iter().all(|n| !n.starts_with(keys::PREFIX)) {
            "; PEFT's names start with `base_model.model.`: save with PEFT's save_pretrained()"
        } else {
            "; a layer that was trained whole has to be named in modules_to_save"
        };
        let names = name_list(unknown.iter().copied(), 8);
        self.refuse(format!("left-over tensors that no rule claims: {names}{hint}"))
    }

    /// What `modules_to_save` names has to be in the file, if the base has it.
    fn check_saved(&self, modules: &BTreeMap<&str, Tensors<'_>>, notes: &mut Vec<String>) -> Result<(), PeftError> {
        for name in &self.config.modules_to_save {
            let within = |module: &str| config::is_within(module, name);
            if modules.iter().any(|(module, t)| t.contains_key(&Part::Weight) && within(module)) {
                continue;
            }
            if self.base.sites().iter().any(|s| within(&s.module)) {
                return self.refuse(format!(
                    "modules_to_save names `{name}`, a layer of this base, but the file does not hold it"
                ));
            }
            notes.push(format!(
                "modules_to_save names `{name}`, which neither the base nor the file holds: passed over"
            ));
        }
        Ok(())
    }

    /// With `bias: all` the biases of every module are in the file; those of layer norms have no place in an adapter.
    fn check_biases(&self, modules: &BTreeMap<&str, Tensors<'_>>) -> Result<(), PeftError> {
        let alone = |t: &Tensors<'_>| t.len() == 1 && t.contains_key(&Part::Bias);
        let foreign: Vec<&str> = modules
            .iter()
            .filter(|(module, t)| alone(t) && find(module, self.base.sites()).is_err())
            .filter_map(|(_, t)| t.get(&Part::Bias).copied())
            .collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let names = name_list(foreign, 8);
        self.refuse(format!(
            "the biases {names} belong to no linear layer of the base, but to layer norms, say (`bias` is \"all\"): not \
             supported; train with bias=\"lora_only\""
        ))
    }

    /// A pair, with what stands beside it.
    fn lora(&self, module: &str, tensors: &Tensors<'_>, notes: &mut Vec<String>) -> Result<Pair, PeftError> {
        let config = self.config;
        let site = self.site(module)?;
        let (Some(a), Some(b)) = (tensors.get(&Part::A), tensors.get(&Part::B)) else {
            let names = name_list(tensors.values().copied(), 8);
            let missing = if tensors.contains_key(&Part::A) { "lora_B" } else { "lora_A" };
            return self.refuse(format!("`{module}` has {names} but no {missing}; save the adapter again"));
        };
        let wrapper = super::wrapper(module);
        if let Selects::No(why) = config.selects(wrapper.unwrap_or(module)) {
            return self.refuse(format!("tensors for `{module}`, but {why}; PEFT would not load them"));
        }
        let a = self.weights.matrix(a, "(r, in)")?;
        let b = self.weights.matrix(b, "(out, r)")?;
        let rank = config.rank(module);
        if (1..=MAX_RANK).contains(&a.rows) && a.rows != rank {
            return self.refuse(format!(
                "`{module}`: lora_A has rank {}, but the configuration says {rank} (r, or rank_pattern); they belong \
                 to different adapters",
                a.rows
            ));
        }
        let mut scaling = config.scaling(module, a.rows);
        if wrapper.is_some() {
            if config.dora || config.lora_bias || config.biases != Biases::None {
                let problem = "use_dora, lora_bias and trained biases are not supported on a wrapped attention";
                return self.refuse(format!("`{module}`: {problem}"));
            }
            scaling *= super::WRAPPED_TIMES;
            notes.push(format!(
                "`{module}`: PEFT (seen in 0.21) adds this pair twice; so it is stored at twice its scaling"
            ));
        }
        let mut pair = Pair::fit(module, a, b, scaling, self.base.sites())
            .map_err(|source| PeftError::Pair { path: self.path.to_owned(), source })?;
        pair.bias = self.moved_bias(module, site, scaling, tensors)?;
        if let Some(magnitudes) = self.vector(module, site, tensors, Part::Magnitude, ("use_dora", config.dora))? {
            dora::apply(&mut pair, &magnitudes, self.base).or_else(|why| self.refuse(format!("`{module}`: {why}")))?;
        }
        Ok(pair)
    }

    /// What a pair adds to its layer's bias: a bias in the base's place, and s times that of B.
    fn moved_bias(
        &self,
        module: &str,
        site: usize,
        scaling: f64,
        tensors: &Tensors<'_>,
    ) -> Result<Option<Vec<f32>>, PeftError> {
        let config = self.config;
        let from = self.base.bias(site);
        if let (Some(name), None) = (tensors.get(&Part::BaseBias), &from) {
            return self.refuse(format!("tensor `{name}`, but the base's layer has no bias; is this another base?"));
        }
        let trained = ("bias", config.biases != Biases::None && from.is_some());
        let to = self.vector(module, site, tensors, Part::BaseBias, trained)?;
        let of_b = self.vector(module, site, tensors, Part::BBias, ("lora_bias", config.lora_bias))?;
        if to.is_none() && of_b.is_none() {
            return Ok(None);
        }
        let moved = from.zip(to);
        let at = |o: usize| {
            let moved = moved.as_ref().map_or(0.0, |(from, to)| f64::from(to[o]) - from[o]);
            (moved + of_b.as_ref().map_or(0.0, |b| scaling * f64::from(b[o]))) as f32
        };
        Ok(Some((0..self.base.sites()[site].outputs).map(at).collect()))
    }

    /// A vector of a pair, which is there if and only if the configuration says so.
    fn vector(
        &self,
        module: &str,
        site: usize,
        tensors: &Tensors<'_>,
        part: Part,
        (field, wanted): (&str, bool),
    ) -> Result<Option<Vec<f32>>, PeftError> {
        match (tensors.get(&part), wanted) {
            (Some(name), true) => {
                let outputs = self.base.sites()[site].outputs;
                Ok(Some(self.weights.vector(name, outputs, &format!("output of `{module}`"))?))
            }
            (None, false) => Ok(None),
            (Some(name), false) => {
                self.refuse(format!("tensor `{name}`, but `{field}` is not set; PEFT would not load it"))
            }
            (None, true) => {
                let name = keys::name(module, part);
                self.refuse(format!("`{field}` is set, but the file holds no `{name}`; the file is incomplete"))
            }
        }
    }

    /// A layer trained whole.
    fn whole(&self, module: &str, tensors: &Tensors<'_>) -> Result<Pair, PeftError> {
        let Ok(site) = find(module, self.base.sites()) else {
            let known = name_list(self.base.sites().iter().map(|s| s.module.as_str()), 12);
            return self.refuse(format!(
                "`{module}` was trained whole (modules_to_save) and is no linear layer of the base: not supported; the \
                 base has {known}"
            ));
        };
        let name = tensors[&Part::Weight];
        let weight = self.weights.matrix(name, "(out, in)")?;
        let pair = whole::pair(&weight, site, self.base).or_else(|why| self.refuse(format!("`{name}` {why}")))?;
        let bias = match (tensors.contains_key(&Part::Bias), self.base.bias(site)) {
            (false, None) => None,
            (false, Some(_)) => {
                let missing = keys::name(module, Part::Bias);
                return self.refuse(format!("`{module}` was trained whole, but the file holds no `{missing}`"));
            }
            (true, _) => Some(self.difference(module, site, tensors)?),
        };
        Ok(Pair { bias, ..pair })
    }

    /// The bias of a layer that has no pair.
    fn only_bias(&self, module: &str, tensors: &Tensors<'_>) -> Result<Pair, PeftError> {
        let site = self.site(module)?;
        if self.config.saves(module) {
            let missing = keys::name(module, Part::Weight);
            return self.refuse(format!("`{module}` was trained whole, but the file holds no `{missing}`"));
        }
        Ok(Pair::only_bias(site, self.base.sites()[site].inputs, self.difference(module, site, tensors)?))
    }

    /// A trained bias against the base's.
    fn difference(&self, module: &str, site: usize, tensors: &Tensors<'_>) -> Result<Vec<f32>, PeftError> {
        let name = tensors[&Part::Bias];
        let Some(from) = self.base.bias(site) else {
            return self.refuse(format!("tensor `{name}`, but the base's layer has no bias; is this another base?"));
        };
        let to = self.weights.vector(name, from.len(), &format!("output of `{module}`"))?;
        Ok(to.iter().zip(from).map(|(&to, from)| (f64::from(to) - from) as f32).collect())
    }

    /// Everything that the configuration selects has to have come.
    fn check_complete(&self, paired: &BTreeSet<usize>) -> Result<(), PeftError> {
        let sites = self.base.sites().iter().enumerate();
        let bare = |(i, module): &(usize, &str)| !paired.contains(i) && self.config.selects(module) == Selects::Yes;
        let missing: Vec<&str> = sites.map(|(i, s)| (i, s.module.as_str())).filter(bare).map(|(_, m)| m).collect();
        if !missing.is_empty() {
            let names = name_list(missing, 8);
            return self.refuse(format!(
                "target_modules selects {names}, but the file holds no tensors for it; the file is incomplete"
            ));
        }
        if paired.is_empty() {
            return self.refuse("holds no lora_A / lora_B tensors".to_owned());
        }
        Ok(())
    }
}
