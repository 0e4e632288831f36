//! How long requests wait for their admission, so that one that is refused hears when to try again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::Fingerprint;

/// A wait that ended longer ago says nothing about now.
const RECENT: Duration = Duration::from_secs(10);
/// Bounds of the answer, in seconds.
const SECONDS_MIN: u32 = 1;
const SECONDS_MAX: u32 = 60;

/// The waits of one door's new requests, by pipeline. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits(Arc<Mutex<HashMap<Fingerprint, Pipeline>>>);

#[derive(Debug, Default)]
struct Pipeline {
    /// When those that still wait began to, by their number.
    waiting: BTreeMap<u64, Instant>,
    last_number: u64,
    /// When the last one was admitted, and how long it had waited.
    admitted: Option<(Instant, Duration)>,
}

/// One request that waits; dropped when it waits no longer.
#[derive(Debug)]
pub(super) struct Waiting {
    waits: Waits,
    fp: Fingerprint,
    number: u64,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Pipeline>> {
        // Plain values: a panic elsewhere cannot have left them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to wait.
    pub(super) fn begin(&self, fp: Fingerprint, now: Instant) -> Waiting {
        let mut pipelines = self.lock();
        let pipeline = pipelines.entry(fp).or_default();
        pipeline.last_number += 1;
        pipeline.waiting.insert(pipeline.last_number, now);
        Waiting { waits: self.clone(), fp, number: pipeline.last_number }
    }

    /// Seconds after which a request that was refused may pass: by then the queue that refused it has been worked off. The queue is
    /// first come, first served, so that is as long as the last one admitted had waited, or the oldest one waits already.
    pub(super) fn retry_after_seconds(&self, fp: Fingerprint, now: Instant) -> u32 {
        let pipelines = self.lock();
        let Some(pipeline) = pipelines.get(&fp) else { return SECONDS_MIN };
        let recent = pipeline.admitted.filter(|(at, _)| now.duration_since(*at) < RECENT);
        let oldest = pipeline.waiting.values().next().map(|since| now.duration_since(*since));
        let wait = recent.map(|(_, waited)| waited).max(oldest).unwrap_or_default();
        (wait.as_secs_f64().ceil() as u32).clamp(SECONDS_MIN, SECONDS_MAX)
    }
}

impl Waiting {
    /// It is admitted.
    pub(super) fn admitted(self, now: Instant) {
        let mut pipelines = self.waits.lock();
        let Some(pipeline) = pipelines.get_mut(&self.fp) else { return };
        if let Some(since) = pipeline.waiting.get(&self.number) {
            pipeline.admitted = Some((now, now.duration_since(*since)));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(pipeline) = self.waits.lock().get_mut(&self.fp) {
            pipeline.waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FP: Fingerprint = Fingerprint(7);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_refused_hear_how_long_the_admitted_waited() {
        let (waits, start) = (Waits::default(), Instant::now());
        assert_eq!(waits.retry_after_seconds(FP, start), 1, "nothing known");
        waits.begin(FP, start).admitted(start + Duration::from_millis(4200));
        assert_eq!(waits.retry_after_seconds(FP, start + seconds(5)), 5);
        assert_eq!(waits.retry_after_seconds(Fingerprint(8), start + seconds(5)), 1, "another pipeline");
        assert_eq!(waits.retry_after_seconds(FP, start + seconds(15)), 1, "long ago");
    }

    #[test]
    fn a_queue_that_stands_still_is_seen_by_those_in_it() {
        let (waits, start) = (Waits::default(), Instant::now());
        waits.begin(FP, start).admitted(start);
        let oldest = waits.begin(FP, start);
        let younger = waits.begin(FP, start + seconds(5));
        assert_eq!(waits.retry_after_seconds(FP, start + seconds(8)), 8);
        assert_eq!(waits.retry_after_seconds(FP, start + seconds(500)), 60, "bounded");
        drop(oldest);
        assert_eq!(waits.retry_after_seconds(FP, start + seconds(8)), 3);
        drop(younger);
        assert!(waits.lock()[&FP].waiting.is_empty());
    }
}
