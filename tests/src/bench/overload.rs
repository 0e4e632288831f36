//! What happens above capacity: whether the admitted are served as before, and how soon and honestly the rest is refused.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use loadtest::report::Percentiles;
use loadtest::{Arrivals, Objective, Report, Target, Until, Workload, closed_loop, open_loop};
use serde::Serialize;

use crate::bench::table::Table;
use crate::cluster::{Cluster, Options};

/// Share of requests refused at which a rate is above capacity.
const REFUSED_MAX: f64 = 0.01;
/// How far above capacity the overload is.
const TIMES: f64 = 3.0;
/// How much longer than at capacity the admitted may wait for tokens.
const RATIO_MAX: f64 = 1.3;
/// Rates that are tried for the capacity, in parts of the rate of answers when there is always more to do: from the one at which
/// all but the share that counts as capacity is answered, downwards.
const TRIES: [f64; 5] = [1.0099, 1.0, 0.98, 0.95, 0.9];
/// Sequences computed together, in the demo pipeline.
const SEQUENCES: u32 = 64;
/// How many times as long as needed the queue is filled.
const FILL_TIMES: f64 = 1.5;
/// A rate comes for so long before it is measured: longer than a gateway remembers what it refused.
const SETTLE: Duration = Duration::from_secs(15);
/// Twice so long, before anything is measured.
const WARM_UP: Duration = Duration::from_secs(8);
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);
const OBJECTIVE: Objective = Objective { ttft: Duration::from_millis(500), itl: Duration::from_millis(50) };

/// Open-loop load at and above the capacity of the demo pipeline.
#[derive(Debug, Clone)]
pub struct OverloadBench {
    /// Length of each measurement.
    pub window: Duration,
    /// Entries that may wait in each queue.
    pub queue: u32,
    /// Element type of the model.
    pub dtype: String,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct OverloadReport {
    queue: u32,
    dtype: String,
    capacity: f64,
    /// A second, at capacity and above it.
    admitted: [f64; 2],
    at_capacity: Report,
    above: Report,
}

impl OverloadBench {
    /// Measures above capacity, then at it.
    ///
    /// Every measurement begins after an overload that filled the queue, so that none profits from a queue that takes long to become
    /// full.
    pub async fn run(&self) -> anyhow::Result<OverloadReport> {
        let mut options = Options::demo()
            .set("tokenize", "queue", self.queue)
            .set("shard-forward", "queue", self.queue)
            .set("shard-forward", "dtype", self.dtype.as_str());
        options.log = "warn".into();
        let cluster = Cluster::start(options).await?;
        let target = Target::new(&cluster.url(), &cluster.model, None, REQUEST_DEADLINE)?;
        let clients = (SEQUENCES + self.queue) as usize;
        let work = Workload::default();
        let busy = || closed_loop(&target, &work, OBJECTIVE, clients, Until::Elapsed(WARM_UP));
        // Kernels meet their shapes first.
        answered_or_refused(&busy().await?).with_context(|| format!("with {clients} clients at first"))?;
        let guess = busy().await?.requests_per_second;
        eprintln!("bench: overload, {clients} clients: {guess:.1} answers/s");
        let above = self.at_rate(&target, TIMES * guess, guess).await?;
        let most = self.admitted(&above);
        for part in TRIES {
            let rate = part * most;
            let at_capacity = self.at_rate(&target, rate, most).await?;
            if refused(&at_capacity) < REFUSED_MAX {
                // Beside the true capacity, not the one guessed at first.
                let above = self.at_rate(&target, TIMES * rate, most).await?;
                let admitted = [&at_capacity, &above].map(|report| self.admitted(report));
                let (queue, dtype) = (self.queue, self.dtype.clone());
                return Ok(OverloadReport { queue, dtype, capacity: rate, admitted, at_capacity, above });
            }
        }
        bail!("more than 1 % were refused even at {:.2} of the rate of answers", TRIES[TRIES.len() - 1])
    }

    /// Requests of a measurement that were admitted, a second of its window.
    fn admitted(&self, report: &Report) -> f64 {
        report.completed as f64 / self.window.as_secs_f64()
    }

    /// Requests at `per_second`, after an overload of a pipeline that gives `most` answers a second. Neither the overload nor the first
    /// [`SETTLE`] are counted.
    async fn at_rate(&self, target: &Target, per_second: f64, most: f64) -> anyhow::Result<Report> {
        let places = f64::from(SEQUENCES + self.queue);
        // At three times what is answered, two thirds stay; then the queue is worked off, as far as it is while more come.
        let fill = Duration::from_secs_f64(FILL_TIMES * places / ((TIMES - 1.0) * most));
        let work_off = Duration::from_secs_f64(f64::from(self.queue) / most);
        let load = async |after, per_second, time| {
            tokio::time::sleep(after).await;
            let arrivals = Arrivals { per_second, concurrent_max: 4096 };
            open_loop(target, &Workload::default(), OBJECTIVE, arrivals, Until::Elapsed(time)).await
        };
        let overload = fill + work_off;
        let (filler, _, report) = tokio::try_join!(
            load(Duration::ZERO, TIMES * most, overload),
            load(overload, per_second, SETTLE),
            load(overload + SETTLE, per_second, self.window),
        )?;
        answered_or_refused(&report).with_context(|| format!("at {per_second:.1} requests/s"))?;
        ensure!(refused(&filler) > 0.0, "the queue was not full after {:.1} s", fill.as_secs_f64());
        let (share, admitted) = (100.0 * refused(&report), self.admitted(&report));
        eprintln!(
            "bench: overload, {per_second:.1} requests/s: {admitted:.1} admitted, {share:.1} % refused"
        );
        Ok(report)
    }
}

/// Fails when a request ended otherwise.
fn answered_or_refused(report: &Report) -> anyhow::Result<()> {
    ensure!(report.errors.keys().all(|error| *error == "429"), "{:?}", report.errors);
    Ok(())
}

/// The share of requests that were refused.
fn refused(report: &Report) -> f64 {
    let refused = report.errors.get("429").copied().unwrap_or(0) as f64;
    refused / (refused + report.completed as f64).max(1.0)
}

impl fmt::Display for OverloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, dtype, capacity, admitted, at_capacity, above } = self;
        writeln!(
            f,
            "Overload: the demo pipeline in {dtype}, 114 tokens in, 64 out, Poisson arrivals; milliseconds"
        )?;
        writeln!(
            f,
            "Capacity is the highest rate with under 1 % refused, with a queue of {queue}, after an overload; the aim above it is {RATIO_MAX}\n"
        )?;
        let header = "|at capacity|at 3 times|ratio";
        let mut table = Table::new(header.split('|'));
        let row = |name: &str, of: fn(&Report) -> f64| {
            let (calm, over) = (of(at_capacity), of(above));
            [name.to_owned(), format!("{calm:.1}"), format!("{over:.1}"), format!("{:.2}", over / calm)]
        };
        table.row([
            "requests/s".into(),
            format!("{capacity:.1}"),
            format!("{:.1}", TIMES * capacity),
            String::new(),
        ]);
        let [calm, over] = admitted;
        let ratio = over / calm;
        table.row(["admitted/s".into(), format!("{calm:.1}"), format!("{over:.1}"), format!("{ratio:.2}")]);
        table.row(row("TTFT p50", |report| report.ttft_ms.p50));
        table.row(row("TTFT p99", |report| report.ttft_ms.p99));
        table.row(row("ITL p50", |report| report.itl_ms.p50));
        table.row(row("ITL p99", |report| report.itl_ms.p99));
        let percent = |report| format!("{:.1}", 100.0 * refused(report));
        table.row(["refused %".into(), percent(at_capacity), percent(above), String::new()]);
        let Percentiles { p50, p99, .. } = above.refused_ms;
        table.row(["429 after p50".into(), String::new(), format!("{p50:.1}"), String::new()]);
        table.row(["429 after p99".into(), String::new(), format!("{p99:.1}"), String::new()]);
        let wait = above.retry_after.mean;
        table.row(["Retry-After s, mean".into(), String::new(), format!("{wait:.1}"), String::new()]);
        write!(f, "{table}")
    }
}
