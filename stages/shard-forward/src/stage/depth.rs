//! How many steps are on their way at once: as many as the route has processors or devices of its own, or one more when
//! measuring says that it pays.

use std::time::{Duration, Instant};

use pipelines::graph::InFlight;

/// Steps of one trial.
const TRIAL_STEPS: u32 = 32;

/// Steps for which a decision holds.
const HOLD_STEPS: u32 = 2_000;

/// The deeper pipeline must win by this much: it also costs latency.
const GAIN_MIN: f64 = 1.03;

/// After so many steps a trial of the deeper pipeline ends when it is behind: on shared cores it costs up to 40 %.
const GLANCE_STEPS: u32 = 6;

/// The number of steps on their way at once.
pub(super) struct Depth {
    fixed: Option<usize>,
    /// Distinct processors or devices along the route.
    distinct: usize,
    phase: Phase,
    /// Sequences at the last step.
    sequences: usize,
    steps: u32,
    tokens: u64,
    since: Option<Instant>,
    shallow_rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Shallow,
    Deep,
    Hold { deep: bool },
}

impl Depth {
    pub(super) fn new(setting: InFlight) -> Self {
        let fixed = match setting {
            InFlight::Auto => None,
            InFlight::Fixed(n) => Some(n as usize),
        };
        Self {
            fixed,
            distinct: 1,
            phase: Phase::Shallow,
            sequences: 0,
            steps: 0,
            tokens: 0,
            since: None,
            shallow_rate: 0.0,
        }
    }

    /// Sets how many distinct processors or devices the route has.
    pub(super) fn set_distinct(&mut self, distinct: usize) {
        self.distinct = distinct.max(1);
    }

    /// Steps that may be on their way while `sequences` decode.
    pub(super) fn limit(&self, sequences: usize) -> usize {
        let wanted = match (self.fixed, self.phase) {
            (Some(fixed), _) => fixed,
            (None, Phase::Deep | Phase::Hold { deep: true }) => self.distinct + 1,
            (None, _) => self.distinct,
        };
        wanted.min(sequences.max(1))
    }

    /// Takes in a finished step of `rows` rows that gave `tokens`.
    ///
    /// Trials compare like with like: they begin anew when the number of sequences changes or a step prefills, since either
    /// changes the rate more than the depth does. With fewer than two sequences there is nothing to compare.
    pub(super) fn record(&mut self, rows: usize, tokens: usize, sequences: usize, now: Instant) {
        if self.fixed.is_some() {
            return;
        }
        let steady = rows == tokens && sequences == self.sequences && sequences > 1;
        self.sequences = sequences;
        let holds = matches!(self.phase, Phase::Hold { .. });
        let (Some(since), true) = (self.since, steady || holds) else {
            self.phase = if holds { self.phase } else { Phase::Shallow };
            self.begin(now);
            return;
        };
        self.steps += 1;
        self.tokens += tokens as u64;
        let elapsed = now.duration_since(since).max(Duration::from_micros(1));
        let rate = self.tokens as f64 / elapsed.as_secs_f64();
        let length = match self.phase {
            Phase::Hold { .. } => HOLD_STEPS,
            Phase::Deep if rate < self.shallow_rate => GLANCE_STEPS,
            Phase::Deep | Phase::Shallow => TRIAL_STEPS,
        };
        if self.steps < length {
            return;
        }
        self.phase = match self.phase {
            Phase::Shallow => {
                self.shallow_rate = rate;
                Phase::Deep
            }
            Phase::Deep => {
                let deep = rate > self.shallow_rate * GAIN_MIN;
                tracing::debug!(deep, rate, shallow = self.shallow_rate, "steps in flight");
                Phase::Hold { deep }
            }
            Phase::Hold { .. } => Phase::Shallow,
        };
        self.begin(now);
    }

    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.steps = 0;
        self.tokens = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(depth: &mut Depth, steps: u32, step: Duration, now: &mut Instant) {
        for _ in 0..steps {
            *now += step;
            depth.record(8, 8, 8, *now);
        }
    }

    #[test]
    fn auto_keeps_the_deeper_pipeline_only_when_it_is_quicker() {
        for (deep_step, expected) in [(Duration::from_millis(7), 2), (Duration::from_millis(10), 1)] {
            let mut depth = Depth::new(InFlight::Auto);
            let mut now = Instant::now();
            run(&mut depth, TRIAL_STEPS + 1, Duration::from_millis(10), &mut now);
            assert_eq!(depth.limit(8), 2, "the trial of the deeper pipeline");
            run(&mut depth, TRIAL_STEPS, deep_step, &mut now);
            assert_eq!(depth.limit(8), expected);
        }
    }

    #[test]
    fn a_trial_counts_only_steps_of_one_kind() {
        let mut depth = Depth::new(InFlight::Auto);
        let mut now = Instant::now();
        for other in [(500, 8), (7, 7)] {
            run(&mut depth, TRIAL_STEPS - 1, Duration::from_millis(10), &mut now);
            depth.record(other.0, other.1, other.1, now);
            run(&mut depth, TRIAL_STEPS - 1, Duration::from_millis(10), &mut now);
            assert_eq!(depth.limit(8), 1, "prefill and arrivals begin the trial anew");
        }
    }

    #[test]
    fn a_trial_that_is_behind_ends_early() {
        let mut depth = Depth::new(InFlight::Auto);
        let mut now = Instant::now();
        run(&mut depth, TRIAL_STEPS + 1, Duration::from_millis(10), &mut now);
        run(&mut depth, GLANCE_STEPS - 1, Duration::from_millis(14), &mut now);
        assert_eq!(depth.limit(8), 2);
        run(&mut depth, 1, Duration::from_millis(14), &mut now);
        assert_eq!(depth.limit(8), 1);
    }

    #[test]
    fn one_sequence_is_never_in_two_steps() {
        assert_eq!(Depth::new(InFlight::Fixed(4)).limit(1), 1);
    }
}
