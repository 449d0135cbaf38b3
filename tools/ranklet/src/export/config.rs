//! The `adapter_config.json` of an export: the user's own fields where they came with the adapter and still hold,
//! the minimum that PEFT needs otherwise.

use crate::adapter::{Adapter, Pair, Site};
use crate::peft::config::{Config, Selects};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// How near two scalings are the same: a [`Real`](ranklet::fixed::Real) keeps 31 bits, and alpha is written with nine
/// digits.
pub const NEAR: f64 = 1e-8;

/// The fields.
///
/// # Errors
/// Where the configuration that came with the adapter cannot be read any more (a damaged image).
pub fn fields(adapter: &Adapter, sites: &[Site]) -> Result<Map<String, Value>> {
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
        set(&mut fields, adapter, sites);
        return Ok(fields);
    }
    let text = Value::Object(adapter.config.clone()).to_string();
    let config = Config::parse(Path::new("the configuration in the image"), &text)
        .context("the image holds a PEFT configuration that does not hold together")?;
    let mut fields = adapter.config.clone();
    if !describes(&config, &adapter.pairs, sites) {
        // The pairs are the truth: they were changed (another rank, other layers) after the configuration was written.
        set(&mut fields, adapter, sites);
        for k in ["exclude_modules", "layers_to_transform", "layers_pattern"] {
            fields.get_mut(k).into_iter().for_each(|v| *v = Value::Null);
        }
    }
    Ok(fields)
}

/// Whether a configuration says exactly what the pairs are.
fn describes(config: &Config, pairs: &[Pair], sites: &[Site]) -> bool {
    sites.iter().enumerate().all(|(i, site)| match pairs.iter().find(|p| p.site == i) {
        Some(p) => {
            let scaling = config.scaling(&site.module, p.rank());
            config.rank(&site.module) == p.rank()
                && (scaling - p.scaling).abs() <= NEAR * p.scaling.abs()
                && !matches!(config.selects(&site.module), Selects::No(_))
        }
        None => config.selects(&site.module) != Selects::Yes,
    })
}

/// Rank, alpha and targets from the pairs.
fn set(fields: &mut Map<String, Value>, adapter: &Adapter, sites: &[Site]) {
    let Some(first) = adapter.pairs.first() else { return };
    let (r, lora_alpha) = (first.rank(), alpha(first));
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    // The first key that matches counts, and `0` also matches `net.0`: longer paths first.
    let mut pairs: Vec<&Pair> = adapter.pairs.iter().collect();
    pairs.sort_by_key(|p| std::cmp::Reverse(sites[p.site].module.len()));
    let uniform = pairs.iter().all(|p| p.rank() == r && alpha(p) == lora_alpha);
    if !uniform {
        for p in pairs {
            let key = regex::escape(&sites[p.site].module);
            ranks.insert(key.clone(), json!(p.rank()));
            alphas.insert(key, alpha(p));
        }
    }
    let mut put = |k: &str, v: Value| fields.insert(k.to_owned(), v);
    put("r", json!(r));
    put("lora_alpha", lora_alpha);
    put("target_modules", targets(adapter, sites));
    put("rank_pattern", Value::Object(ranks));
    put("alpha_pattern", Value::Object(alphas));
    put("use_rslora", json!(false));
}

/// alpha = s · r to nine digits; an integer where it is one, as PEFT's own files have it.
fn alpha(pair: &Pair) -> Value {
    let alpha = pair.scaling * pair.rank() as f64;
    let alpha: f64 = format!("{alpha:.8e}").parse().unwrap_or(alpha);
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}

/// The list of modules; a regular expression where a name in the list would also select a layer without a pair
/// (`0` selects `net.0`).
fn targets(adapter: &Adapter, sites: &[Site]) -> Value {
    let adapted = |i: usize| adapter.pairs.iter().any(|p| p.site == i);
    let names: Vec<&str> = adapter.pairs.iter().map(|p| sites[p.site].module.as_str()).collect();
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
        Pair { site, a: zeros(rank, 2), b: zeros(2, rank), scaling }
    }

    fn adapter(pairs: Vec<Pair>, config: Value) -> Adapter {
        let config = config.as_object().cloned().unwrap_or_default();
        Adapter { pairs, config, warnings: Vec::new() }
    }

    fn check(a: &Adapter, sites: &[Site]) -> Map<String, Value> {
        let fields = fields(a, sites).unwrap();
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
