//! Tensor names of PEFT adapters: an allow-list, so that nothing is dropped in silence.

/// What every name starts with. The module path follows, then one of the suffixes below.
pub const PREFIX: &str = "base_model.model.";

/// Which matrix of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `lora_A.weight`, (r, in).
    A,
    /// `lora_B.weight`, (out, r).
    B,
}

/// What a tensor's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Half of a pair.
    Lora {
        /// The module path in the base.
        module: &'a str,
        /// Which half.
        part: Part,
    },
    /// Something that PEFT knows, but this does not: what it is.
    NotSupported(&'static str),
    /// A name as MLX-LM writes it.
    Mlx,
    /// Nothing that is known.
    Unknown,
}

const NOT_SUPPORTED: [(&str, &str); 8] = [
    (".lora_B.bias", "a bias beside B (lora_bias)"),
    (".lora_embedding_A", "LoRA on an embedding"),
    (".lora_embedding_B", "LoRA on an embedding"),
    (".lora_magnitude_vector", "DoRA's magnitudes (use_dora)"),
    (".lora_magnitude_vector.weight", "DoRA's magnitudes (use_dora)"),
    (".base_layer.bias", "trained biases (bias: lora_only / all)"),
    (".base_layer.weight", "a base weight saved with the adapter (embeddings)"),
    (".token_adapter.trainable_tokens_delta", "trained tokens (trainable_token_indices)"),
];

/// Reads a name.
#[must_use]
pub fn parse(name: &str) -> Key<'_> {
    if name.ends_with(".lora_a") || name.ends_with(".lora_b") || name == "lora_a" || name == "lora_b" {
        return Key::Mlx;
    }
    let Some(path) = name.strip_prefix(PREFIX) else {
        return Key::Unknown;
    };
    for (suffix, part) in [(".lora_A.weight", Part::A), (".lora_B.weight", Part::B)] {
        if let Some(module) = path.strip_suffix(suffix) {
            return Key::Lora { module, part };
        }
    }
    let known = NOT_SUPPORTED.iter().find(|(suffix, _)| path.ends_with(suffix));
    known.map_or(Key::Unknown, |(_, what)| Key::NotSupported(what))
}

/// The name of a tensor to be written.
#[must_use]
pub fn name(module: &str, part: Part) -> String {
    let part = if part == Part::A { "lora_A" } else { "lora_B" };
    format!("{PREFIX}{module}.{part}.weight")
}

/// Whether a name has the adapter's name in it (`lora_A.default.weight`), as a model's own `state_dict()` does.
#[must_use]
pub fn carries_adapter_name(name: &str) -> bool {
    ["lora_A.", "lora_B."].iter().any(|part| {
        name.split_once(part).is_some_and(|(_, rest)| rest.ends_with(".weight") && !rest.starts_with("weight"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let lora = |module, part| Key::Lora { module, part };
        assert_eq!(parse("base_model.model.0.lora_A.weight"), lora("0", Part::A));
        assert_eq!(parse("base_model.model.net.fc1.lora_B.weight"), lora("net.fc1", Part::B));
        assert_eq!(parse(&name("a.b", Part::B)), lora("a.b", Part::B));
        assert!(
            matches!(parse("base_model.model.0.lora_magnitude_vector"), Key::NotSupported(w) if w.contains("DoRA"))
        );
        assert_eq!(parse("layers.0.lora_a"), Key::Mlx);
        for unknown in ["0.lora_A.weight", "base_model.model.0.lora_A.default.weight", "base_model.model.fc.weight", ""]
        {
            assert_eq!(parse(unknown), Key::Unknown, "{unknown}");
        }
        assert!(carries_adapter_name("base_model.model.0.lora_A.default.weight"));
        assert!(!carries_adapter_name("base_model.model.0.lora_A.weight"));
    }
}
