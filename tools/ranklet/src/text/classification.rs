//! Logits become labels and probabilities.

use crate::image::metadata;
use ranklet::model::HeadKind;
use serde_json::{Map, Value};

/// One output of a classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Its name in `id2label`; `LABEL_0` and so on where the base names none, as transformers has it.
    pub name: String,
    /// Its probability; of a regression the value itself.
    pub value: f64,
}

/// What the outputs mean: of classes a softmax, of yes/no questions a sigmoid each, of values themselves.
#[must_use]
pub fn labels(head: HeadKind, logits: &[f32], metadata: &Map<String, Value>) -> Vec<Label> {
    let values: Vec<f64> = match head {
        HeadKind::Binary => logits.iter().map(|&z| 1.0 / (1.0 + (-f64::from(z)).exp())).collect(),
        HeadKind::Regression => logits.iter().map(|&z| f64::from(z)).collect(),
        _ => softmax(logits),
    };
    let name = |i: usize| metadata::label(metadata, i).map_or_else(|| format!("LABEL_{i}"), str::to_owned);
    values.into_iter().enumerate().map(|(i, value)| Label { name: name(i), value }).collect()
}

/// The answer: the first of the most likely.
#[must_use]
pub fn best(labels: &[Label]) -> Option<(usize, &Label)> {
    labels.iter().enumerate().reduce(|best, next| if next.1.value > best.1.value { next } else { best })
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
    // Of logits beyond f32, all infinite ones are equal.
    let weights = logits.iter().map(|&z| if z == max { 1.0 } else { (f64::from(z) - f64::from(max)).exp() });
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_head_says_what_its_outputs_mean() {
        let names = metadata::parse(&json!({"id2label": {"0": "no", "1": "긍정"}}).to_string());
        let of = |head| labels(head, &[0.0, 2.0, 1.0], &names);
        let classes = of(HeadKind::Classification);
        let sum: f64 = classes.iter().map(|l| l.value).sum();
        assert!((sum - 1.0).abs() < 1e-12 && (classes[1].value - 0.665_240_955_774_822).abs() < 1e-12);
        assert_eq!(classes.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["no", "긍정", "LABEL_2"]);
        assert_eq!(best(&classes), Some((1, &classes[1])));
        assert!((of(HeadKind::Binary)[1].value - 0.880_797_077_977_882).abs() < 1e-12);
        assert_eq!(of(HeadKind::Regression)[1].value, 2.0);
    }

    #[test]
    fn logits_beyond_f32_have_probabilities() {
        let found = labels(HeadKind::Classification, &[f32::INFINITY, 1.0, f32::INFINITY], &Map::new());
        assert_eq!(found.iter().map(|l| l.value).collect::<Vec<_>>(), [0.5, 0.0, 0.5]);
    }
}
