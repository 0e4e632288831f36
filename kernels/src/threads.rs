//! Threads that stay, for work in pieces that do not depend on each other.
#![allow(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread without work spins before it sleeps: longer than the gaps within a step, and no more, since a shard
/// of another process may wait for the core.
const SPIN: Duration = Duration::from_micros(100);

/// The calling thread and others that help it.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held for the length of a job: there is one at a time.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A new job, or the end.
    wake: Condvar,
    /// The last helper has left the job.
    left: Condvar,
    /// Counts changes of `state` that helpers wait for, so that they can spin without the lock. Changes under it only.
    changes: AtomicU64,
    /// The next piece of the job that nobody has taken.
    next: AtomicUsize,
    /// Helpers that have taken the job and may still use it. Changes under the lock only.
    inside: AtomicUsize,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    sleeping: usize,
    panicked: bool,
    ended: bool,
}

/// Pieces `0..pieces` of something.
#[derive(Clone, Copy)]
struct Job {
    work: &'static (dyn Fn(usize) + Sync),
    pieces: usize,
}

impl Threads {
    /// `count` threads with the caller's, at least that one.
    pub fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            left: Condvar::new(),
            changes: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
        });
        let helper = |_| {
            let shared = shared.clone();
            thread::spawn(move || shared.help())
        };
        Self { helpers: (1..count).map(helper).collect(), shared, turn: Mutex::new(()) }
    }

    /// How many, with the caller's.
    pub fn count(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` with every chunk of `length` elements of `data`, the last one perhaps shorter, and its number, on all
    /// threads. Must not be called from within `work`.
    pub fn chunks<T: Send>(&self, data: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let pieces = data.len().div_ceil(length.max(1));
        if self.helpers.is_empty() || pieces < 2 {
            data.chunks_mut(length.max(1)).enumerate().for_each(|(piece, chunk)| work(piece, chunk));
            return;
        }
        let elements = data.len();
        let start = Start(data.as_mut_ptr());
        self.run(pieces, &|piece| {
            let from = piece * length;
            let count = length.min(elements - from);
            // SAFETY: the elements from `from` are within `data`, which is borrowed until `run` returns. `run` calls this
            // once for each piece, and the ranges of different pieces do not overlap. `T` may be sent to this thread.
            work(piece, unsafe { std::slice::from_raw_parts_mut(start.at(from), count) });
        });
    }

    /// Calls `work` once for each of `0..pieces`, on all threads, and returns when all calls have.
    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime changes. Helpers use the reference only between counting themselves into `inside`,
        // which they do while they find the job under the lock, and out again. `Recall` takes the job away under the same
        // lock and waits until nobody is inside, before this function is left, even by a panic.
        let work =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
        let job = Job { work, pieces };
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.change(|state| state.job = Some(job));
        let recall = Recall(&self.shared);
        self.shared.work_on(job);
        drop(recall);
        let panicked = std::mem::take(&mut self.shared.lock().panicked);
        assert!(!panicked, "a piece of work panicked on another thread");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.change(|state| state.ended = true);
        for helper in self.helpers.drain(..) {
            // It catches what its work panics with, so there is no error.
            let _ = helper.join();
        }
    }
}

/// Ends a job when it is dropped: afterwards no helper has it.
struct Recall<'a>(&'a Shared);

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        self.0.lock().job = None;
        // From here on nobody comes in.
        spin_until(|| self.0.inside.load(Ordering::Relaxed) == 0);
        let mut state = self.0.lock();
        while self.0.inside.load(Ordering::Relaxed) > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.changes.fetch_add(1, Ordering::Relaxed);
        if state.sleeping > 0 {
            self.wake.notify_all();
        }
    }

    /// Takes pieces of `job` until none is left.
    fn work_on(&self, job: Job) {
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= job.pieces {
                return;
            }
            (job.work)(piece);
        }
    }

    /// What a helper does all its life.
    fn help(&self) {
        let mut seen = 0;
        loop {
            spin_until(|| self.changes.load(Ordering::Relaxed) != seen);
            let mut state = self.lock();
            while self.changes.load(Ordering::Relaxed) == seen {
                state.sleeping += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.sleeping -= 1;
            }
            seen = self.changes.load(Ordering::Relaxed);
            if state.ended {
                return;
            }
            let Some(job) = state.job else { continue };
            self.inside.fetch_add(1, Ordering::Relaxed);
            drop(state);
            let done = panic::catch_unwind(AssertUnwindSafe(|| self.work_on(job)));
            let mut state = self.lock();
            state.panicked |= done.is_err();
            if self.inside.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.left.notify_all();
            }
        }
    }
}

/// Returns when `done` says so, or after `SPIN`.
fn spin_until(done: impl Fn() -> bool) {
    const LOOPS: usize = 64;
    let started = Instant::now();
    while started.elapsed() < SPIN {
        for _ in 0..LOOPS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("sleeping", &self.sleeping)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Where a slice begins.
struct Start<T>(*mut T);

// SAFETY: threads only get parts of the slice that do not overlap, as `chunks` says, and its elements may be sent.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_worked_on_once() {
        for count in [0, 1, 2, 5] {
            let threads = Threads::new(count);
            for (elements, length) in [(0, 3), (1, 3), (7, 1), (1000, 7), (64, 64)] {
                for _ in 0..100 {
                    let mut data = vec![0_usize; elements];
                    threads.chunks(&mut data, length, |number, chunk| {
                        chunk.iter_mut().for_each(|element| *element += number + 1);
                    });
                    assert!((0..elements).all(|i| data[i] == i / length + 1), "{count} {elements} {length}");
                }
            }
        }
    }

    #[test]
    fn sleeping_threads_wake_and_end() {
        let threads = Threads::new(3);
        let barrier = std::sync::Barrier::new(3);
        for _ in 0..3 {
            // Nobody gets past before all three are at work.
            threads.chunks(&mut [0; 3], 1, |_, _| {
                barrier.wait();
            });
            thread::sleep(2 * SPIN);
        }
        drop(threads);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_live_on() {
        let threads = Threads::new(2);
        for piece in 0..64 {
            let mut data = [0_u8; 64];
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                threads.chunks(&mut data, 1, |number, _| assert_ne!(number, piece));
            }));
            assert!(result.is_err());
        }
        let mut data = [0_u8; 64];
        threads.chunks(&mut data, 1, |_, chunk| chunk[0] = 1);
        assert_eq!(data, [1; 64]);
    }
}
