//! A step of a language model's training: what each part of it costs.

use ranklet::{
    Seed,
    model::{Model, Plan, Roles, Sequence, Train, Workspace},
    q,
    train::{AdamW, Part, SequenceTarget, Trainer},
};

use super::meter::Meter;
use crate::{
    Board, Failure,
    record::Work,
    write::model::{BASE, HELD_OUT},
};

/// Tokens of the text.
const TOKENS: usize = 32;
/// Pairs of rank 4 on queries and values.
const PLAN: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).train(Train::adamw().rank(4).alpha(8).on(Roles::Q.or(Roles::V)));

/// Counts it, part by part: of the second step, since the first finds B zero and so no gradient of A.
pub(super) fn run<B: Board>(meter: &mut Meter<'_, B>, memory: &mut [u8]) -> Result<(), Failure> {
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = Workspace::new(memory).split(&PLAN)?;
    let mut learner = learn.fresh(&model, Seed(1))?;
    let mut trainer = Trainer::new(&model, &mut learner, AdamW { lr: q!(1e-3), ..AdamW::DEFAULT })?;
    let (text, _) = HELD_OUT.split_at(TOKENS);
    let mut parts = [0; Part::ALL.len()];
    for _ in 0..2 {
        parts = [0; Part::ALL.len()];
        trainer.sequence(Sequence::tokens(text), SequenceTarget::Next, &mut scratch)?;
        while let Some(part) = trainer.next() {
            let (done, instructions) = meter.count(|| trainer.advance(&mut scratch))?;
            let _ = done?;
            if let Some(sum) = parts.get_mut(part as usize) {
                *sum += instructions;
            }
        }
    }
    for (part, &sum) in Part::ALL.iter().zip(&parts) {
        meter.print(format_args!("story-step-{}", part.name()), TOKENS, sum, Work::Units(1, "step"))?;
    }
    meter.print("story-step", TOKENS, parts.iter().sum(), Work::Units(1, "step"))
}
