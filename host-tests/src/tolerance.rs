//! Every tolerance of these tests, in one table, each with its reason. Where the core promises bits, the tests ask for
//! bits; a tolerance exists only where floats are on the other side.

/// A bound on an error.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// What is bounded.
    pub name: &'static str,
    /// The largest error that passes.
    pub limit: f64,
    /// Why this much, and why not less.
    pub reason: &'static str,
}

impl Tolerance {
    /// Fails, with the reason at hand, where `error` is beyond the limit or no number.
    ///
    /// # Panics
    /// That is how it fails.
    #[track_caller]
    pub fn check(&self, error: f64, what: &str) {
        assert!(
            error <= self.limit,
            "{what}: {} is {error:.3e}, the tolerance is {:.1e} ({})",
            self.name,
            self.limit,
            self.reason
        );
    }
}

/// Outputs, `i16` weights, against the checkpoint's floats.
pub const OUTPUT_I16: Tolerance = Tolerance {
    name: "relative L2 error of a batch of outputs, i16 weights, against the original floats",
    limit: 1e-3,
    reason: "the contract; 16-bit activations and weights leave about 1e-4",
};

/// Outputs, `i8` weights, against the checkpoint's floats.
pub const OUTPUT_I8: Tolerance = Tolerance {
    name: "relative L2 error of a batch of outputs, i8 weights, against the original floats",
    limit: 3e-2,
    reason: "the contract; 8-bit rounding of normal weights alone is 40 to 45 dB a layer, so 0.6 to 1 %",
};

/// Outputs, any weights, against floats on the dequantised weights.
pub const OUTPUT_DEQUANTIZED: Tolerance = Tolerance {
    name: "relative L2 error of a batch of outputs, against floats on the dequantised weights and high planes",
    limit: 6e-4,
    reason: "what the arithmetic alone costs: 16-bit roundings of activations and rank vectors (3e-5 each), and the \
             clamp to 32639, which takes up to 0.4 % of the peak in one vector of 180",
};

/// One output vector against floats on the dequantised weights.
pub const OUTPUT_VECTOR: Tolerance = Tolerance {
    name: "worst L2 error of one output in a batch, relative to the batch's RMS output, dequantised weights",
    limit: 1.5e-2,
    reason: "the clamp to 32639 takes up to 128/32767 = 0.39 % of a vector, which may be thrice as large as usual",
};

/// Gradients, `i16` weights, against the checkpoint's floats.
pub const GRADIENT_I16: Tolerance = Tolerance {
    name: "relative L2 error of dA and dB, i16 weights, against the original floats",
    limit: 1e-2,
    reason: "the contract; off the kinks of ReLU, where a gradient is defined, less than 7e-4 is seen",
};

/// Gradients against floats on the dequantised weights.
pub const GRADIENT_DEQUANTIZED: Tolerance = Tolerance {
    name: "relative L2 error of dA and dB, against floats on the dequantised weights and high planes",
    limit: 1e-3,
    reason: "16-bit roundings of x, dy and both rank vectors (3e-5 each), and the clamp to 32639 in some samples",
};

/// One model with an adapter against the same model with the adapter merged in floats.
pub const MERGED: Tolerance = Tolerance {
    name: "relative L2 error of a batch of outputs, adapter beside the base against merged in floats",
    limit: 1e-3,
    reason: "as OUTPUT_I16: merged or not is the same function",
};

/// What was learned with SGD.
pub const LEARNED_SGD: Tolerance = Tolerance {
    name: "relative L2 error of what A and B have learned in ten steps of SGD, against the oracle",
    limit: 2e-3,
    reason: "gradients within 1e-3, and SGD is linear in them",
};

/// What was learned with AdamW.
pub const LEARNED_ADAMW: Tolerance = Tolerance {
    name: "relative L2 error of what A and B have learned in ten steps of AdamW, against the oracle",
    limit: 4e-2,
    reason: "AdamW divides every element by its own size, so the few whose gradients are 2^-12 of the largest, three or \
             four bits of a 16-bit block, take steps that are off by a tenth; all others agree within 1e-3",
};

/// The loss of one sample.
pub const LOSS: Tolerance = Tolerance {
    name: "relative error of the loss",
    limit: 2e-3,
    reason: "outputs within 4e-4 of their size, and a loss is a difference of them",
};

/// All of them, for documents.
pub const ALL: [Tolerance; 10] = [
    OUTPUT_I16,
    OUTPUT_I8,
    OUTPUT_DEQUANTIZED,
    OUTPUT_VECTOR,
    GRADIENT_I16,
    GRADIENT_DEQUANTIZED,
    MERGED,
    LEARNED_SGD,
    LEARNED_ADAMW,
    LOSS,
];
