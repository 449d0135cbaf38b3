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
/// Pairs of rank 4, and a step after every sample.
const ROOM: Train = Train::adamw().rank(4).alpha(8).immediate();
/// On queries and values; of them B alone; with the inputs of every second block kept only; on every linear layer.
const QV: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).train(ROOM.on(Roles::Q.or(Roles::V)));
const ONLY_B: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).train(ROOM.on(Roles::Q.or(Roles::V)).only_b());
const LEAN: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).train(ROOM.on(Roles::Q.or(Roles::V)).lean());
const ALL: Plan<'_> = Plan::of(&BASE).tokens(TOKENS).train(ROOM.on(Roles::ALL));

/// Counts it: the first part by part.
pub(super) fn run<B: Board>(meter: &mut Meter<'_, B>, memory: &mut [u8]) -> Result<(), Failure> {
    let parts = counted(meter, memory, &QV)?;
    for (part, &sum) in Part::ALL.iter().zip(&parts) {
        meter.print(format_args!("story-step-{}", part.name()), TOKENS, sum, Work::Units(1, "step"))?;
    }
    meter.print("story-step", TOKENS, parts.iter().sum(), Work::Units(1, "step"))?;
    for (name, plan) in [("story-step-only-b", &ONLY_B), ("story-step-lean", &LEAN), ("story-step-all-linear", &ALL)] {
        let parts = counted(meter, memory, plan)?;
        meter.print(name, TOKENS, parts.iter().sum(), Work::Units(1, "step"))?;
    }
    Ok(())
}

/// Of the second step, since the first finds B zero and so no gradient of A.
fn counted<B: Board>(
    meter: &mut Meter<'_, B>,
    memory: &mut [u8],
    plan: &Plan<'_>,
) -> Result<[u64; Part::ALL.len()], Failure> {
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = Workspace::new(memory).split(plan)?;
    let mut learner = learn.fresh(&model, Seed(1))?;
    let mut trainer = Trainer::new(&model, &mut learner, AdamW { lr: q!(1e-3), ..AdamW::DEFAULT })?;
    let (text, _) = HELD_OUT.split_at(TOKENS);
    let mut parts = [0; Part::ALL.len()];
    for _ in 0..2 {
        parts = [0; Part::ALL.len()];
        let mut stepped = false;
        trainer.sequence(Sequence::tokens(text), SequenceTarget::Next, &mut scratch)?;
        while let Some(part) = trainer.next_part() {
            let (done, instructions) = meter.count(|| trainer.advance(&mut scratch))?;
            stepped = done?.stepped;
            if let Some(sum) = parts.get_mut(part as usize) {
                *sum += instructions;
            }
        }
        if !stepped {
            return Err(Failure::Check("the sample made no step"));
        }
    }
    Ok(parts)
}
