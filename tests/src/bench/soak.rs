//! Whether a pipeline's processes grow while they serve, and whether everything is freed at the end.

use std::fmt;
use std::time::{Duration, Instant};

use pipelines::bus::Bus;
use pipelines::presence::Watch;
use schemas::presence::Room;
use tokio::task::JoinSet;

use crate::bench::growth::slope;
use crate::bench::soak_load::Load;
use crate::bench::table::Table;
use crate::bench::usage::Usage;
use crate::cluster::{BrokerHoldings, Cluster, Nats, Options};

/// As little as a tenth of the requests fills.
const JOURNAL_MIB: &str = "1";
/// Requests at a time.
const CLIENTS: usize = 32;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Share of the requests after which growth counts: caches and pools fill first.
const WARM_UP: f64 = 0.1;
/// Growth that fails a process, in KiB a request.
const SLOPE_MAX: f64 = 1.0;
/// Open files that a process may have more at the end: clients that gave up connect anew now and then.
const FILES_MAX: usize = CLIENTS / 2;
/// Time in which everything must be free after the last request.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);

/// A load and its bounds.
#[derive(Debug, Clone)]
pub struct Soak {
    /// How many requests.
    pub requests: u64,
    /// No request begins after this time.
    pub time_max: Duration,
}

/// What was seen.
#[derive(Debug)]
pub struct SoakReport {
    requests: u64,
    answered: u64,
    given_up: u64,
    seconds: f64,
    failure: Option<String>,
    histories: Vec<History>,
    /// What the broker held before the first request and after the last one.
    broker: (BrokerHoldings, BrokerHoldings),
}

/// One process over time.
#[derive(Debug)]
struct History {
    usage: Usage,
    samples: Vec<Sample>,
    /// What it held at most, and at the end.
    most: Room,
    left: Room,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    requests: u64,
    rss_kib: u64,
    files: usize,
}

impl Soak {
    /// Serves the load with the demo pipeline and watches.
    pub async fn run(&self) -> anyhow::Result<SoakReport> {
        // A journal that is full before the measurement starts: what it takes up is bounded, and is not growth.
        let mut options = Options::demo().gateway(&["--journal-mib", JOURNAL_MIB]);
        options.log = "warn".into();
        let cluster = Cluster::start(options).await?;
        let bus = Bus::connect(&cluster.nats.url(), "soak").await?;
        let watch = Watch::start(&bus).await?;
        let before = cluster.nats.holdings().await?;
        let started = Instant::now();
        let load = Load::new(cluster.api(), self.requests, started + self.time_max);
        let mut histories: Vec<History> = Usage::of_cluster(&cluster).into_iter().map(History::new).collect();
        let failure = self.watch(&load, &watch, &mut histories).await?;
        let seconds = started.elapsed().as_secs_f64();
        settle(&watch, &mut histories).await;
        let broker = (before, settle_broker(&cluster.nats, before).await?);
        let (answered, given_up) = (load.answered(), load.given_up());
        Ok(SoakReport { requests: self.requests, answered, given_up, seconds, failure, histories, broker })
    }

    /// Takes samples while the clients ask; returns the first failure.
    async fn watch(
        &self,
        load: &Load,
        watch: &Watch,
        histories: &mut [History],
    ) -> anyhow::Result<Option<String>> {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(load.clone().client());
        }
        let warm = (self.requests as f64 * WARM_UP) as u64;
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        let mut reported = Instant::now();
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    None => break,
                    Some(ended) => if let Err(error) = ended? {
                        return Ok(Some(format!("{error:#}")));
                    },
                },
                _ = tick.tick() => {}
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                eprintln!("soak: {} of {} requests", load.done(), self.requests);
            }
            for history in histories.iter_mut() {
                history.note_room(watch);
                if load.done() >= warm {
                    history.sample(load.done())?;
                }
            }
        }
        for history in histories {
            history.sample(load.done())?;
        }
        Ok(None)
    }
}

/// Waits until nothing is held, or until the deadline.
async fn settle(watch: &Watch, histories: &mut [History]) {
    let until = Instant::now() + SETTLE_DEADLINE;
    loop {
        for history in histories.iter_mut() {
            history.note_room(watch);
        }
        if Instant::now() >= until || histories.iter().all(|history| history.left == Room::default()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until the broker holds no more than `before`, or until the deadline; returns what it holds.
async fn settle_broker(nats: &Nats, before: BrokerHoldings) -> anyhow::Result<BrokerHoldings> {
    let until = Instant::now() + SETTLE_DEADLINE;
    loop {
        let now = nats.holdings().await?;
        if Instant::now() >= until || grown(before, now).is_empty() {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What the broker holds more of than before.
fn grown(before: BrokerHoldings, now: BrokerHoldings) -> Vec<String> {
    let counts = [
        ("subscriptions", before.subscriptions, now.subscriptions),
        ("consumers", before.consumers, now.consumers),
        ("queued entries", before.queued, now.queued),
    ];
    let grown = counts.into_iter().filter(|(_, before, now)| now > before);
    grown.map(|(what, before, now)| format!("the broker has {now} {what}, before {before}")).collect()
}

impl History {
    fn new(usage: Usage) -> Self {
        Self { usage, samples: Vec::new(), most: Room::default(), left: Room::default() }
    }

    fn sample(&mut self, requests: u64) -> anyhow::Result<()> {
        let (rss_kib, files) = (self.usage.rss_kib()?, self.usage.open_files()?);
        self.samples.push(Sample { requests, rss_kib, files });
        Ok(())
    }

    /// Takes in what the process announces; the broker announces nothing.
    fn note_room(&mut self, watch: &Watch) {
        let peers = watch.peers();
        let Some(used) = peers.all().find(|peer| peer.pid == self.usage.pid).map(|peer| peer.used) else {
            return;
        };
        // Where there is no KV cache, the figure says so.
        let used = Room { kv_blocks: if used.kv_blocks == u32::MAX { 0 } else { used.kv_blocks }, ..used };
        self.left = used;
        self.most = Room {
            sequences: self.most.sequences.max(used.sequences),
            kv_blocks: self.most.kv_blocks.max(used.kv_blocks),
        };
    }

    /// KiB a request.
    fn slope(&self) -> f64 {
        slope(
            &self
                .samples
                .iter()
                .map(|sample| (sample.requests as f64, sample.rss_kib as f64))
                .collect::<Vec<_>>(),
        )
    }

    fn row(&self) -> Vec<String> {
        let mib = |sample: Option<&Sample>| {
            sample.map_or("-".into(), |it| format!("{:.1}", it.rss_kib as f64 / 1024.0))
        };
        let files = |sample: Option<&Sample>| sample.map_or("-".into(), |it| it.files.to_string());
        let (first, last) = (self.samples.first(), self.samples.last());
        vec![
            self.usage.name.clone(),
            mib(first),
            mib(last),
            format!("{:+.3}", self.slope()),
            files(first),
            files(last),
            format!("{} / {}", self.most.sequences, self.left.sequences),
            format!("{} / {}", self.most.kv_blocks, self.left.kv_blocks),
        ]
    }
}

impl SoakReport {
    /// Everything that is wrong; nothing when the soak has passed.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.failure.iter().map(|failure| format!("a request failed: {failure}")).collect();
        let done = self.answered + self.given_up;
        if self.failure.is_none() && done < self.requests {
            faults.push(format!("only {done} of {} requests in the time allowed", self.requests));
        }
        for history in &self.histories {
            let name = &history.usage.name;
            let slope = history.slope();
            if slope > SLOPE_MAX {
                faults.push(format!("`{name}` grows by {slope:.2} KiB a request, more than {SLOPE_MAX}"));
            }
            if let (Some(first), Some(last)) = (history.samples.first(), history.samples.last())
                && last.files > first.files + FILES_MAX
            {
                faults.push(format!("`{name}` has {} files open, before {}", last.files, first.files));
            }
            if history.left != Room::default() {
                let Room { sequences, kv_blocks } = history.left;
                faults.push(format!("`{name}` still holds {sequences} sequences and {kv_blocks} KV blocks"));
            }
        }
        faults.extend(grown(self.broker.0, self.broker.1));
        faults
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, given_up, seconds, .. } = self;
        let rate = (answered + given_up) as f64 / seconds;
        writeln!(
            f,
            "Demo pipeline: {answered} requests answered, {given_up} given up by the client; {CLIENTS} at a time"
        )?;
        writeln!(f, "{seconds:.0} s, {rate:.1} requests a second")?;
        writeln!(
            f,
            "Start is after {:.0} % of the requests; the slope is of the least-squares line from there on",
            WARM_UP * 100.0
        )?;
        writeln!(f)?;
        let mut table = Table::new([
            "process",
            "RSS MiB start",
            "end",
            "slope KiB a request",
            "files start",
            "end",
            "sequences most / left",
            "KV blocks most / left",
        ]);
        for history in &self.histories {
            table.row(history.row());
        }
        writeln!(f, "{table}")?;
        let (before, after) = self.broker;
        write!(
            f,
            "broker, before and after: {} and {} subscriptions, {} and {} consumers, {} and {} queued entries",
            before.subscriptions,
            after.subscriptions,
            before.consumers,
            after.consumers,
            before.queued,
            after.queued
        )
    }
}
