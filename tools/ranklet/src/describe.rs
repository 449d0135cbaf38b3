//! What a base is, in words and in JSON: for `inspect`.

use crate::image::sites;
use ranklet::kernel::Weights;
use ranklet::layer::Activation;
use ranklet::model::spec::{Flags, Pool, Position, Transformer};
use ranklet::model::{HeadKind, Model, Roles};
use serde_json::{Value, json};

/// A head by name.
#[must_use]
pub const fn head(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::None => "none",
        HeadKind::Classification => "classification",
        HeadKind::Binary => "binary",
        HeadKind::Regression => "regression",
        HeadKind::Language => "language",
        _ => "unknown",
    }
}

/// The types of a base's weights, in the order of the layers: one, unless some were kept.
#[must_use]
pub fn weight_types(model: &Model<'_>) -> String {
    let mut types: Vec<&str> = Vec::new();
    for site in 0..model.spec().linears {
        let name = match model.linear(site).weights {
            Weights::I8(_) => "i8",
            Weights::I16(_) => "i16",
            Weights::I4(_) => "i4",
            _ => "of a later version",
        };
        if !types.contains(&name) {
            types.push(name);
        }
    }
    types.join(" and ")
}

/// A layer's part, by name: `q`, `cross v`, `up`, ….
#[must_use]
pub fn role(roles: Roles) -> String {
    const NAMES: [(Roles, &str); 12] = [
        (Roles::HIDDEN, "hidden"),
        (Roles::HEAD, "head"),
        (Roles::QKV, "q, k and v"),
        (Roles::Q, "q"),
        (Roles::K, "k"),
        (Roles::V, "v"),
        (Roles::O, "o"),
        (Roles::GATE, "gate"),
        (Roles::UP, "up"),
        (Roles::DOWN, "down"),
        (Roles::POOLER, "pooler"),
        (Roles::INPUT, "input"),
    ];
    let cross = if roles.meets(Roles::CROSS) { "cross " } else { "" };
    let own = Roles(roles.0 & !Roles::CROSS.0);
    let name = NAMES.iter().find(|(r, _)| *r == own).map_or("unknown", |(_, name)| name);
    format!("{cross}{name}")
}

/// An activation by name.
#[must_use]
pub const fn activation(a: Activation) -> &'static str {
    match a {
        Activation::None => "none",
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Silu => "silu",
        Activation::Tanh => "tanh",
        _ => "unknown",
    }
}

const fn position(p: Position) -> &'static str {
    match p {
        Position::None => "none",
        Position::Learned => "learned",
        Position::Rotary => "rotary",
        Position::Relative => "relative",
        _ => "unknown",
    }
}

const fn pool(p: Pool) -> &'static str {
    match p {
        Pool::None => "none",
        Pool::First => "first",
        Pool::Last => "last",
        Pool::Mean => "mean",
        Pool::End => "end token",
        _ => "unknown",
    }
}

/// A transformer's numbers, on two lines.
#[must_use]
pub fn transformer(t: &Transformer) -> String {
    let stack = |name: &str, n: u16| match n {
        0 => None,
        1 => Some(format!("{name} of 1 block")),
        n => Some(format!("{name} of {n} blocks")),
    };
    let stacks: Vec<String> =
        [stack("encoder", t.encoder), stack("decoder", t.decoder)].into_iter().flatten().collect();
    let norm = if t.flags.has(Flags::RMS) { "RMS norms" } else { "layer norms" };
    let place = if t.flags.has(Flags::PRE_NORM) { "in front" } else { "behind" };
    let gated = if t.flags.has(Flags::GATED) { "gated " } else { "" };
    let groups = if t.kv_heads == t.heads { String::new() } else { format!(" on {} of keys and values", t.kv_heads) };
    let stream = if t.flags.has(Flags::WIDE) { 32 } else { 16 };
    format!(
        "{}: dim {}, {} heads of {}{groups}, feed-forward of {} with {gated}{}\n{norm} {place}, positions {}, up to {} \
         tokens, pooling {}, residual stream of {stream} bits",
        stacks.join(", "),
        t.dim,
        t.heads,
        t.head_dim,
        t.hidden,
        activation(t.activation),
        position(t.position),
        t.positions,
        pool(t.pool),
    )
}

/// A transformer's numbers as JSON.
#[must_use]
pub fn transformer_json(t: &Transformer) -> Value {
    let token = |t: u32| if t == u32::MAX { Value::Null } else { json!(t) };
    json!({
        "dim": t.dim, "hidden": t.hidden, "vocab": t.vocab, "positions": t.positions, "types": t.types,
        "heads": t.heads, "kv_heads": t.kv_heads, "head_dim": t.head_dim, "encoder": t.encoder, "decoder": t.decoder,
        "activation": activation(t.activation), "position": position(t.position), "pool": pool(t.pool),
        "pre_norm": t.flags.has(Flags::PRE_NORM), "rms_norm": t.flags.has(Flags::RMS),
        "gated": t.flags.has(Flags::GATED), "fused_qkv": t.flags.has(Flags::FUSED),
        "residual_bits": if t.flags.has(Flags::WIDE) { 32 } else { 16 },
        "start": token(t.start), "end": token(t.end), "pad": token(t.pad),
    })
}

/// Parameters of pairs of `rank` on every layer.
#[must_use]
pub fn trainable(model: &Model<'_>, rank: u64) -> u64 {
    sites(model).iter().map(|s| rank * (s.inputs + s.outputs) as u64).sum()
}
