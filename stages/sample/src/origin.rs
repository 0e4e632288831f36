//! The sequences of one shard-forward.0 instance and the last answers to its steps.

use std::collections::{HashMap, VecDeque};

use pipelines::Outbox;
use schemas::control::Control;
use schemas::hidden::Slice;
use schemas::logits::{Logits, Row};
use schemas::{Failure, FailureKind, InstanceId, SequenceId};

use crate::order::RowError;
use crate::output::{Letters, Output, Place};
use crate::sequence::{Drawn, Sequence};

/// Steps whose answers are kept for repeating: more than are on their way at once.
const ANSWERS_KEPT: usize = 16;

/// What sample holds for one shard-forward.0 instance.
#[derive(Debug, Default)]
pub struct Origin {
    sequences: HashMap<SequenceId, Sequence>,
    answers: VecDeque<Answer>,
}

/// The answer to one step. The same step can come from several last shards, each with rows of its own.
#[derive(Debug)]
struct Answer {
    step: u64,
    keeper: InstanceId,
    letters: Letters,
}

impl Origin {
    /// How many sequences are held.
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Answers `logits`: a new step by drawing, a repeated one as before, a complete row by the draw that waited for it.
    pub fn answer(&mut self, logits: Logits, place: &Place, out: &mut Outbox) -> Letters {
        let (step, keeper) = (logits.head.step, logits.keeper);
        let answered = self.answers.iter().position(|answer| answer.step == step && answer.keeper == keeper);
        let is_whole_rows = logits.slices.is_empty() && !logits.rows.is_empty();
        match answered {
            Some(known) if !is_whole_rows => self.answers[known].letters.clone(),
            _ => {
                let letters = if is_whole_rows {
                    self.complete(logits, out).letters(place)
                } else {
                    self.step(logits, place, out).letters(place)
                };
                self.remember(answered, Answer { step, keeper, letters: letters.clone() });
                letters
            }
        }
    }

    fn remember(&mut self, known: Option<usize>, answer: Answer) {
        if let Some(known) = known {
            let letters = &mut self.answers[known].letters;
            letters.urgent.extend(answer.letters.urgent);
            letters.later.extend(answer.letters.later);
            return;
        }
        if self.answers.len() == ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    fn step(&mut self, logits: Logits, place: &Place, out: &mut Outbox) -> Output {
        let mut output = Output::new(logits.head.origin, logits.head.step, logits.keeper);
        for control in logits.head.control {
            self.carry_out(control, place.instance, &mut output);
        }
        for slice in &logits.slices {
            self.push(slice, &mut output, out);
        }
        for row in &logits.rows {
            self.draw(row, Sequence::draw, &mut output, out);
        }
        output
    }

    fn complete(&mut self, logits: Logits, out: &mut Outbox) -> Output {
        let mut output = Output::new(logits.head.origin, logits.head.step, logits.keeper);
        for row in &logits.rows {
            self.draw(row, Sequence::draw_awaited, &mut output, out);
        }
        output
    }

    fn carry_out(&mut self, control: Control, me: InstanceId, output: &mut Output) {
        match control {
            Control::Open(open) if open.sample == me => {
                output.control(open.detokenize, Control::Open(open.clone()));
                self.sequences.entry(open.sequence).or_insert_with(|| Sequence::new(*open));
            }
            Control::Open(_) => {}
            Control::ReleaseBelow(oldest) => self.sequences.retain(|id, _| *id >= oldest),
            Control::Release(id) => {
                if let Some(sequence) = self.sequences.remove(&id) {
                    output.control(sequence.open().detokenize, Control::Release(id));
                }
            }
        }
    }

    fn push(&mut self, slice: &Slice, output: &mut Output, out: &mut Outbox) {
        let Some(sequence) = running(&mut self.sequences, slice.sequence) else { return };
        if let Err(error) = sequence.push(slice) {
            return fail(sequence, &error, output, out);
        }
        if let Some(history) = sequence.history(slice) {
            output.history(sequence.open().detokenize, history);
        }
    }

    fn draw(
        &mut self,
        row: &Row,
        draw: impl Fn(&mut Sequence, &Row) -> Result<Drawn, RowError>,
        output: &mut Output,
        out: &mut Outbox,
    ) {
        let Some(sequence) = running(&mut self.sequences, row.sequence) else { return };
        match draw(sequence, row) {
            Ok(Drawn::Token(token)) => output.token(sequence.open().detokenize, token),
            Ok(Drawn::NeedRow) => output.need(row.sequence, row.position),
            Ok(Drawn::Passed) => {}
            Err(error) => fail(sequence, &error, output, out),
        }
    }
}

/// The sequence `id` unless it is unknown or has failed: rows of such a one are ignored.
fn running(sequences: &mut HashMap<SequenceId, Sequence>, id: SequenceId) -> Option<&mut Sequence> {
    sequences.get_mut(&id).filter(|sequence| !sequence.has_failed())
}

/// Ends the answer of `sequence`, which stays until shard-forward.0 releases it.
fn fail(sequence: &mut Sequence, error: &RowError, output: &mut Output, out: &mut Outbox) {
    sequence.fail();
    let open = sequence.open();
    let kind = match error {
        // Messages before this one were lost: the session may resume.
        RowError::Position { .. } => FailureKind::Unavailable,
        _ => FailureKind::Internal,
    };
    let failure = Failure::new(kind, format!("no token could be drawn: {error}"));
    out.fail(&open.context, Some(open.route), failure);
    output.cancel(open.route);
}
