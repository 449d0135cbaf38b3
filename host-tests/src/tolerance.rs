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
    limit: 2e-4,
    reason: "rounding weights and activations to 16 bits, 3e-5 each, in up to three layers; the contract asks for 1e-3",
};

/// Probabilities of a transformer's labels, `i16` weights, against the checkpoint's floats.
pub const PROBABILITY_I16: Tolerance = Tolerance {
    name: "worst absolute error of a probability, i16 weights, against the original floats",
    limit: 1e-3,
    reason: "logits of about 2 within 1e-3 of their norm, the contract, move a probability by at most half of that",
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
    limit: 1.2e-4,
    reason: "what the arithmetic alone costs: roundings of activations and rank vectors to 16 bits, each at most half an \
             LSB (3.1e-5 of the vector's peak), in up to three layers",
};

/// One output vector against floats on the dequantised weights.
pub const OUTPUT_VECTOR: Tolerance = Tolerance {
    name: "worst L2 error of one output in a batch, relative to the batch's RMS output, dequantised weights",
    limit: 5e-4,
    reason: "as OUTPUT_DEQUANTIZED, of the one output in hundreds that is worst, and four times as large as usual",
};

/// One number through one weight.
pub const OUTPUT_SINGLE: Tolerance = Tolerance {
    name: "relative error of one output of one input, dequantised weight",
    limit: 6.2e-5,
    reason: "two roundings to a block, of the input and of the output: half an LSB under a peak of 16320 is 3.07e-5",
};

/// The logits of one image.
pub const LOGITS: Tolerance = Tolerance {
    name: "relative L2 error of the logits of one image of the digits, dequantised weights",
    limit: 1.2e-4,
    reason: "four roundings to 16 bits, of the normalised input, two hidden layers and the logits, each at most half an LSB \
             (3.1e-5 of the peak)",
};

/// Gradients, `i16` weights, against the checkpoint's floats.
pub const GRADIENT_I16: Tolerance = Tolerance {
    name: "relative L2 error of dA and dB, i16 weights, against the original floats",
    limit: 3e-4,
    reason: "roundings of the weights to 16 bits beside those of GRADIENT_DEQUANTIZED, off the kinks of ReLU, where a \
             gradient is defined; the contract asks for 1e-2",
};

/// Gradients against floats on the dequantised weights.
pub const GRADIENT_DEQUANTIZED: Tolerance = Tolerance {
    name: "relative L2 error of dA and dB, against floats on the dequantised weights and high planes",
    limit: 1.5e-4,
    reason: "roundings of x, dy, dy times the row scales and both rank vectors to 16 bits, each at most 3.1e-5",
};

/// One model with an adapter against the same model with the adapter merged in floats.
pub const MERGED: Tolerance = Tolerance {
    name: "relative L2 error of a batch of outputs, adapter beside the base against merged in floats",
    limit: 1.2e-4,
    reason: "as OUTPUT_DEQUANTIZED: merged or not is the same function",
};

/// What was learned with SGD.
pub const LEARNED_SGD: Tolerance = Tolerance {
    name: "relative L2 error of what A and B have learned in ten steps of SGD, against the oracle",
    limit: 2.5e-4,
    reason: "gradients within 1.5e-4, and SGD is linear in them",
};

/// What was learned with AdamW.
pub const LEARNED_ADAMW: Tolerance = Tolerance {
    name: "relative L2 error of what A and B have learned in ten steps of AdamW, against the oracle",
    limit: 3e-2,
    reason: "AdamW divides every element by its own size, so the few whose gradients are 2^-12 of the largest, three or \
             four bits of a 16-bit block, take steps that are off by a tenth; all others agree within 1e-3",
};

/// The loss of one sample.
pub const LOSS: Tolerance = Tolerance {
    name: "relative error of the loss",
    limit: 2e-4,
    reason: "outputs within 1.2e-4 of their size, and a loss is a difference of them",
};

/// All of them, for documents.
pub const ALL: [Tolerance; 12] = [
    OUTPUT_I16,
    OUTPUT_I8,
    OUTPUT_DEQUANTIZED,
    OUTPUT_VECTOR,
    OUTPUT_SINGLE,
    LOGITS,
    GRADIENT_I16,
    GRADIENT_DEQUANTIZED,
    MERGED,
    LEARNED_SGD,
    LEARNED_ADAMW,
    LOSS,
];
