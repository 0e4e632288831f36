//! What a run showed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::request::Outcome;

const LONGEST: Duration = Duration::from_secs(3600);
const DIGITS: u8 = 3;

/// The status of a request for which there is no room.
const REFUSED: &str = "429";

/// What a good answer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Longest time to the first token.
    pub ttft: Duration,
    /// Longest mean time between tokens.
    pub itl: Duration,
}

/// The figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// From the start to the last answer's end.
    pub seconds: f64,
    /// Requests answered to their end.
    pub completed: u64,
    /// Requests that failed, by HTTP status or kind of failure.
    pub errors: BTreeMap<String, u64>,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Tokens of answers a second.
    pub tokens_per_second: f64,
    /// Answers a second.
    pub requests_per_second: f64,
    /// Answers a second that met the objective.
    pub goodput_per_second: f64,
    /// From when a request was due to its first text, in milliseconds.
    pub ttft_ms: Percentiles,
    /// Between two consecutive pieces of text, in milliseconds.
    pub itl_ms: Percentiles,
    /// From when a request was due to its end, in milliseconds.
    pub total_ms: Percentiles,
    /// From when a request was due to its refusal with 429, in milliseconds.
    pub refused_ms: Percentiles,
    /// What refusals said in `Retry-After`, in seconds.
    pub retry_after: Percentiles,
}

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// Nine of ten are no longer.
    pub p90: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// Mean.
    pub mean: f64,
    /// Longest.
    pub max: f64,
}

/// Collects outcomes.
pub struct Recorder {
    objective: Objective,
    started: Instant,
    ended: Instant,
    completed: u64,
    good: u64,
    errors: BTreeMap<String, u64>,
    prompt_tokens: u64,
    completion_tokens: u64,
    ttft: Histogram<u64>,
    itl: Histogram<u64>,
    total: Histogram<u64>,
    refused: Histogram<u64>,
    retry_after: Histogram<u64>,
}

impl Recorder {
    /// A run that starts now.
    pub fn new(objective: Objective) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, DIGITS);
        let now = Instant::now();
        Ok(Self {
            objective,
            started: now,
            ended: now,
            completed: 0,
            good: 0,
            errors: BTreeMap::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            ttft: histogram()?,
            itl: histogram()?,
            total: histogram()?,
            refused: histogram()?,
            retry_after: histogram()?,
        })
    }

    /// Takes in the outcome of a request that was due at `due`. Tokens of a broken answer count, its times do not.
    pub fn record(&mut self, due: Instant, outcome: Outcome) {
        self.ended = self.ended.max(outcome.ended);
        self.prompt_tokens += outcome.prompt_tokens;
        self.completion_tokens += outcome.completion_tokens;
        if let Some(error) = outcome.error {
            if error == REFUSED {
                add(&mut self.refused, outcome.ended - due);
                // As milliseconds, which `Percentiles::of` takes them for.
                outcome
                    .retry_after
                    .iter()
                    .for_each(|&s| add(&mut self.retry_after, Duration::from_millis(s)));
            }
            *self.errors.entry(error).or_default() += 1;
            return;
        }
        self.completed += 1;
        add(&mut self.total, outcome.ended - due);
        // An answer without text has only its end.
        let first = outcome.first.unwrap_or(outcome.ended);
        add(&mut self.ttft, first - due);
        outcome.gaps.iter().for_each(|gap| add(&mut self.itl, *gap));
        let decode = outcome.ended - first;
        let mean_itl =
            decode.checked_div(outcome.completion_tokens.saturating_sub(1) as u32).unwrap_or_default();
        self.good += u64::from(first - due <= self.objective.ttft && mean_itl <= self.objective.itl);
    }

    /// The figures.
    pub fn report(self) -> Report {
        let seconds = (self.ended - self.started).as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Report {
            seconds,
            completed: self.completed,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            tokens_per_second: per_second(self.completion_tokens),
            requests_per_second: per_second(self.completed),
            goodput_per_second: per_second(self.good),
            ttft_ms: Percentiles::of(&self.ttft),
            itl_ms: Percentiles::of(&self.itl),
            total_ms: Percentiles::of(&self.total),
            refused_ms: Percentiles::of(&self.refused),
            retry_after: Percentiles::of(&self.retry_after),
            errors: self.errors,
        }
    }
}

fn add(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(time.as_micros() as u64);
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let (mean, max) = (histogram.mean() / 1e3, histogram.max() as f64 / 1e3);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), mean, max }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: u64 = self.errors.values().sum();
        writeln!(f, "{} answers in {:.1} s, {failed} failed", self.completed, self.seconds)?;
        for (error, count) in &self.errors {
            writeln!(f, "  {error:<8} {count}")?;
        }
        let Self { tokens_per_second, requests_per_second, goodput_per_second, .. } = self;
        writeln!(
            f,
            "{tokens_per_second:.1} tokens/s ({} in, {} out)",
            self.prompt_tokens, self.completion_tokens
        )?;
        writeln!(f, "{requests_per_second:.2} answers/s, {goodput_per_second:.2} of them good")?;
        writeln!(f, "{:<8} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p90", "p99", "mean", "max")?;
        for (name, times) in [("TTFT", self.ttft_ms), ("ITL", self.itl_ms), ("total", self.total_ms)] {
            let Percentiles { p50, p90, p99, mean, max } = times;
            writeln!(f, "{name:<8} {p50:>9.2} {p90:>9.2} {p99:>9.2} {mean:>9.2} {max:>9.2}")?;
        }
        if self.errors.contains_key(REFUSED) {
            let (after, wait) = (self.refused_ms, self.retry_after);
            writeln!(
                f,
                "refused after {:.2} ms at p50, {:.2} at p99, to come again in {:.0} s at p50",
                after.p50, after.p99, wait.p50
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTIVE: Objective =
        Objective { ttft: Duration::from_millis(100), itl: Duration::from_millis(10) };

    fn answered(due: Instant, ttft_ms: u64, error: Option<&str>) -> Outcome {
        let first = due + Duration::from_millis(ttft_ms);
        Outcome {
            first: Some(first),
            gaps: vec![Duration::from_millis(5); 9],
            prompt_tokens: 7,
            completion_tokens: 10,
            ended: first + Duration::from_millis(45),
            error: error.map(str::to_owned),
            retry_after: error.map(|_| 3),
        }
    }

    #[test]
    fn late_answers_count_but_are_not_good_and_failures_are_counted_by_kind() {
        let mut recorder = Recorder::new(OBJECTIVE).unwrap();
        let due = recorder.started;
        recorder.record(due, answered(due, 50, None));
        recorder.record(due, answered(due, 955, None));
        recorder.record(due, answered(due, 1, Some("429")));
        let report = recorder.report();
        assert_eq!((report.completed, report.errors["429"]), (2, 1));
        assert!((report.seconds - 1.0).abs() < 1e-9);
        assert!((report.goodput_per_second - 1.0).abs() < 1e-9);
        assert!((report.itl_ms.p50 - 5.0).abs() < 0.01 && report.ttft_ms.max > 950.0);
    }

    #[test]
    fn a_run_without_answers_has_a_report() {
        let report = Recorder::new(OBJECTIVE).unwrap().report();
        assert_eq!(report.tokens_per_second, 0.0);
        assert!(report.to_string().contains("0 answers"));
    }
}
