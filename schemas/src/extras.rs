//! The token ids whose logits the settings of one answer can change: the last shard sends their logits, sample changes them.
//!
//! Both sides compute the list with this file from the same [`Open`] and the same slices, so it never travels.

use std::collections::BTreeSet;

use crate::control::Open;

/// The ids of one sequence, growing with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extras {
    ids: BTreeSet<u32>,
    history_from: Option<u32>,
}

impl Extras {
    /// The ids that count before any position does: biased ones, and with `min_tokens` those that end the answer.
    pub fn new(open: &Open) -> Self {
        let generation = &open.generation;
        let sampling = &generation.sampling;
        let mut ids: BTreeSet<u32> = sampling.logit_bias.iter().map(|(id, _)| *id).collect();
        if generation.min_tokens > 0 {
            let ending = open.eos.iter().chain(&generation.stop.token_ids);
            ids.extend(ending.filter(|id| open.ends_on(**id)));
        }
        let history_from = if sampling.repetition_penalty != 1.0 {
            Some(0)
        } else if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
            Some(open.prompt_tokens)
        } else {
            None
        };
        Self { ids, history_from }
    }

    /// First position whose id a penalty looks at: 0 for the repetition penalty, the answer's first for the presence and
    /// frequency penalties, none without penalties.
    pub fn history_from(&self) -> Option<u32> {
        self.history_from
    }

    /// Adds the ids at positions `start..`. Pushing a position twice changes nothing.
    pub fn push(&mut self, ids: &[u32], start: u32) {
        let Some(from) = self.history_from else { return };
        let before = from.saturating_sub(start) as usize;
        self.ids.extend(ids.iter().skip(before));
    }

    /// The ids, ascending. Some may lie outside the vocabulary when a model folder names such an end of sequence.
    pub fn ids(&self) -> Vec<u32> {
        self.ids.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Context, Generation};
    use crate::{InstanceId, RouteId, SequenceId, SessionId};

    fn open(change: impl FnOnce(&mut Generation)) -> Open {
        let mut generation = Generation::default();
        change(&mut generation);
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
            prompt_tokens: 4,
            forced_tokens: 0,
            max_tokens: 10,
            generation,
            eos: vec![0, 2],
            grids: vec![],
        }
    }

    #[test]
    fn without_rules_there_are_none_whatever_the_history() {
        let mut extras = Extras::new(&open(|_| {}));
        extras.push(&[5, 6, 7], 0);
        assert!(extras.ids().is_empty());
    }

    #[test]
    fn the_repetition_penalty_touches_prompt_and_answer_the_others_only_the_answer() {
        let mut repetition = Extras::new(&open(|it| it.sampling.repetition_penalty = 1.1));
        let mut presence = Extras::new(&open(|it| it.sampling.presence_penalty = 0.5));
        for extras in [&mut repetition, &mut presence] {
            extras.push(&[9, 8, 7], 0);
            extras.push(&[6, 5, 9], 3);
            extras.push(&[6, 5, 9], 3);
        }
        assert_eq!(repetition.ids(), vec![5, 6, 7, 8, 9]);
        assert_eq!(presence.ids(), vec![5, 9]);
    }

    #[test]
    fn biased_ids_and_with_min_tokens_the_ending_ones_are_always_there() {
        let biased = |it: &mut Generation| it.sampling.logit_bias = vec![(30, 1.0), (10, -1.0)];
        assert_eq!(Extras::new(&open(biased)).ids(), vec![10, 30]);
        let ending = |it: &mut Generation| {
            it.min_tokens = 3;
            it.stop.token_ids = vec![7];
        };
        assert_eq!(Extras::new(&open(ending)).ids(), vec![0, 2, 7]);
        let ignoring = |it: &mut Generation| {
            ending(it);
            it.stop.ignore_eos = true;
        };
        assert_eq!(Extras::new(&open(ignoring)).ids(), vec![7]);
    }
}
