//! How long requests wait for their admission: what is refused while more come than can be served, and when to try again.
//!
//! The work queue is deep, for bursts. While more requests come than are served it would be full all the time, and everybody who is
//! admitted would have waited through all of it. So the wait that is allowed shrinks as the share of refused requests grows: the queue
//! that is left is only what keeps the stages busy. A door sees its own requests only; the queue is first come, first served, so what
//! they wait is what all wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::Fingerprint;

/// What was admitted or refused longer ago says nothing about now.
const RECENT: Duration = Duration::from_secs(10);
/// Recent requests are counted in parts of this length.
const PART: Duration = Duration::from_millis(500);
/// Rates are taken over this time at least: what fills an idle pipeline is admitted at once, and says nothing about how long it takes.
const RATE_OVER_MIN: Duration = Duration::from_secs(2);
/// The share of refused requests from which on the shortest wait is allowed: what comes is 1.25 times what can be served.
const OVERLOAD_SHARE: f64 = 0.2;
/// The wait that is always allowed. A queue so long keeps every stage busy, since in overload the next request is never far.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Bounds of the time after which a refused request may come again, in seconds.
const SECONDS_MIN: u32 = 1;
const SECONDS_MAX: u32 = 60;

/// Requests that wait in the same queues: of one pipeline, with images or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) fp: Fingerprint,
    pub(super) images: bool,
}

/// The waits of one door's new requests. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits(Arc<Mutex<HashMap<Line, Queue>>>);

#[derive(Debug, Default)]
struct Queue {
    /// When those that still wait began to, by their number.
    waiting: BTreeMap<u64, Instant>,
    last_number: u64,
    /// When the last one was admitted, and how long it had waited.
    admitted: Option<(Instant, Duration)>,
    recent: VecDeque<Part>,
}

/// What became of requests in a [`PART`].
#[derive(Debug)]
struct Part {
    began: Instant,
    admitted: u32,
    refused: u32,
}

/// One request that waits; dropped when it waits no longer.
#[derive(Debug)]
pub(super) struct Waiting {
    waits: Waits,
    line: Line,
    number: u64,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, HashMap<Line, Queue>> {
        // Plain values: a panic elsewhere cannot have left them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to wait. Fails with the seconds after which it may pass where it would wait longer than is allowed now.
    pub(super) fn begin(&self, line: Line, now: Instant) -> Result<Waiting, u32> {
        let mut queues = self.lock();
        let queue = queues.entry(line).or_default();
        if !queue.allows_one_more(now) {
            return Err(queue.refuse(now));
        }
        queue.last_number += 1;
        queue.waiting.insert(queue.last_number, now);
        Ok(Waiting { waits: self.clone(), line, number: queue.last_number })
    }
}

impl Queue {
    fn allows_one_more(&mut self, now: Instant) -> bool {
        self.forget(now);
        let (admitted, refused) = self.counts();
        if refused == 0 {
            return true;
        }
        let share = f64::from(refused) / f64::from(refused + admitted);
        let allowed = WAIT_MIN.as_secs_f64() * (OVERLOAD_SHARE / share).powi(2).max(1.0);
        // By Little's law: as many as are admitted within the allowed wait. One is enough to ask whether it goes on at all.
        (self.waiting.len() as f64) < (allowed * self.rate(now)).max(1.0)
    }

    /// One is refused: when it may come again. It stands behind those that wait, and behind those that were refused before it.
    fn refuse(&mut self, now: Instant) -> u32 {
        self.forget(now);
        let recent = self.admitted.filter(|(at, _)| now.duration_since(*at) < RECENT);
        let oldest = self.waiting.values().next().map(|since| now.duration_since(*since));
        let wait = recent.map(|(_, waited)| waited).max(oldest).unwrap_or_default().as_secs_f64();
        let (rate, refused) = (self.rate(now), f64::from(self.counts().1));
        let before_it = if rate > 0.0 { refused / rate } else { 0.0 };
        self.part(now).refused += 1;
        // Saturates.
        ((wait + before_it).ceil() as u32).clamp(SECONDS_MIN, SECONDS_MAX)
    }

    fn forget(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|part| now.duration_since(part.began) >= RECENT) {
            self.recent.pop_front();
        }
    }

    /// What counts now.
    fn part(&mut self, now: Instant) -> &mut Part {
        self.forget(now);
        if self.recent.back().is_none_or(|part| now.duration_since(part.began) >= PART) {
            self.recent.push_back(Part { began: now, admitted: 0, refused: 0 });
        }
        let last = self.recent.len() - 1;
        &mut self.recent[last]
    }

    /// Recently admitted and refused.
    fn counts(&self) -> (u32, u32) {
        self.recent
            .iter()
            .fold((0, 0), |(admitted, refused), part| (admitted + part.admitted, refused + part.refused))
    }

    /// Recently admitted, a second.
    fn rate(&self, now: Instant) -> f64 {
        let Some(first) = self.recent.front() else { return 0.0 };
        f64::from(self.counts().0) / now.duration_since(first.began).max(RATE_OVER_MIN).as_secs_f64()
    }
}

impl Waiting {
    /// It is admitted.
    pub(super) fn admitted(self, now: Instant) {
        let mut queues = self.waits.lock();
        let Some(queue) = queues.get_mut(&self.line) else { return };
        if let Some(since) = queue.waiting.remove(&self.number) {
            queue.admitted = Some((now, now.duration_since(since)));
            queue.part(now).admitted += 1;
        }
    }

    /// It is refused, by a queue that is full; the seconds after which it may pass.
    pub(super) fn refused(self, now: Instant) -> u32 {
        let mut queues = self.waits.lock();
        let Some(queue) = queues.get_mut(&self.line) else { return SECONDS_MIN };
        // Not as one of those who wait.
        queue.waiting.remove(&self.number);
        queue.refuse(now)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(queue) = self.waits.lock().get_mut(&self.line) {
            queue.waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { fp: Fingerprint(7), images: false };

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    /// Lets requests come every `every` seconds to a pipeline that admits one each `serves` seconds and queues at most `depth`.
    /// Gives the waits of the admitted and the number of the refused after `settled` seconds.
    fn serve((every, serves): (f64, f64), depth: usize, until: f64, settled: f64) -> (Vec<f64>, usize) {
        let (waits, start) = (Waits::default(), Instant::now());
        let mut queue: VecDeque<(f64, Waiting)> = VecDeque::new();
        let (mut admitted, mut refused) = (Vec::new(), 0);
        let (mut next, mut free) = (0.0_f64, 0.0_f64);
        while next < until {
            while let Some((came, _)) = queue.front() {
                let at = free.max(*came);
                if at > next {
                    break;
                }
                let Some((came, waiting)) = queue.pop_front() else { break };
                waiting.admitted(start + seconds(at));
                free = at + serves;
                if came >= settled {
                    admitted.push(at - came);
                }
            }
            let now = start + seconds(next);
            let is_in = match waits.begin(LINE, now) {
                Ok(waiting) if queue.len() < depth => {
                    queue.push_back((next, waiting));
                    true
                }
                Ok(waiting) => {
                    waiting.refused(now);
                    false
                }
                Err(_) => false,
            };
            refused += usize::from(!is_in && next >= settled);
            next += every;
        }
        (admitted, refused)
    }

    #[test]
    fn in_overload_the_admitted_do_not_wait_through_the_whole_queue() {
        let (waits, refused) = serve((0.014, 0.042), 256, 120.0, 40.0);
        let longest = waits.iter().copied().fold(0.0, f64::max);
        assert!(longest < 0.5, "{longest}: the whole queue is 10.8 s");
        let expected = 80.0 / 0.042;
        assert!(
            (waits.len() as f64) > 0.97 * expected,
            "{} of {expected}: stages are kept busy",
            waits.len()
        );
        assert!(refused > 3000, "{refused}");
    }

    #[test]
    fn a_queue_that_is_not_full_refuses_nobody_however_long_it_stands() {
        let (waits, start) = (Waits::default(), Instant::now());
        let mut queue: VecDeque<Waiting> = (0..200).map(|_| waits.begin(LINE, start).unwrap()).collect();
        for n in 0..1000 {
            let now = start + seconds(0.05 * f64::from(n));
            queue.pop_front().unwrap().admitted(now);
            queue.push_back(waits.begin(LINE, now).unwrap());
        }
    }

    #[test]
    fn few_refusals_shrink_the_queue_little() {
        // 2 % more than is served: the deep queue is used, and no more than that is refused.
        let (waits, refused) = serve((0.0412, 0.042), 64, 600.0, 300.0);
        let share = refused as f64 / (refused + waits.len()) as f64;
        assert!(share < 0.03, "{share}");
        assert!(waits.iter().copied().fold(0.0, f64::max) > 1.0);
    }

    #[test]
    fn after_the_overload_the_queue_is_deep_again() {
        let (waits, start) = (Waits::default(), Instant::now());
        let first = waits.begin(LINE, start).unwrap();
        waits.begin(LINE, start).unwrap().refused(start);
        assert!(waits.begin(LINE, start + seconds(1.0)).is_err(), "nothing is admitted, and one waits");
        assert!(waits.begin(Line { images: true, ..LINE }, start + seconds(1.0)).is_ok(), "another queue");
        drop(first);
        drop(waits.begin(LINE, start + seconds(2.0)).unwrap());
        let later = start + seconds(12.0);
        let many: Vec<_> = (0..100).map(|_| waits.begin(LINE, later)).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    #[test]
    fn the_refused_hear_how_long_the_admitted_waited() {
        let (waits, start) = (Waits::default(), Instant::now());
        let refused = |line, at| waits.begin(line, start + seconds(at)).unwrap().refused(start + seconds(at));
        assert_eq!(refused(LINE, 0.0), 1, "nothing known");
        waits.begin(LINE, start + seconds(10.0)).unwrap().admitted(start + seconds(14.2));
        assert_eq!(refused(LINE, 15.0), 5);
        assert_eq!(refused(Line { fp: Fingerprint(8), ..LINE }, 15.0), 1, "another pipeline");
        assert_eq!(refused(LINE, 25.0), 1, "long ago");
    }

    #[test]
    fn a_queue_that_stands_still_is_seen_by_those_in_it() {
        let (waits, start) = (Waits::default(), Instant::now());
        waits.begin(LINE, start).unwrap().admitted(start);
        let oldest = waits.begin(LINE, start).unwrap();
        let younger = waits.begin(LINE, start + seconds(5.0)).unwrap();
        let refused = |at| {
            let now = start + seconds(at);
            waits.begin(LINE, now).map_or_else(|seconds| seconds, |waiting| waiting.refused(now))
        };
        assert_eq!(refused(8.0), 8);
        assert_eq!(refused(500.0), 60, "bounded");
        drop(oldest);
        assert_eq!(refused(520.0), 60);
        drop(younger);
        assert!(waits.lock()[&LINE].waiting.is_empty());
    }

    #[test]
    fn the_refused_are_told_to_come_again_one_after_the_other() {
        let (waits, start) = (Waits::default(), Instant::now());
        for n in 0..20 {
            let now = start + seconds(0.5 * f64::from(n));
            waits.begin(LINE, now).unwrap().admitted(now);
        }
        let now = start + seconds(9.6);
        let told = (0..10).map(|_| waits.begin(LINE, now).map_or_else(|s| s, |it| it.refused(now)));
        assert_eq!(told.collect::<Vec<_>>(), [1, 1, 1, 2, 2, 3, 3, 4, 4, 5], "two a second are served");
    }
}
