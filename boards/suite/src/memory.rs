//! What training the language model takes, measured: it learns in each of the plans that have a goal, and plan and deepest stack together
//! must keep to it.
//!
//! The deepest use of the stack counts from the start on, so that what stands behind a plan is at least what that plan needs.

use ranklet::{
    Plan, Roles, Seed, Sequence, SequenceTarget, Train, Trainer,
    memory::Workspace,
    model::{Arena, Model},
    q,
    train::AdamW,
};

use crate::{Board, Failure, LEAF, digest::Digest, record, write::model::BASE};

/// Persuasion, as tokens, little-endian u16.
static TEXT: &[u8] = include_bytes!("../../../models/story/style/train.u16");

/// Pairs of rank 4 on queries and values, AdamW; the inputs of every second block.
const ROOM: Train = Train::adamw().rank(4).alpha(8).on(Roles::Q.or(Roles::V)).lean();
const SHORT: usize = 32;
const LONG: usize = 64;

/// A plan, and how many KiB it may take with the stack.
struct Goal {
    name: &'static str,
    plan: Plan<'static>,
    tokens: usize,
    batch: u32,
    goal: usize,
}

const fn goal(name: &'static str, tokens: usize, train: Train, batch: u32, goal: usize) -> Goal {
    Goal { name, plan: Plan::of(&BASE).tokens(tokens).train(train), tokens, batch, goal }
}

static GOALS: [Goal; 4] = [
    goal("a step after every sample, T = 32", SHORT, ROOM.immediate(), 1, 84),
    goal("batches, T = 32", SHORT, ROOM, 2, 100),
    goal("a step after every sample, T = 64", LONG, ROOM.immediate(), 1, 124),
    goal("batches, T = 64", LONG, ROOM, 2, 140),
];
/// The largest of them.
const BYTES: usize = Plan::of(&BASE).tokens(LONG).train(ROOM).bytes();
static ARENA: Arena<BYTES> = Arena::new();

/// Samples that are learned from in each.
const SAMPLES: usize = 4;

/// Runs it.
///
/// # Errors
/// Whatever the core refuses, and a goal that is not kept.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let memory = ARENA.take()?.try_carve(BYTES).ok_or(Failure::Check("the arena is shorter than its plan"))?;
    writeln!(
        board,
        "training in little memory on {}, kernel leaf {LEAF}: bytes of the plan, and of the stack",
        B::NAME
    )?;
    let mut digest = Digest::new();
    for goal in &GOALS {
        learn(goal, memory, &mut digest)?;
        let plan = goal.plan.bytes();
        match board.stack_used() {
            Some(stack) => {
                let (sum, most) = (plan + stack, goal.goal * 1024);
                writeln!(board, "  {:33}  {plan:7} + {stack:5} = {sum:7} of {most:7}", goal.name)?;
                if sum > most {
                    return Err(Failure::Check("plan and stack are beyond the goal"));
                }
            }
            None => writeln!(board, "  {:33}  {plan:7}", goal.name)?,
        }
    }
    record::digest(board, LEAF, "memory", digest.value())?;
    record::stack(board)
}

#[inline(never)] // What one needs is given back before the next.
fn learn(goal: &Goal, memory: &mut [u8], digest: &mut Digest) -> Result<(), Failure> {
    let model = Model::open(&BASE)?;
    let (mut scratch, learn) = Workspace::new(memory).split(&goal.plan)?;
    let mut learner = learn.fresh(&model, Seed(7))?;
    let adamw = AdamW { lr: q!(6e-3), ..AdamW::DEFAULT };
    let mut trainer = Trainer::new(&model, &mut learner, adamw)?.accumulate(goal.batch);
    for text in TEXT.chunks_exact(2 * goal.tokens).take(SAMPLES) {
        let mut ids = [0; LONG];
        let words = text.chunks_exact(2).map(|b| b.first_chunk().map_or(0, |b| u32::from(u16::from_le_bytes(*b))));
        ids.iter_mut().zip(words).for_each(|(id, word)| *id = word);
        let ids = ids.get(..goal.tokens).unwrap_or(&[]);
        trainer.sequence(Sequence::tokens(ids), SequenceTarget::Next, &mut scratch)?;
        let loss = trainer.step(&mut scratch)?;
        digest.i32s(&[loss.mantissa(), loss.exponent()]);
    }
    if learner.steps() * goal.batch != SAMPLES as u32 {
        return Err(Failure::Check("a sample made no step"));
    }
    digest.i16s(learner.high());
    digest.i16s(learner.low());
    Ok(())
}
