//! The `adapter_config.json` of an export: the user's own fields where they came with the adapter and still hold,
//! the minimum that PEFT needs otherwise.

use crate::adapter::{Adapter, Pair, Site};
use crate::image::stored::Stored;
use crate::peft;
use crate::peft::config::{Biases, Config, Selects, is_within};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::path::Path;

/// How near two scalings are the same: a [`Real`](ranklet::fixed::Real) keeps 31 bits, and alpha is written with nine
/// digits.
pub const NEAR: f64 = 1e-8;

/// The fields.
///
/// # Errors
/// Where the configuration that came with the adapter cannot be read any more (a damaged image).
pub fn fields(adapter: &Adapter, base: &Stored<'_>) -> Result<Map<String, Value>> {
    let sites = base.sites();
    if adapter.config.is_empty() {
        let mut fields = Map::new();
        for (k, v) in [
            ("peft_type", json!("LORA")),
            ("task_type", Value::Null),
            ("base_model_name_or_path", Value::Null),
            ("inference_mode", json!(true)),
            ("bias", json!("none")),
            ("lora_dropout", json!(0.0)),
        ] {
            fields.insert(k.to_owned(), v);
        }
        set(&mut fields, adapter, base)?;
        return Ok(fields);
    }
    let text = Value::Object(adapter.config.clone()).to_string();
    let config = Config::parse(Path::new("the configuration in the image"), &text)
        .context("the image holds a PEFT configuration that does not hold together")?;
    let mut fields = adapter.config.clone();
    if !describes(&config, &adapter.pairs, sites) {
        // The pairs are the truth: they were changed (another rank, other layers) after the configuration was written.
        set(&mut fields, adapter, base)?;
        for k in ["exclude_modules", "layers_to_transform", "layers_pattern"] {
            fields.get_mut(k).into_iter().for_each(|v| *v = Value::Null);
        }
    }
    Ok(fields)
}

/// Whether a configuration says exactly what the pairs are.
fn describes(config: &Config, pairs: &[Pair], sites: &[Site]) -> bool {
    sites.iter().enumerate().all(|(i, site)| match pairs.iter().find(|p| p.site == i) {
        Some(p) if p.whole => config.saves(&site.module) && config.selects(&site.module) != Selects::Yes,
        Some(p) if p.is_only_bias() && config.selects(&site.module) != Selects::Yes => {
            config.biases == Biases::All && !config.saves(&site.module)
        }
        Some(p) => {
            let (ours, said) = (scaling(p, &site.module), config.scaling(&site.module, p.rank()));
            config.rank(&site.module) == p.rank()
                && (said - ours).abs() <= NEAR * ours.abs()
                && !matches!(config.selects(selected(&site.module)), Selects::No(_))
                && (config.dora || p.gain.is_none())
                && (config.biases != Biases::None || config.lora_bias || p.bias.is_none())
        }
        None => config.selects(&site.module) != Selects::Yes,
    })
}

/// The module that PEFT selects for a pair to be there.
fn selected(module: &str) -> &str {
    peft::wrapper(module).unwrap_or(module)
}

/// The scaling as PEFT's configuration says it.
fn scaling(pair: &Pair, module: &str) -> f64 {
    pair.scaling / if peft::wrapper(module).is_some() { peft::WRAPPED_TIMES } else { 1.0 }
}

/// Rank, alpha, targets and everything else that follows from the pairs.
fn set(fields: &mut Map<String, Value>, adapter: &Adapter, base: &Stored<'_>) -> Result<()> {
    let sites = base.sites();
    let name = |p: &Pair| sites[p.site].module.as_str();
    let mut pairs: Vec<&Pair> = adapter.pairs.iter().filter(|p| p.is_lora()).collect();
    let Some(&first) = pairs.first() else {
        bail!("no layer has a pair of A and B, and PEFT loads no adapter without; nothing was written");
    };
    let (r, lora_alpha, targets) = (first.rank(), alpha(first, name(first)), targets(&pairs, sites));
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    // The first key that matches counts, and `0` also matches `net.0`: longer paths first.
    pairs.sort_by_key(|p| std::cmp::Reverse(name(p).len()));
    let uniform = pairs.iter().all(|p| p.rank() == r && alpha(p, name(p)) == lora_alpha);
    if !uniform {
        for p in &pairs {
            let key = regex::escape(name(p));
            ranks.insert(key.clone(), json!(p.rank()));
            alphas.insert(key, alpha(p, name(p)));
        }
    }
    for (k, v) in [
        ("r", json!(r)),
        ("lora_alpha", lora_alpha),
        ("target_modules", targets),
        ("rank_pattern", Value::Object(ranks)),
        ("alpha_pattern", Value::Object(alphas)),
        ("use_rslora", json!(false)),
    ] {
        fields.insert(k.to_owned(), v);
    }
    set_extras(fields, adapter, &pairs, base)
}

/// The fields of what stands beside A and B. What is off is left as it came, or out.
fn set_extras(fields: &mut Map<String, Value>, adapter: &Adapter, pairs: &[&Pair], base: &Stored<'_>) -> Result<()> {
    let sites = base.sites();
    let whole: Vec<&str> = adapter.pairs.iter().filter(|p| p.whole).map(|p| sites[p.site].module.as_str()).collect();
    let also = |w: &str| sites.iter().find(|s| is_within(&s.module, w) && !whole.contains(&s.module.as_str()));
    if let Some((w, also)) = whole.iter().find_map(|w| Some((w, also(w)?))) {
        let also = &also.module;
        bail!("`{w}` was trained whole, but modules_to_save with that name means `{also}` too; nothing was written");
    }
    let dora = pairs.iter().any(|p| p.gain.is_some());
    let any_bias = pairs.iter().any(|p| p.bias.is_some());
    let without = pairs.iter().find(|p| p.bias.is_some() && base.bias(p.site).is_none());
    let biases = match () {
        () if adapter.pairs.iter().any(Pair::is_only_bias) => "all",
        () if any_bias && without.is_none() => "lora_only",
        () => "none",
    };
    if let (Some(p), true) = (without, dora) {
        let module = &sites[p.site].module;
        bail!("`{module}` has gained a bias beside DoRA's magnitudes, which PEFT cannot say; nothing was written");
    }
    let saved = if whole.is_empty() { Value::Null } else { json!(whole) };
    for (k, v, on) in [
        ("bias", json!(biases), true),
        ("use_dora", json!(dora), dora),
        ("lora_bias", json!(without.is_some()), without.is_some()),
        ("modules_to_save", saved, !whole.is_empty()),
    ] {
        if on || fields.contains_key(k) {
            fields.insert(k.to_owned(), v);
        }
    }
    Ok(())
}

/// alpha = s · r to nine digits; an integer where it is one, as PEFT's own files have it.
fn alpha(pair: &Pair, module: &str) -> Value {
    let alpha = scaling(pair, module) * pair.rank() as f64;
    let alpha: f64 = format!("{alpha:.8e}").parse().unwrap_or(alpha);
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}

/// The list of modules; a regular expression where a name in the list would also select a layer without a pair
/// (`0` selects `net.0`).
fn targets(pairs: &[&Pair], sites: &[Site]) -> Value {
    let adapted = |i: usize| pairs.iter().any(|p| p.site == i);
    let mut names: Vec<&str> = pairs.iter().map(|p| selected(&sites[p.site].module)).collect();
    names.dedup();
    let also = |site: &Site| names.iter().any(|n| site.module.ends_with(&format!(".{n}")));
    if sites.iter().enumerate().any(|(i, site)| !adapted(i) && also(site)) {
        let escaped: Vec<String> = names.iter().map(|n| regex::escape(n)).collect();
        return json!(escaped.join("|"));
    }
    json!(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Matrix;

    fn site(module: &str) -> Site {
        Site { module: module.to_owned(), inputs: 2, outputs: 2 }
    }

    fn pair(site: usize, rank: usize, scaling: f64) -> Pair {
        let zeros = |r, c| Matrix::new(r, c, vec![0.0; r * c]);
        Pair::new(site, zeros(rank, 2), zeros(2, rank), scaling)
    }

    fn adapter(pairs: Vec<Pair>, config: Value) -> Adapter {
        let config = config.as_object().cloned().unwrap_or_default();
        Adapter { pairs, config, warnings: Vec::new() }
    }

    fn check(a: &Adapter, sites: &[Site]) -> Map<String, Value> {
        let fields = fields(a, &Stored::bare(sites)).unwrap();
        let config = Config::parse(Path::new("x"), &Value::Object(fields.clone()).to_string()).unwrap();
        assert!(describes(&config, &a.pairs, sites), "{fields:?}");
        fields
    }

    #[test]
    fn the_minimum_is_enough() {
        let sites = [site("0"), site("2")];
        let f = check(&adapter(vec![pair(0, 8, 2.0), pair(1, 8, 2.0)], Value::Null), &sites);
        assert_eq!((&f["r"], &f["lora_alpha"], &f["target_modules"]), (&json!(8), &json!(16), &json!(["0", "2"])));
    }

    #[test]
    fn every_pair_may_be_its_own() {
        let sites = [site("0"), site("net.0"), site("a.b")];
        let f = check(&adapter(vec![pair(0, 3, 0.5), pair(1, 4, 1.0 / 3.0), pair(2, 3, 0.5)], Value::Null), &sites);
        assert_eq!(f["rank_pattern"].as_object().unwrap().keys().next().unwrap(), r"net\.0");
        let f = check(&adapter(vec![pair(0, 3, 0.5)], Value::Null), &sites);
        assert_eq!(f["target_modules"], json!("0"), "a list would select net.0 too");
    }

    #[test]
    fn the_users_fields_are_kept() {
        let sites = [site("0"), site("2")];
        let user = json!({"task_type": "SEQ_CLS", "peft_type": "LORA", "r": 4, "lora_alpha": 6.5, "use_rslora": true,
                          "target_modules": ["0"], "lora_dropout": 0.25, "revision": "x"});
        let f = check(&adapter(vec![pair(0, 4, 3.25)], user.clone()), &sites);
        assert_eq!(Value::Object(f.clone()).to_string(), user.to_string());
        // A changed rank is written; what it does not touch stays.
        let f = check(&adapter(vec![pair(0, 2, 3.25)], user), &sites);
        assert_eq!((&f["r"], &f["use_rslora"], &f["lora_dropout"]), (&json!(2), &json!(false), &json!(0.25)));
    }
}
