//! Sequences for a transformer: read from a safetensors file, run with the device's own arithmetic.
//!
//! | tensor | shape | of |
//! |---|---|---|
//! | `input_ids` | I64 [batch, seq] | models that take tokens |
//! | `inputs` | F32 [batch, seq, features] | models that take feature vectors |
//! | `attention_mask` | I64 [batch, seq], 1 or 0 | optional: which tokens count |
//! | `token_type_ids` | I64 [batch, seq] | optional, BERT |
//! | `decoder_input_ids` | I64 [batch, seq] | optional, T5: as `transformers` makes it where it is left out |

use crate::checkpoint::Checkpoint;
use crate::infer::{SLACK, samples};
use anyhow::{Result, bail};
use ranklet::float::from_block;
use ranklet::layer::normalize::Input;
use ranklet::model::arena::Workspace;
use ranklet::model::spec::transformer::NO_TOKEN;
use ranklet::model::spec::{Pool, Transformer};
use ranklet::model::{Active, CacheType, Model, Plan, Sequence};

/// A batch of sequences of one length.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Sequences.
    pub count: usize,
    /// Tokens, or vectors, of each.
    pub length: usize,
    tokens: Vec<u32>,
    features: Vec<f32>,
    types: Vec<u8>,
    valid: Vec<bool>,
    decoder: Vec<u32>,
    decoder_length: usize,
}

impl Batch {
    /// Reads what the model takes.
    ///
    /// # Errors
    /// A tensor that is missing, or of another shape; a token that the vocabulary does not have.
    pub fn read(file: &Checkpoint, model: &Model<'_>, t: &Transformer) -> Result<Batch> {
        let path = file.path().display().to_string();
        let mut batch = Batch {
            count: 0,
            length: 0,
            tokens: vec![],
            features: vec![],
            types: vec![],
            valid: vec![],
            decoder: vec![],
            decoder_length: 0,
        };
        if t.vocab > 0 {
            if !file.contains("input_ids") && file.contains("inputs") {
                bail!("{path}: holds `inputs`, but this base takes tokens: `input_ids` I64 [batch, seq]");
            }
            (batch.count, batch.length, batch.tokens) = ids(file, "input_ids", t.vocab)?;
        } else {
            let features = model.spec().features;
            let x = file.f32s("inputs")?;
            match *x.shape.as_slice() {
                [count, length, f] if f == features => (batch.count, batch.length) = (count, length),
                _ => return Err(file.wrong_shape("inputs", &x.shape, &format!("(batch, seq, {features})")).into()),
            }
            batch.features = x.data;
        }
        if batch.count == 0 || batch.length == 0 || batch.length > t.positions {
            let (count, length) = (batch.count, batch.length);
            bail!("{path}: {count} sequences of {length} tokens; the base takes 1 to {} tokens each", t.positions);
        }
        let same = |name: &str, count: usize, length: usize| {
            if (count, length) == (batch.count, batch.length) {
                Ok(())
            } else {
                Err(file.wrong_shape(name, &[count, length], &format!("({}, {})", batch.count, batch.length)))
            }
        };
        if file.contains("attention_mask") {
            let (count, length, mask) = ids(file, "attention_mask", 2)?;
            same("attention_mask", count, length)?;
            batch.valid = mask.iter().map(|&m| m == 1).collect();
        } else {
            batch.valid = vec![true; batch.count * batch.length];
        }
        if file.contains("token_type_ids") {
            let (count, length, types) = ids(file, "token_type_ids", t.types.clamp(1, 256))?;
            same("token_type_ids", count, length)?;
            batch.types = types.iter().map(|&t| t as u8).collect();
        }
        if t.has_cross() {
            if file.contains("decoder_input_ids") {
                let (count, length, decoder) = ids(file, "decoder_input_ids", t.vocab)?;
                if count != batch.count || length == 0 || length > t.positions {
                    let expected = format!("({}, 1 to {})", batch.count, t.positions);
                    return Err(file.wrong_shape("decoder_input_ids", &[count, length], &expected).into());
                }
                (batch.decoder, batch.decoder_length) = (decoder, length);
            } else {
                let rows = batch.tokens.chunks_exact(batch.length);
                batch.decoder = rows.flat_map(|row| shifted(t, row)).collect();
                batch.decoder_length = batch.length;
            }
        }
        Ok(batch)
    }

    /// One text, all of whose tokens count; `types`: the type of each, or none.
    #[must_use]
    pub fn text(t: &Transformer, tokens: &[u32], types: Vec<u8>) -> Batch {
        let decoder = if t.has_cross() { shifted(t, tokens) } else { vec![] };
        Batch {
            count: 1,
            length: tokens.len(),
            tokens: tokens.to_vec(),
            features: vec![],
            types,
            valid: vec![true; tokens.len()],
            decoder_length: decoder.len(),
            decoder,
        }
    }

    /// One sequence of feature vectors, all of which count.
    #[must_use]
    pub fn features(features: Vec<f32>, length: usize) -> Batch {
        Batch {
            count: 1,
            length,
            tokens: vec![],
            features,
            types: vec![],
            valid: vec![true; length],
            decoder: vec![],
            decoder_length: 0,
        }
    }

    /// Whether an output of a sequence counts: of a token that is no padding, or of the sequence as a whole.
    #[must_use]
    pub fn counts(&self, t: &Transformer, row: usize, token: usize) -> bool {
        t.pool != Pool::None || t.has_cross() || self.valid[row * self.length + token]
    }

    /// One sequence; `raw` takes its samples, where it is made of features.
    ///
    /// # Errors
    /// Features that are no numbers.
    pub fn sequence<'s>(&'s self, t: &Transformer, row: usize, raw: &'s mut [i32]) -> Result<Sequence<'s>> {
        let of = |width: usize| row * width..(row + 1) * width;
        let mut sequence = if t.vocab > 0 {
            Sequence::tokens(&self.tokens[of(self.length)])
        } else {
            let exponent = samples(&self.features[of(raw.len())], raw)?;
            Sequence::features(Input::i32(raw, exponent), self.length)
        };
        let valid = &self.valid[of(self.length)];
        if valid.contains(&false) {
            sequence = sequence.valid(valid);
        }
        if !self.types.is_empty() {
            sequence = sequence.types(&self.types[of(self.length)]);
        }
        Ok(sequence)
    }

    /// One sequence by itself.
    #[must_use]
    pub fn one(&self, row: usize) -> Batch {
        let Row { ids, features, types, valid, decoder } = self.row(row);
        Batch {
            count: 1,
            length: self.length,
            tokens: ids.to_vec(),
            features: features.to_vec(),
            types: types.to_vec(),
            valid: valid.to_vec(),
            decoder: decoder.to_vec(),
            decoder_length: self.decoder_length,
        }
    }

    /// One sequence as it came.
    #[must_use]
    pub fn row(&self, row: usize) -> Row<'_> {
        let of = |count: usize| row * count..(row + 1) * count;
        let features = self.features.len() / self.count.max(1);
        Row {
            ids: if self.tokens.is_empty() { &[] } else { &self.tokens[of(self.length)] },
            features: &self.features[of(features)],
            types: if self.types.is_empty() { &[] } else { &self.types[of(self.length)] },
            valid: &self.valid[of(self.length)],
            decoder: &self.decoder[of(self.decoder_length)],
        }
    }

    /// What the decoder is given beside it.
    #[must_use]
    pub fn decoder(&self, row: usize) -> Sequence<'_> {
        Sequence::tokens(&self.decoder[row * self.decoder_length..(row + 1) * self.decoder_length])
    }

    /// Tokens of the decoder's sequences.
    #[must_use]
    pub const fn decoder_length(&self) -> usize {
        self.decoder_length
    }

    /// The token whose vector a classifier of texts looks at, as transformers finds it: the last that is no padding, whatever
    /// the mask says, and the first in a text of padding alone. `None` where the mask decides.
    #[must_use]
    pub fn last(&self, t: &Transformer, row: usize) -> Option<usize> {
        if t.pool != Pool::Last || t.vocab == 0 || t.pad == NO_TOKEN {
            return None;
        }
        let tokens = &self.tokens[row * self.length..(row + 1) * self.length];
        Some(tokens.iter().rposition(|&id| id != t.pad).unwrap_or(0))
    }
}

/// One sequence of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'b> {
    /// Tokens; none where the network takes features.
    pub ids: &'b [u32],
    /// (tokens, features), or none.
    pub features: &'b [f32],
    /// The type of each token, or none.
    pub types: &'b [u8],
    /// Which count.
    pub valid: &'b [bool],
    /// What the decoder is given beside, or none.
    pub decoder: &'b [u32],
}

/// What T5's decoder is given where nobody says: the text, shifted to the right, behind the start token.
fn shifted(t: &Transformer, tokens: &[u32]) -> Vec<u32> {
    std::iter::once(t.start).chain(tokens.iter().copied()).take(tokens.len()).collect()
}

/// Numbers below `limit`, (batch, seq).
fn ids(file: &Checkpoint, name: &str, limit: usize) -> Result<(usize, usize, Vec<u32>)> {
    let t = file.i64s(name)?;
    let &[count, length] = t.shape.as_slice() else {
        return Err(file.wrong_shape(name, &t.shape, "(batch, seq)").into());
    };
    let narrow = |(i, &v): (usize, &i64)| match u32::try_from(v) {
        Ok(v) if (v as usize) < limit => Ok(v),
        _ => bail!(
            "{}: `{name}` holds {v} at [{}, {}]; expected 0 to {}",
            file.path().display(),
            i / length.max(1),
            i % length.max(1),
            limit - 1
        ),
    };
    let data = t.data.iter().enumerate().map(narrow).collect::<Result<_>>()?;
    Ok((count, length, data))
}

/// What came out, (…, outputs).
#[derive(Clone, Debug)]
pub struct Output {
    /// `[batch, outputs]`, or `[batch, seq, outputs]` for a model that pools nothing.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// Runs a model on a batch. `each` is called once a sequence.
///
/// # Errors
/// What the core refuses.
pub fn run(
    model: &Model<'_>,
    t: &Transformer,
    adapters: &[Active<'_>],
    batch: &Batch,
    each: impl FnMut(),
) -> Result<Output> {
    run_with(model, t, adapters, batch, CacheType::I16, each)
}

/// As [`run`], with keys and values in either type.
///
/// # Errors
/// What the core refuses.
pub fn run_with(
    model: &Model<'_>,
    t: &Transformer,
    adapters: &[Active<'_>],
    batch: &Batch,
    cache: CacheType,
    mut each: impl FnMut(),
) -> Result<Output> {
    let tokens = if t.encoder > 0 && !t.has_cross() { batch.length } else { batch.decoder_length.max(batch.length) };
    let plan = Plan::new(model.bytes())?.tokens(tokens).source(batch.length).context(tokens).cache(cache);
    let mut memory = vec![0; plan.bytes() + SLACK];
    let (mut scratch, mut cache) = Workspace::new(&mut memory).sequence(&plan)?;
    let outputs = model.spec().outputs;
    let pooled = t.pool != Pool::None;
    let steps = if t.has_cross() { batch.decoder_length } else { batch.length };
    let features = model.spec().features;
    let mut raw = vec![0; batch.length * features];
    let mut data = vec![];
    let mut values = vec![0.0; outputs];
    for row in 0..batch.count {
        let sequence = batch.sequence(t, row, &mut raw)?;
        cache.clear();
        if t.encoder > 0 {
            model.encode(&mut scratch, &mut cache, sequence, adapters)?;
        }
        if t.has_cross() {
            model.decode(&mut scratch, &mut cache, batch.decoder(row), adapters)?;
        } else if t.decoder > 0 {
            model.decode(&mut scratch, &mut cache, sequence, adapters)?;
        }
        if pooled {
            let vector = match batch.last(t, row) {
                Some(index) => model.logits(&mut scratch, index, adapters)?,
                None => model.pooled(&mut scratch, sequence, adapters)?,
            };
            from_block(vector, &mut values);
            data.extend_from_slice(&values);
        } else {
            for step in 0..steps {
                from_block(model.logits(&mut scratch, step, adapters)?, &mut values);
                data.extend_from_slice(&values);
            }
        }
        each();
    }
    let shape = if pooled { vec![batch.count, outputs] } else { vec![batch.count, steps, outputs] };
    Ok(Output { shape, data })
}
