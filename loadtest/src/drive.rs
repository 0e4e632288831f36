//! When requests are made: as soon as a client is free, or when they arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::report::{Objective, Recorder, Report};
use crate::request::Target;
use crate::workload::{Workload, exponential};

/// When a run makes no more requests. Those that are on their way are waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// After this many.
    Requests(u64),
    /// After this time.
    Elapsed(Duration),
}

/// Requests that come whether or not earlier ones were answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    /// Mean number a second; the times between them are exponentially distributed.
    pub per_second: f64,
    /// Requests on their way at once; the others wait, and their waiting counts.
    pub concurrent_max: usize,
}

struct Run {
    target: Target,
    workload: Workload,
    recorder: Mutex<Recorder>,
    started: Instant,
    until: Until,
}

/// Lets each of `clients` make its next request when its last one has been answered.
pub async fn closed_loop(
    target: &Target,
    workload: &Workload,
    objective: Objective,
    clients: usize,
    until: Until,
) -> anyhow::Result<Report> {
    let run = Arc::new(Run::new(target, workload, objective, until)?);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (run, next) = (run.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let (index, due) = (next.fetch_add(1, Ordering::Relaxed), Instant::now());
                if run.is_over(index, due) {
                    return;
                }
                run.make(index, due).await;
            }
        });
    }
    finish(run, tasks).await
}

/// Makes requests as they arrive. Times count from the arrival, so a slow server cannot hide behind its own slowness.
pub async fn open_loop(
    target: &Target,
    workload: &Workload,
    objective: Objective,
    arrivals: Arrivals,
    until: Until,
) -> anyhow::Result<Report> {
    anyhow::ensure!(arrivals.per_second > 0.0, "the arrival rate must be more than 0");
    let run = Arc::new(Run::new(target, workload, objective, until)?);
    let permits = Arc::new(Semaphore::new(arrivals.concurrent_max));
    let mut random = StdRng::seed_from_u64(workload.seed);
    let mut due = run.started;
    let mut tasks = JoinSet::new();
    for index in 0.. {
        due += Duration::from_secs_f64(exponential(&mut random) / arrivals.per_second);
        if run.is_over(index, due) {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let (run, permits) = (run.clone(), permits.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            run.make(index, due).await;
        });
        while tasks.try_join_next().is_some() {}
    }
    finish(run, tasks).await
}

async fn finish(run: Arc<Run>, tasks: JoinSet<()>) -> anyhow::Result<Report> {
    tasks.join_all().await;
    let run = Arc::into_inner(run).ok_or_else(|| anyhow::anyhow!("a request outlived the run"))?;
    Ok(run.recorder.into_inner().unwrap_or_else(PoisonError::into_inner).report())
}

impl Run {
    fn new(target: &Target, workload: &Workload, objective: Objective, until: Until) -> anyhow::Result<Self> {
        let recorder = Mutex::new(Recorder::new(objective)?);
        let (target, workload) = (target.clone(), workload.clone());
        Ok(Self { target, workload, recorder, started: Instant::now(), until })
    }

    /// Whether request number `index`, due at `due`, is beyond the end.
    fn is_over(&self, index: u64, due: Instant) -> bool {
        match self.until {
            Until::Requests(count) => index >= count,
            Until::Elapsed(time) => due - self.started >= time,
        }
    }

    async fn make(&self, index: u64, due: Instant) {
        let body = self.workload.body(&self.target.model, index);
        let outcome = self.target.ask(self.workload.path(), &body).await;
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).record(due, outcome);
    }
}

#[cfg(test)]
mod tests;
