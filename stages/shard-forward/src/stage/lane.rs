//! Steps on their way: a lane is one chain of shard instances, along which steps follow each other in order.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use schemas::admission::Route;
use schemas::control::Control;
use schemas::{InstanceId, SequenceId};

/// Longest time until a step's tokens come back; then the step counts as lost.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// Rows below which a step says nothing about the cost of a row.
const MEASURED_ROWS_MIN: usize = 16;

/// Rows of a step while nothing is known: a large model on few processors takes half a second for each.
const UNMEASURED_ROWS: usize = 32;

/// Weight of the newest measurement of the cost of a row.
const NEWEST_WEIGHT: f64 = 0.2;

/// One chain of shard instances.
#[derive(Default)]
pub(super) struct Lane {
    /// Steps on their way.
    pub(super) in_flight: usize,
    /// Decisions for the next step.
    pub(super) control: Vec<Control>,
    /// The sequences which that step releases.
    pub(super) ended: Vec<Ended>,
}

/// A sequence that later stages still hold. Its room is in use until the step that releases it is sent, since steps on other
/// lanes may pass the same shards before it.
pub(super) struct Ended {
    pub(super) sequence: SequenceId,
    pub(super) route: Route,
    pub(super) blocks: u32,
}

/// A step on its way.
pub(super) struct Sent {
    pub(super) lane: Vec<InstanceId>,
    /// Sequences that have rows in it and have not ended.
    pub(super) sequences: HashSet<SequenceId>,
    /// Those whose token it will bring.
    pub(super) expected: HashSet<SequenceId>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
    pub(super) at: Instant,
}

/// All lanes and the steps on them.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) lanes: BTreeMap<Vec<InstanceId>, Lane>,
    sent: BTreeMap<u64, Sent>,
    last_step: u64,
}

impl Lanes {
    /// The number of the next step.
    pub(super) fn next_step(&mut self) -> u64 {
        self.last_step += 1;
        self.last_step
    }

    /// The number that the next step will have.
    pub(super) fn upcoming_step(&self) -> u64 {
        self.last_step + 1
    }

    /// Notes a step that leaves.
    pub(super) fn send(&mut self, step: u64, sent: Sent) {
        self.lanes.entry(sent.lane.clone()).or_default().in_flight += 1;
        self.sent.insert(step, sent);
    }

    /// Notes tokens of `step`; returns the step when nothing more is expected of it.
    pub(super) fn receive(&mut self, step: u64, sequences: impl Iterator<Item = SequenceId>) -> Option<Sent> {
        let sent = self.sent.get_mut(&step)?;
        for sequence in sequences {
            sent.expected.remove(&sequence);
        }
        if !sent.expected.is_empty() {
            return None;
        }
        self.close(step)
    }

    /// A sequence has ended: no step waits for its token, and none for an answer when it had no other. Of one that only
    /// prefills, the answer may never come: the sample that owed it may be what the sequence ended of.
    pub(super) fn forget(&mut self, sequence: SequenceId) {
        let complete: Vec<u64> = self
            .sent
            .iter_mut()
            .filter_map(|(step, sent)| {
                let was_last = sent.sequences.remove(&sequence) && sent.sequences.is_empty();
                let had_last_token = sent.expected.remove(&sequence) && sent.expected.is_empty();
                (was_last || had_last_token).then_some(*step)
            })
            .collect();
        for step in complete {
            self.close(step);
        }
    }

    /// Takes out the steps that are lost, by time or because their lane is.
    pub(super) fn lost(&mut self, now: Instant, is_dead: impl Fn(&[InstanceId]) -> bool) -> Vec<Sent> {
        let lost: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, sent)| now.duration_since(sent.at) > STEP_DEADLINE || is_dead(&sent.lane))
            .map(|(step, _)| *step)
            .collect();
        lost.into_iter().filter_map(|step| self.close(step)).collect()
    }

    /// Forgets the dead lanes; returns their ended sequences, which no step will release.
    pub(super) fn bury(&mut self, is_dead: impl Fn(&[InstanceId]) -> bool) -> Vec<Ended> {
        let dead: Vec<Vec<InstanceId>> = self.lanes.keys().filter(|lane| is_dead(lane)).cloned().collect();
        dead.into_iter().filter_map(|lane| self.lanes.remove(&lane)).flat_map(|lane| lane.ended).collect()
    }

    /// When the oldest step counts as lost.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.values().next().map(|sent| sent.at + STEP_DEADLINE)
    }

    /// Whether any step is on its way.
    pub(super) fn has_steps(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether anything is on its way or waits to be said.
    pub(super) fn is_busy(&self) -> bool {
        !self.sent.is_empty() || self.lanes.values().any(|lane| !lane.control.is_empty())
    }

    fn close(&mut self, step: u64) -> Option<Sent> {
        let sent = self.sent.remove(&step)?;
        if let Some(lane) = self.lanes.get_mut(&sent.lane) {
            lane.in_flight -= 1;
        }
        Some(sent)
    }
}

/// Rows of a step, from the time that a step should take.
pub(super) struct Budget {
    target: Duration,
    rows_max: usize,
    row_seconds: Option<f64>,
    /// Rows of a step while no row was measured.
    unmeasured: usize,
}

impl Budget {
    /// At most `rows_max` rows, and no more than take `target`.
    pub(super) fn new(target: Duration, rows_max: usize) -> Self {
        Self { target, rows_max, row_seconds: None, unmeasured: UNMEASURED_ROWS.min(rows_max) }
    }

    /// Takes in a step of `rows` rows that took `elapsed`.
    pub(super) fn record(&mut self, rows: usize, elapsed: Duration) {
        if rows < MEASURED_ROWS_MIN {
            return;
        }
        let newest = elapsed.as_secs_f64() / rows as f64;
        let before = self.row_seconds.unwrap_or(newest);
        self.row_seconds = Some(before + (newest - before) * NEWEST_WEIGHT);
    }

    /// A step was lost: it may have taken too long, and the same one would again.
    pub(super) fn lost(&mut self) {
        self.unmeasured = (self.rows().min(self.unmeasured) / 2).max(self.rows_min());
        self.row_seconds = None;
    }

    /// Rows of the next step.
    pub(super) fn rows(&self) -> usize {
        let affordable = match self.row_seconds {
            Some(seconds) if seconds > 0.0 => (self.target.as_secs_f64() / seconds) as usize,
            Some(_) => self.rows_max,
            None => self.unmeasured,
        };
        affordable.clamp(self.rows_min(), self.rows_max)
    }

    fn rows_min(&self) -> usize {
        MEASURED_ROWS_MIN.min(self.rows_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_measured_cost_of_a_row() {
        let mut budget = Budget::new(Duration::from_millis(100), 256);
        assert_eq!(budget.rows(), 32, "nothing is known");
        budget.record(32, Duration::from_millis(1));
        assert_eq!(budget.rows(), 256);
        for _ in 0..50 {
            budget.record(256, Duration::from_millis(256));
        }
        assert_eq!(budget.rows(), 100);
        budget.record(1, Duration::from_secs(9));
        assert_eq!(budget.rows(), 100, "a decode step says nothing about the cost of a row");
        budget.lost();
        assert_eq!(budget.rows(), 16);
        budget.lost();
        assert_eq!(budget.rows(), 16);
        budget.record(16, Duration::from_millis(1));
        assert_eq!(budget.rows(), 256);
    }

    #[test]
    fn a_step_is_complete_when_its_last_sequence_drew_or_ended() {
        let lane = vec![InstanceId(1)];
        let mut lanes = Lanes::default();
        let step = lanes.next_step();
        let both = HashSet::from([SequenceId(1), SequenceId(2)]);
        let sequences = both.clone();
        let sent =
            Sent { lane: lane.clone(), sequences, expected: both, rows: 2, tokens: 2, at: Instant::now() };
        lanes.send(step, sent);
        assert!(lanes.receive(step, [SequenceId(1)].into_iter()).is_none());
        lanes.forget(SequenceId(2));
        assert_eq!(lanes.lanes[&lane].in_flight, 0);
        assert!(!lanes.is_busy());
    }
}
