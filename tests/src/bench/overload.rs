//! What happens above capacity: whether the admitted are served as before, and how soon and honestly the rest is refused.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
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
/// How close the search for the capacity comes.
const PRECISION: f64 = 0.05;
/// Rates that are tried at most.
const TRIES_MAX: usize = 12;
const CLIENTS: usize = 16;
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);
const OBJECTIVE: Objective = Objective { ttft: Duration::from_millis(500), itl: Duration::from_millis(50) };

/// Open-loop load at and above the capacity of the demo pipeline.
#[derive(Debug, Clone)]
pub struct OverloadBench {
    /// Length of each measurement.
    pub window: Duration,
    /// Entries that may wait in each queue; none takes what the pipeline file says.
    pub queue: Option<u32>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct OverloadReport {
    capacity: f64,
    at_capacity: Report,
    above: Report,
}

impl OverloadBench {
    /// Looks for the capacity, then measures at it and above it.
    pub async fn run(&self) -> anyhow::Result<OverloadReport> {
        let mut options = Options::demo();
        if let Some(queue) = self.queue {
            options = options.set("tokenize", "queue", queue).set("shard-forward", "queue", queue);
        }
        options.log = "warn".into();
        let cluster = Cluster::start(options).await?;
        let target = Target::new(&cluster.url(), &cluster.model, None, REQUEST_DEADLINE)?;
        let work = Workload::default();
        let busy = || closed_loop(&target, &work, OBJECTIVE, CLIENTS, Until::Elapsed(self.window));
        // Kernels meet their shapes first.
        answered_or_refused(&busy().await?).with_context(|| format!("with {CLIENTS} clients at first"))?;
        let busy = busy().await?;
        answered_or_refused(&busy).with_context(|| format!("with {CLIENTS} clients"))?;
        eprintln!("bench: overload, {CLIENTS} clients: {:.1} answers/s", busy.requests_per_second);
        let capacity = self.capacity(&target, busy.requests_per_second).await?;
        let at_capacity = self.at_rate(&target, capacity).await?;
        let above = self.at_rate(&target, TIMES * capacity).await?;
        Ok(OverloadReport { capacity, at_capacity, above })
    }

    /// The highest rate, in requests a second, with under one percent refused.
    async fn capacity(&self, target: &Target, guess: f64) -> anyhow::Result<f64> {
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut rate = guess;
        for _ in 0..TRIES_MAX {
            if high - low <= PRECISION * high.min(rate) {
                break;
            }
            let report = self.at_rate(target, rate).await?;
            if refused(&report) < REFUSED_MAX {
                low = rate
            } else {
                high = rate
            }
            rate = if high.is_infinite() { 1.25 * low } else { (low + high) / 2.0 };
        }
        ensure!(low > 0.0, "no rate without refusals");
        Ok(low)
    }

    async fn at_rate(&self, target: &Target, per_second: f64) -> anyhow::Result<Report> {
        let arrivals = Arrivals { per_second, concurrent_max: 4096 };
        let report =
            open_loop(target, &Workload::default(), OBJECTIVE, arrivals, Until::Elapsed(self.window)).await?;
        answered_or_refused(&report).with_context(|| format!("at {per_second:.1} requests/s"))?;
        eprintln!("bench: overload, {per_second:.1} requests/s: {:.1} % refused", 100.0 * refused(&report));
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
        let Self { capacity, at_capacity, above } = self;
        writeln!(f, "Overload: the demo pipeline, 114 tokens in, 64 out, Poisson arrivals; milliseconds")?;
        writeln!(
            f,
            "Capacity is the highest rate with under 1 % refused; the aim above it is {RATIO_MAX}\n"
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
        table.row(row("answers/s", |report| report.requests_per_second));
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
