//! Sequences as samples: what [`Trainer`] takes for a transformer, and how its units run.

use super::error::TrainError;
use super::learner::{Learner, LessonParts, Under, Window};
use super::loss::{IGNORE, SequenceTarget, Target};
use super::optimizer::Optimizer;
use super::phase::{Aim, Part, Phase};
use super::score::{Answers, Scored};
use super::trainer::{Trainer, stage};
use super::units::Units;
use super::update::Turn;
use crate::fixed::{Exp, Real};
use crate::layer::dropout::Masks;
use crate::layer::normalize::Normalize;
use crate::layer::{ShapeError, first};
use crate::memory::Workspace;
use crate::model::spec::Transformer;
use crate::model::transformer::learn::{
    Course, Desk, Keeps, LearnPlan, LearnShape, Lesson, Objective, Side, Unit, Work, place_of,
};
use crate::model::transformer::network::Network;
use crate::model::transformer::parts::one_of;
use crate::model::transformer::pass::check_sequence;
use crate::model::transformer::pool;
use crate::model::transformer::sequence::Source;
use crate::model::{Active, Model, RunError, Scratch, Sequence};

impl<O: Optimizer> Trainer<'_, '_, '_, O> {
    /// Takes a sequence for an encoder, or for a decoder that has none, and copies it, so that the caller's buffers are free
    /// again. Then call [`advance`](Trainer::advance) until there is no more, or [`step`](Trainer::step).
    ///
    /// # Errors
    /// See [`TrainError`]; the adapter and its gradients are unchanged.
    pub fn sequence(
        &mut self,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.lesson_of(Aim::Learn, None, sequence, target, None, scratch)
    }

    /// Takes a sequence for the encoder and one for the decoder that looks at it: as [`sequence`](Trainer::sequence). The
    /// target is that of the decoder's tokens.
    ///
    /// # Errors
    /// See [`TrainError`]; the adapter and its gradients are unchanged.
    pub fn pair(
        &mut self,
        source: Sequence<'_>,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.lesson_of(Aim::Learn, Some(source), sequence, target, None, scratch)
    }

    /// What the last sequence brought to the lowest block that learns, to be kept and given to [`behind`](Trainer::behind) when the same
    /// sequence comes again: the blocks below need not run then. With the feature `store`, `recall` and `keep` do both, and
    /// notice what has changed.
    ///
    /// `None` in the middle of a sample, before the first, where another trainer finished it, or where it was only measured; with dropout;
    /// where the first block learns; in a lean plan; for a network with encoder and decoder; for a 32-bit residual stream.
    ///
    /// It stays right as long as nothing below changes: what is frozen there, and the adapters beside. (Kept for samples that are
    /// seen again and again: Skip2-LoRA, arXiv:2410.21073.)
    #[must_use]
    pub fn prefix(&mut self) -> Option<Prefix<'_>> {
        let spec = self.model.spec();
        let (t, plan) = (spec.transformer()?, self.learner.plan?);
        let Under { own, run, changed, .. } = self.learner.sequence;
        let shape = LearnShape::of(spec, t, plan);
        let other = changed || run.is_none() || !self.learner.mask.p.is_zero();
        if self.learner.phase != Phase::Idle || other || !self.has_prefix(t, &shape) {
            return None;
        }
        let course = course(self.learner, t);
        let work = Work::carve(&shape, Side::Stream, &mut Workspace::again(self.learner.work));
        let Work { stream, slots, rows, .. } = work;
        // Behind all blocks it is the stream itself.
        let behind = course.low() >= course.keeps.blocks;
        let (from, first) = if behind { (stream, 0) } else { (slots, course.keeps.slot(course.low()) * rows) };
        let (mantissas, exponents) = from.narrow(first, own)?;
        Some(Prefix { mantissas, exponents, block: course.low() as u16 })
    }

    /// As [`sequence`](Trainer::sequence), for one whose [`prefix`](Trainer::prefix) is known: the same bits, without the blocks below.
    ///
    /// # Errors
    /// [`TrainError::Prefix`] where it is of another length, of another block than the lowest that learns, or where there is none; and as
    /// `sequence`. The adapter and its gradients are unchanged.
    pub fn behind(
        &mut self,
        prefix: Prefix<'_>,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.lesson_of(Aim::Learn, None, sequence, target, Some(prefix), scratch)
    }

    /// Whether something comes to the lowest block that learns that is the same every time, and is kept in 16 bits: not where that is the
    /// first block, below which tokens are looked up only, and not with dropout, which masks what is frozen below as well.
    pub(super) fn has_prefix(&self, t: &Transformer, shape: &LearnShape) -> bool {
        let lean = self.learner.plan.is_some_and(|plan| plan.lean);
        let low = place_of(t, self.learner.lowest_site());
        !(t.has_cross() || shape.wide_stream || lean || low == 0 || !self.dropout.is_zero())
    }

    #[inline(never)] // What it needs on the stack is given back before the units run.
    pub(super) fn lesson_of(
        &mut self,
        aim: Aim,
        source: Option<Sequence<'_>>,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        prefix: Option<Prefix<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        if self.learner.phase != Phase::Idle {
            return Err(TrainError::Busy);
        }
        if aim == Aim::Learn {
            self.check_immediate()?;
        }
        let spec = self.model.spec();
        let (Some(&t), Some(plan)) = (spec.transformer(), self.learner.plan) else {
            return Err(TrainError::Architecture);
        };
        let shape = LearnShape::of(spec, &t, plan);
        if t.has_cross() != source.is_some() {
            return Err(TrainError::Stacks { both: t.has_cross() });
        }
        check_sequence(self.model, &t, sequence, shape.own).map_err(TrainError::Sequence)?;
        if let Some(source) = source {
            check_sequence(self.model, &t, source, shape.source).map_err(TrainError::Sequence)?;
        }
        scratch.check(self.learner.scratch)?;
        self.check_sequence_target(sequence, target)?;
        let low = place_of(&t, self.learner.lowest_site());
        if let Some(p) = prefix {
            let found = (usize::from(p.block), p.exponents.len(), p.mantissas.len());
            let expected = (low, sequence.len(), sequence.len() * t.dim);
            if found != expected || !self.has_prefix(&t, &shape) {
                return Err(TrainError::Prefix { expected: (low, sequence.len()), found: (found.0, found.1) });
            }
        }
        let pooled = pool::index(&t, source.unwrap_or(sequence), sequence);
        let place = match target {
            SequenceTarget::Pooled(_) => pooled,
            SequenceTarget::At(index, _) => Some(index),
            _ => None,
        };
        if let Some(found) = place
            && found >= sequence.len()
        {
            return Err(TrainError::Sequence(RunError::Index { found, len: sequence.len() }));
        }

        let mut memory = Workspace::again(self.learner.work);
        let mut work = Work::carve(&shape, Side::Stream, &mut memory);
        let from = source.map_or(0, |s| s.len());
        let acc = Desk::carve(&shape.block, &mut Workspace::again(scratch.desk)).rows.acc;
        if let Some(source) = source {
            copy(self.model, source, 0, &mut work, acc)?;
        }
        copy(self.model, sequence, from, &mut work, acc)?;
        let objective = match target {
            SequenceTarget::Pooled(target) | SequenceTarget::At(_, target) => {
                let staged = stage(target, first("target", work.target, spec.outputs)?);
                Objective::Pooled { staged, index: place }
            }
            SequenceTarget::Tokens(labels) => {
                work.labels.iter_mut().zip(labels).for_each(|(to, &label)| *to = label);
                Objective::Tokens { share: one_of(labels.iter().filter(|&&l| l != IGNORE).count()) }
            }
            SequenceTarget::Next => {
                let mut count = 0;
                for (i, to) in work.labels.iter_mut().take(sequence.len()).enumerate() {
                    *to = following(sequence, i).unwrap_or(IGNORE);
                    count += usize::from(*to != IGNORE);
                }
                Objective::Tokens { share: one_of(count) }
            }
            SequenceTarget::Cotangents(mantissas, exponents) => {
                work.cotangents.mantissas.iter_mut().zip(mantissas).for_each(|(to, &m)| *to = m);
                work.cotangents.exponents.iter_mut().zip(exponents).for_each(|(to, &e)| *to = e);
                Objective::Cotangents
            }
        };
        self.learner.sequence =
            Under { own: sequence.len(), source: from, objective, loss: Real::ZERO, run: Some(run), changed: false };
        self.begin(aim);
        let course = course(self.learner, &t);
        let mut unit = course.start();
        if let Some(p) = prefix {
            let mut work = Work::carve(&shape, Side::Stream, &mut Workspace::again(self.learner.work));
            work.stream.set_narrow(p.mantissas, p.exponents);
            unit = course.behind(low);
        }
        self.learner.phase = Phase::Lesson(unit);
        Ok(())
    }

    fn check_sequence_target(&self, sequence: Sequence<'_>, target: SequenceTarget<'_>) -> Result<(), TrainError> {
        let (tokens, outputs) = (sequence.len(), self.model.spec().outputs);
        let exactly =
            |found| if found == tokens { Ok(()) } else { Err(TrainError::Labels { expected: tokens, found }) };
        let labelled = |any| if any { Ok(()) } else { Err(TrainError::NoLabels) };
        match target {
            SequenceTarget::Pooled(target) | SequenceTarget::At(_, target) => self.check_target(target, outputs),
            SequenceTarget::Tokens(labels) => {
                exactly(labels.len())?;
                labelled(labels.iter().any(|&l| l != IGNORE))?;
                let wrong = labels.iter().find(|&&l| l != IGNORE && l as usize >= outputs);
                wrong.map_or(Ok(()), |&l| self.check_target(Target::Class(l as usize), outputs))?;
                self.check_target(Target::Class(0), outputs)
            }
            SequenceTarget::Next => {
                labelled((0..tokens).any(|i| following(sequence, i).is_some()))?;
                let most = (0..tokens).filter_map(|i| following(sequence, i)).max().unwrap_or(0);
                self.check_target(Target::Class(most as usize), outputs)
            }
            SequenceTarget::Cotangents(mantissas, exponents) => {
                if !self.learner.train.cotangents {
                    return Err(TrainError::CotangentsNotPlanned);
                }
                exactly(exponents.len())?;
                let (expected, found) = (tokens * outputs, mantissas.len());
                if found == expected { Ok(()) } else { Err(TrainError::TargetLength { expected, found }) }
            }
        }
    }
}

impl Units<'_, '_, '_> {
    /// Runs a unit of a sequence; returns the loss, from the last unit that computes a part of it.
    pub(super) fn lesson(&mut self, unit: Unit, scratch: &mut Scratch<'_>) -> Result<Option<Real>, ShapeError> {
        let Some(run) = self.learner.sequence.run else { return Ok(None) };
        let Ran { next, complete, loss } = run(self.learner, self.model, self.beside, unit, scratch)?;
        self.learner.phase = match next {
            _ if complete => {
                self.learner.window.then = next;
                Phase::Update { tensor: self.learner.window.first, factor: Real::ONE, turn: Turn::START }
            }
            Some(next) => Phase::Lesson(next),
            None => Phase::Gathered,
        };
        Ok(loss)
    }
}

/// What a sequence brings to the lowest block that learns: see [`Trainer::prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<'p> {
    /// `(tokens, dim)`.
    pub mantissas: &'p [i16],
    /// One a token.
    pub exponents: &'p [Exp],
    /// The block that it is given to, of all of the network's; as many as there are for what stands behind them.
    pub block: u16,
}

/// What a unit brought, and the one behind it.
pub(crate) struct Ran {
    next: Option<Unit>,
    /// Whether the gradients of the block at hand are complete, and are to be used now.
    complete: bool,
    loss: Option<Real>,
}

/// How a unit of a sequence is run. A learner is told with its first sequence: firmware that trains no transformer does not
/// hold the code that would.
pub(crate) type Run =
    fn(&mut Learner<'_>, &Model<'_>, &[Active<'_>], Unit, &mut Scratch<'_>) -> Result<Ran, ShapeError>;

fn run(
    learner: &mut Learner<'_>,
    model: &Model<'_>,
    beside: &[Active<'_>],
    unit: Unit,
    scratch: &mut Scratch<'_>,
) -> Result<Ran, ShapeError> {
    let (Some(t), Some(plan)) = (model.spec().transformer(), learner.plan) else {
        return Ok(Ran { next: None, complete: false, loss: None });
    };
    let course = course(learner, t);
    let here = course.place_of(&unit);
    let immediate = learner.train.immediate && !learner.measured;
    if immediate {
        learner.window = window(learner, t, here);
    }
    let mask = learner.mask;
    let masks = (!mask.p.is_zero()).then_some(Masks { p: mask.p, seed: mask.seed, sample: learner.samples });
    let objective = learner.sequence.objective;
    let LessonParts { view, mut gradients, work } = learner.lesson_parts();
    let net = Network { model, t, adapters: beside, learns: Some(view), masks };
    let lesson = Lesson { net, course, objective };
    let mut work = work_of(model, t, plan, &unit, work);
    let mut desk = desk_of(model, t, plan, &unit, scratch.desk);
    let mut done = unit;
    let scored = lesson.run(&mut done, &mut work, &mut desk, &mut gradients)?;

    let next = course.next(done);
    let mut told = None;
    if let Some(Scored { loss, answers: Answers { given, right } }) = scored {
        let sum = learner.sequence.loss.add(loss);
        learner.sequence.loss = sum;
        learner.answers.given += given;
        learner.answers.right += right;
        told = next.is_none_or(|n| !n.is_head()).then_some(sum);
    }
    let left = next.is_none_or(|n| course.place_of(&n) != here);
    let complete = immediate && done.goes_back() && left && (next.is_none() || learner.window.learns());
    Ok(Ran { next, complete, loss: told })
}

/// What a unit finds and leaves.
#[inline(never)] // So that the shape is not on the stack while the unit runs.
fn work_of<'w>(model: &Model<'_>, t: &Transformer, plan: LearnPlan, unit: &Unit, work: &'w mut [u8]) -> Work<'w> {
    let shape = LearnShape::of(model.spec(), t, plan);
    Work::carve(&shape, unit.side(), &mut Workspace::again(work))
}

/// What it computes in.
#[inline(never)] // As above.
fn desk_of<'w>(model: &Model<'_>, t: &Transformer, plan: LearnPlan, unit: &Unit, desk: &'w mut [u8]) -> Desk<'w> {
    let shape = LearnShape::of(model.spec(), t, plan);
    let of = match unit.part() {
        Part::Loss => &shape.head,
        Part::Attention => &shape.pairs,
        _ => &shape.block,
    };
    Desk::carve(of, &mut Workspace::again(desk))
}

/// The tensors of one block, or of what is behind them all.
fn window(learner: &Learner<'_>, t: &Transformer, place: usize) -> Window {
    let first = learner.records().partition_point(|r| place_of(t, r.site) < place);
    let end = learner.records().partition_point(|r| place_of(t, r.site) <= place);
    let learned = learner.records().get(..first).unwrap_or(&[]).iter().map(|r| learner.train.learns_of(r)).sum();
    Window { first: 2 * first, end: 2 * end, base: learned, then: None }
}

pub(super) fn course<'t>(learner: &Learner<'_>, t: &'t Transformer) -> Course<'t> {
    let Under { own, source, objective, .. } = learner.sequence;
    let by_token = !matches!(objective, Objective::Pooled { .. });
    let nothing = Keeps { blocks: 0, floor: 0, lean: false };
    let keeps = learner.plan.map_or(nothing, |plan| plan.keeps(t));
    Course { t, own, source, lowest: learner.lowest_site(), keeps, by_token }
}

/// Copies a sequence to the places from number `at` on.
fn copy(
    model: &Model<'_>,
    sequence: Sequence<'_>,
    at: usize,
    work: &mut Work<'_>,
    acc: &mut [i64],
) -> Result<(), ShapeError> {
    let (tokens, width) = (sequence.len(), model.spec().features);
    let places = at..at + tokens;
    for (i, valid) in work.valid.get_mut(places.clone()).unwrap_or_default().iter_mut().enumerate() {
        *valid = u8::from(sequence.is_valid(i));
    }
    let kinds = work.kinds.get_mut(places.clone()).unwrap_or_default();
    kinds.fill(0);
    kinds.iter_mut().zip(sequence.types.unwrap_or(&[])).for_each(|(to, &kind)| *to = kind);
    match sequence.source {
        Source::Tokens(ids) => {
            let to = work.ids.get_mut(places).unwrap_or_default();
            to.iter_mut().zip(ids).for_each(|(to, &id)| *to = id);
        }
        Source::Features(samples, _) => {
            let normalize = model.normalize();
            for i in 0..tokens {
                let place = at + i;
                let to = work.features.mantissas.get_mut(place * width..(place + 1) * width).unwrap_or_default();
                let part = samples.part(i * width..(i + 1) * width);
                let exponent = Normalize::forward(normalize.as_ref(), part, to, acc)?;
                if let Some(e) = work.features.exponents.get_mut(place) {
                    *e = exponent;
                }
            }
        }
    }
    Ok(())
}

/// The token behind token `index`, where both count.
fn following(sequence: Sequence<'_>, index: usize) -> Option<u32> {
    let Source::Tokens(ids) = sequence.source else { return None };
    (sequence.is_valid(index) && sequence.is_valid(index + 1)).then(|| ids.get(index + 1).copied())?
}
