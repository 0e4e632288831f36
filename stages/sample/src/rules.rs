//! What one answer's settings do to its logits, as a function of the token ids so far.
//!
//! Order and meaning are vLLM's: `min_tokens`, bias, repetition penalty, frequency penalty, presence penalty. The repetition
//! penalty is Hugging Face's `RepetitionPenaltyLogitsProcessor` over prompt and answer; the other two are OpenAI's, over the answer.

use std::collections::{BTreeMap, HashMap};

use schemas::control::Open;
use schemas::extras::Extras;
use schemas::hidden::Slice;
use schemas::logits::Row;

use crate::order::RowError;

/// The rules of one sequence with the history that they look at.
#[derive(Debug)]
pub struct Rules {
    extras: Extras,
    bias: BTreeMap<u32, f64>,
    /// Ids in the history, with how often the answer has each.
    seen: HashMap<u32, u32>,
    next: u32,
}

impl Rules {
    /// The rules of `open` before any position.
    pub fn new(open: &Open) -> Self {
        let bias = open.generation.sampling.logit_bias.iter();
        Self {
            extras: Extras::new(open),
            bias: bias.map(|(id, bias)| (*id, f64::from(*bias))).collect(),
            seen: HashMap::new(),
            next: 0,
        }
    }

    /// The position after the history.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Adds the rows of `slice`; those added before are skipped. Fails when rows are missing that a penalty looks at.
    pub fn push(&mut self, open: &Open, slice: &Slice) -> Result<(), RowError> {
        let from = self.extras.history_from();
        if slice.start > self.next && from.is_some_and(|from| slice.start > from) {
            return Err(RowError::Position { found: slice.start, expected: self.next });
        }
        let known = self.next.saturating_sub(slice.start) as usize;
        let fresh = slice.ids.get(known..).unwrap_or_default();
        let start = slice.start.max(self.next);
        if let Some(from) = from {
            for (position, id) in (start..).zip(fresh).filter(|(position, _)| *position >= from) {
                *self.seen.entry(*id).or_default() += u32::from(position >= open.prompt_tokens);
            }
        }
        self.extras.push(fresh, start);
        self.next = start.saturating_add(fresh.len() as u32);
        Ok(())
    }

    /// The logits of `row.extras` after the rules, for the token at `index` of the answer.
    pub fn adjusted(&self, open: &Open, row: &Row, index: u32) -> Result<Vec<f64>, RowError> {
        let mut given = row.extras.iter().map(|(id, _)| *id);
        let needed = self.extras.ids();
        let in_vocabulary = needed.into_iter().filter(|id| *id < row.vocabulary);
        if let Some(missing) = in_vocabulary.into_iter().find(|id| !given.any(|other| other == *id)) {
            return Err(RowError::MissingExtra(missing));
        }
        Ok(row.extras.iter().map(|(id, logit)| self.adjust(open, *id, f64::from(*logit), index)).collect())
    }

    fn adjust(&self, open: &Open, id: u32, logit: f64, index: u32) -> f64 {
        let sampling = &open.generation.sampling;
        if index < open.generation.min_tokens && open.ends_on(id) {
            return f64::NEG_INFINITY;
        }
        let mut logit = logit + self.bias.get(&id).copied().unwrap_or_default();
        let Some(count) = self.seen.get(&id).copied() else { return logit };
        let repetition = f64::from(sampling.repetition_penalty);
        logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
        if count > 0 {
            logit -= f64::from(sampling.frequency_penalty) * f64::from(count)
                + f64::from(sampling.presence_penalty);
        }
        logit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::request::{Context, Generation, Sampling};
    use schemas::{InstanceId, RouteId, SequenceId, SessionId};

    fn open(sampling: Sampling) -> Open {
        Open {
            sequence: SequenceId(1),
            context: Context {
                session: SessionId(1),
                choice: 0,
                attempt: 0,
                door: InstanceId(1),
                remaining_ms: 1,
                alone: false,
                traceparent: None,
            },
            route: RouteId(1),
            shards: vec![InstanceId(4)],
            sample: InstanceId(2),
            detokenize: InstanceId(3),
            prompt_tokens: 2,
            forced_tokens: 0,
            max_tokens: 10,
            generation: Generation { sampling, ..Generation::default() },
            eos: vec![0],
            grids: vec![],
        }
    }

    /// What becomes of `extras` after the prompt 7, 8 and the answer 8, 9, 9.
    fn adjusted(open: &Open, extras: &[(u32, f32)]) -> Result<Vec<f64>, RowError> {
        let mut rules = Rules::new(open);
        for (start, ids) in [(0, &[7, 8][..]), (2, &[8, 9]), (3, &[9, 9]), (1, &[8, 8])] {
            rules
                .push(open, &Slice { sequence: SequenceId(1), start, ids: ids.to_vec(), sample: true })
                .unwrap();
        }
        let row = Row {
            sequence: SequenceId(1),
            position: rules.next(),
            vocabulary: 10,
            candidates: Vec::new(),
            extras: extras.to_vec(),
            logsumexp: 0.0,
            logsumexp_scaled: 0.0,
        };
        assert_eq!(row.position, 5);
        rules.adjusted(open, &row, row.position - open.prompt_tokens)
    }

    #[test]
    fn the_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_answer() {
        let open = open(Sampling { repetition_penalty: 2.0, ..Sampling::default() });
        let found = adjusted(&open, &[(5, 4.0), (7, 4.0), (8, -1.0), (9, 3.0)]).unwrap();
        assert_eq!(found, [4.0, 2.0, -2.0, 1.5]);
    }

    #[test]
    fn frequency_counts_and_presence_does_not_and_both_see_the_answer_only() {
        let both = Sampling { frequency_penalty: 0.5, presence_penalty: 0.25, ..Sampling::default() };
        assert_eq!(adjusted(&open(both), &[(7, 1.0), (8, 1.0), (9, 1.0)]).unwrap(), [1.0, 0.25, -0.25]);
    }

    #[test]
    fn a_bias_comes_before_the_penalties() {
        let logit_bias = vec![(9, 3.0)];
        let open = open(Sampling { repetition_penalty: 2.0, logit_bias, ..Sampling::default() });
        assert_eq!(adjusted(&open, &[(7, 0.0), (8, 0.0), (9, -1.0)]).unwrap(), [0.0, 0.0, 1.0]);
    }

    #[test]
    fn before_min_tokens_ids_that_end_the_answer_are_ruled_out() {
        let mut open = open(Sampling::default());
        open.generation.min_tokens = 4;
        assert_eq!(adjusted(&open, &[(0, 5.0), (1, 1.0)]).unwrap(), [f64::NEG_INFINITY, 1.0]);
        open.generation.min_tokens = 3;
        assert_eq!(adjusted(&open, &[(0, 5.0), (1, 1.0)]).unwrap(), [5.0, 1.0]);
    }

    #[test]
    fn an_extra_that_a_rule_needs_must_be_there() {
        let open = open(Sampling { repetition_penalty: 2.0, ..Sampling::default() });
        assert_eq!(adjusted(&open, &[(7, 4.0), (9, 3.0)]), Err(RowError::MissingExtra(8)));
    }

    #[test]
    fn missing_rows_matter_to_penalties_only() {
        let late = Slice { sequence: SequenceId(1), start: 3, ids: vec![9], sample: true };
        let plain = open(Sampling::default());
        assert_eq!(Rules::new(&plain).push(&plain, &late), Ok(()));
        let counting = open(Sampling { frequency_penalty: 1.0, ..Sampling::default() });
        assert!(Rules::new(&counting).push(&counting, &late).is_err());
    }
}
