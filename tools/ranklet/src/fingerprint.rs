//! The `source` fingerprint: whose weights these are, whatever type or order they are stored in.
//!
//! SHA-256 over the canonical serialization below, truncated to its first 128 bits. An adapter carries its base's
//! fingerprint and is refused by any other base; since it is taken from the checkpoint's `f32` values, converting a
//! base again with another weight type does not orphan what devices have learned.
//!
//! ```text
//! "ranklet source 1\n"                                          17 bytes
//! string  model_type                                            u32 length, then UTF-8
//! string  activation between the linears: "relu" or "none"
//! string  head: "classification", "binary", "regression", "none"
//! u32     number of linears; for each, in the order of the data's way:
//!     string   module path
//!     u64      out        u64  in
//!     f32s     weight, (out, in) row-major
//!     u8       1 with a bias, 0 without; with one: f32s (out)
//! u8      1 with a normalisation, 0 without; with one:
//!     u64      features
//!     f32s     mean       f32s  std
//! ```
//!
//! Integers and `f32` are little-endian; −0 is written as +0 (the two are one weight). Label names are not part of
//! it: they change no number.

use crate::base::Base;
use sha2::{Digest, Sha256};

const TAG: &[u8] = b"ranklet source 1\n";

/// The fingerprint of a base.
#[must_use]
pub fn source(base: &Base) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(TAG);
    string(&mut hash, "mlp");
    string(&mut hash, if base.spec.relu { "relu" } else { "none" });
    string(&mut hash, base.spec.head.name());
    hash.update((base.linears.len() as u32).to_le_bytes());
    for linear in &base.linears {
        string(&mut hash, &linear.module);
        hash.update((linear.weight.rows as u64).to_le_bytes());
        hash.update((linear.weight.cols as u64).to_le_bytes());
        floats(&mut hash, &linear.weight.data);
        hash.update([u8::from(linear.bias.is_some())]);
        if let Some(bias) = &linear.bias {
            floats(&mut hash, bias);
        }
    }
    hash.update([u8::from(base.normalization.is_some())]);
    if let Some(n) = &base.normalization {
        hash.update((n.mean.len() as u64).to_le_bytes());
        floats(&mut hash, &n.mean);
        floats(&mut hash, &n.std);
    }
    let mut out = [0; 16];
    for (o, h) in out.iter_mut().zip(hash.finalize().iter()) {
        *o = *h;
    }
    out
}

fn string(hash: &mut Sha256, s: &str) {
    hash.update((s.len() as u32).to_le_bytes());
    hash.update(s.as_bytes());
}

fn floats(hash: &mut Sha256, values: &[f32]) {
    // A piece at a time: the digest of four bytes alone costs more than they do.
    for piece in values.chunks(1024) {
        // −0 + 0 is +0; every other value is itself.
        hash.update(piece.iter().flat_map(|v| (v + 0.0).to_le_bytes()).collect::<Vec<u8>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Linear;
    use crate::spec::{Head, MlpSpec};
    use crate::tensor::Matrix;

    fn base() -> Base {
        let spec = MlpSpec {
            modules: vec!["0".to_owned()],
            relu: false,
            head: Head::None,
            labels: [].into(),
            normalization: None,
        };
        let weight = Matrix::new(1, 2, vec![1.0, 0.0]);
        Base { spec, linears: vec![Linear { module: "0".to_owned(), weight, bias: None }], normalization: None }
    }

    #[test]
    fn the_serialization_is_contract() {
        let mut bytes = b"ranklet source 1\n\x03\0\0\0mlp\x04\0\0\0none\x04\0\0\0none\x01\0\0\0\x01\0\0\x000".to_vec();
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend([0, 0, 0x80, 0x3F, 0, 0, 0, 0, 0, 0]);
        assert_eq!(source(&base())[..], Sha256::digest(&bytes)[..16]);
    }

    #[test]
    fn every_part_counts_and_signed_zero_does_not() {
        let one = source(&base());
        let changed = |f: fn(&mut Base)| {
            let mut b = base();
            f(&mut b);
            source(&b)
        };
        assert_eq!(changed(|b| b.linears[0].weight.data[1] = -0.0), one);
        assert_ne!(changed(|b| b.linears[0].weight.data[1] = 1e-30), one);
        assert_ne!(changed(|b| b.linears[0].module = "1".to_owned()), one);
        assert_ne!(changed(|b| b.linears[0].bias = Some(vec![0.0])), one);
        assert_ne!(changed(|b| b.spec.head = Head::Binary), one);
    }
}
