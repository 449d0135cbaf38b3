//! Tensor names of PEFT adapters: an allow-list, so that nothing is dropped in silence.

/// What every name starts with. The module path follows, then one of the suffixes below.
pub const PREFIX: &str = "base_model.model.";

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `lora_A.weight`, (r, in).
    A,
    /// `lora_B.weight`, (out, r).
    B,
    /// `lora_B.bias`, (out): it adds s · bias.
    BBias,
    /// `lora_magnitude_vector`, (out): DoRA.
    Magnitude,
    /// `base_layer.bias`, (out): in place of the base's bias, on a layer that has a pair.
    BaseBias,
    /// `weight`, (out, in): in place of the base's, on a layer that was trained whole.
    Weight,
    /// `bias`, (out): in place of the base's, on a layer without a pair.
    Bias,
}

/// What a tensor's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Something of a module.
    Of {
        /// The module path in the base.
        module: &'a str,
        /// What.
        part: Part,
    },
    /// Something that PEFT knows, but this does not: what it is.
    NotSupported(&'static str),
    /// A name as MLX-LM writes it.
    Mlx,
    /// Nothing that is known.
    Unknown,
}

/// Longer suffixes first: the first that fits counts.
const PARTS: [(&str, Part); 8] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora_B.bias", Part::BBias),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude), // As early versions of PEFT wrote it.
    (".base_layer.bias", Part::BaseBias),
    (".weight", Part::Weight),
    (".bias", Part::Bias),
];

const NOT_SUPPORTED: [(&str, &str); 4] = [
    (".lora_embedding_A", "LoRA on an embedding; train without it"),
    (".lora_embedding_B", "LoRA on an embedding; train without it"),
    (".base_layer.weight", "a base's table or weight, as PEFT saves it with LoRA on an embedding; train without that"),
    (".token_adapter.trainable_tokens_delta", "trained tokens (trainable_token_indices); train without them"),
];

/// Reads a name.
#[must_use]
pub fn parse(name: &str) -> Key<'_> {
    if name.ends_with(".lora_a") || name.ends_with(".lora_b") || name == "lora_a" || name == "lora_b" {
        return Key::Mlx;
    }
    let Some(path) = name.strip_prefix(PREFIX).filter(|_| !carries_adapter_name(name)) else {
        return Key::Unknown;
    };
    if let Some((_, what)) = NOT_SUPPORTED.iter().find(|(suffix, _)| path.ends_with(suffix)) {
        return Key::NotSupported(what);
    }
    let of = |&(suffix, part): &(&str, Part)| path.strip_suffix(suffix).map(|module| Key::Of { module, part });
    PARTS.iter().find_map(of).unwrap_or(Key::Unknown)
}

/// The name of a tensor to be written.
#[must_use]
pub fn name(module: &str, part: Part) -> String {
    let suffix = PARTS.iter().find(|(_, p)| *p == part).map_or("", |(suffix, _)| suffix);
    format!("{PREFIX}{module}{suffix}")
}

/// Whether a name has the adapter's name in it (`lora_A.default.weight`), as a model's own `state_dict()` does.
#[must_use]
pub fn carries_adapter_name(name: &str) -> bool {
    let rest = ["lora_A.", "lora_B."].iter().find_map(|part| name.split_once(part)).map(|(_, rest)| rest);
    rest.is_some_and(|rest| {
        rest != "weight" && rest != "bias" && (rest.ends_with(".weight") || rest.ends_with(".bias"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let of = |module, part| Key::Of { module, part };
        assert_eq!(parse("base_model.model.0.lora_A.weight"), of("0", Part::A));
        assert_eq!(parse("base_model.model.net.fc1.lora_B.weight"), of("net.fc1", Part::B));
        assert_eq!(parse("base_model.model.0.lora_B.bias"), of("0", Part::BBias));
        assert_eq!(parse("base_model.model.0.base_layer.bias"), of("0", Part::BaseBias));
        assert_eq!(parse("base_model.model.0.lora_magnitude_vector.weight"), of("0", Part::Magnitude));
        assert_eq!(parse("base_model.model.classifier.weight"), of("classifier", Part::Weight));
        assert_eq!(parse("base_model.model.classifier.bias"), of("classifier", Part::Bias));
        for part in [Part::A, Part::B, Part::BBias, Part::Magnitude, Part::BaseBias, Part::Weight, Part::Bias] {
            assert_eq!(parse(&name("a.b", part)), of("a.b", part));
        }
        for embedding in ["lora_embedding_A", "base_layer.weight"] {
            let name = format!("base_model.model.wte.{embedding}");
            assert!(matches!(parse(&name), Key::NotSupported(w) if w.contains("embedding")), "{name}");
        }
        assert_eq!(parse("layers.0.lora_a"), Key::Mlx);
        for unknown in ["0.lora_A.weight", "base_model.model.0.lora_A.default.weight", "base_model.model.fc.gamma", ""]
        {
            assert_eq!(parse(unknown), Key::Unknown, "{unknown}");
        }
        assert!(carries_adapter_name("base_model.model.0.lora_A.default.weight"));
        assert!(!carries_adapter_name("base_model.model.0.lora_A.weight"));
        assert!(!carries_adapter_name("base_model.model.0.lora_B.bias"));
    }
}
