//! The cost of everything but the model: the echo engine under closed-loop load.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use models::{ModelFolder, Tokenizer};
use pipelines::Pipeline;

use crate::bench::echo_report::{EchoReport, LoadReport};
use crate::bench::stream::TokenClient;
use crate::bench::usage::Usage;
use crate::cluster::{Cluster, Options};

/// Tokens of each prompt, as in the peer's measurement.
pub const PROMPT_TOKENS: usize = 114;
/// Tokens of each answer, as in the peer's measurement.
pub const ANSWER_TOKENS: u32 = 64;

/// Load before the measurement of a round begins.
const RAMP: Duration = Duration::from_millis(700);

/// What is measured.
#[derive(Debug, Clone)]
pub struct EchoBench {
    /// Clients at once, each with one request at a time.
    pub clients: Vec<u32>,
    /// How often each load is measured.
    pub rounds: u32,
    /// How long each time.
    pub window: Duration,
}

/// What was counted in one window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// Tokens that arrived.
    pub tokens: usize,
    /// Times to first token of the requests whose first token arrived in the window, in seconds.
    pub ttft: Vec<f64>,
    /// Times between tokens, in seconds; of several tokens in one read each has its share of the time since the last read.
    pub itl: Vec<f64>,
    /// CPU time of each server process, in seconds.
    pub cpu: BTreeMap<String, f64>,
}

impl EchoBench {
    /// Measures every load in turns.
    pub async fn run(&self) -> anyhow::Result<EchoReport> {
        let clients_max = self.clients.iter().copied().max().unwrap_or(1);
        let mut options = Options::echo().set("shard-forward", "max_sequences", clients_max.max(64));
        options.log = "warn".into();
        let pipeline = Pipeline::read(&options.pipeline, options.overrides.clone())?;
        let prompt = prompt(&ModelFolder::open(&pipeline.path)?.load_tokenizer()?)?;
        let cluster = Cluster::start(options).await?;
        let client = TokenClient::new(&cluster.url(), &cluster.model, 1)?;
        let load =
            Load { body: client.body(&prompt, ANSWER_TOKENS), client, servers: Usage::of_cluster(&cluster) };
        let mut windows: Vec<Vec<Window>> = self.clients.iter().map(|_| Vec::new()).collect();
        for round in 0..self.rounds {
            for (index, clients) in self.clients.iter().enumerate() {
                let window = load.run(*clients, self.window).await?;
                let rate = window.tokens as f64 / window.seconds;
                eprintln!(
                    "bench: round {} of {}, echo, {clients} clients: {rate:.0} tok/s",
                    round + 1,
                    self.rounds
                );
                windows[index].push(window);
            }
        }
        let loads =
            self.clients.iter().zip(&windows).map(|(clients, windows)| LoadReport::new(*clients, windows));
        Ok(EchoReport { rounds: self.rounds, seconds: self.window.as_secs_f64(), loads: loads.collect() })
    }
}

/// Ids whose texts are one letter or digit each, so that the client can count the echoed tokens.
fn prompt(tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let is_plain = |id: &u32| match tokenizer.token_bytes(*id).as_deref() {
        Some([byte]) => byte.is_ascii_alphanumeric() && !tokenizer.is_special(*id),
        _ => false,
    };
    let plain: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(is_plain).collect();
    ensure!(!plain.is_empty(), "the echo pipeline's tokenizer has no token of one letter or digit");
    Ok(plain.into_iter().cycle().take(PROMPT_TOKENS).collect())
}

/// One kind of request, over and over.
struct Load {
    client: TokenClient,
    body: String,
    servers: Vec<Usage>,
}

impl Load {
    /// Keeps `clients` busy and counts for `length`, after a ramp.
    async fn run(&self, clients: u32, length: Duration) -> anyhow::Result<Window> {
        let gate = Gate::default();
        let tasks: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(keep_asking(self.client.clone(), self.body.clone(), gate.clone())))
            .collect();
        tokio::time::sleep(RAMP).await;
        let before = self.cpu()?;
        let from = Instant::now();
        gate.lock().open = true;
        tokio::time::sleep(length).await;
        let mut window = gate.close();
        window.seconds = from.elapsed().as_secs_f64();
        window.cpu =
            self.cpu()?.into_iter().map(|(name, after)| (name.clone(), after - before[&name])).collect();
        for task in tasks {
            task.await??;
        }
        Ok(window)
    }

    fn cpu(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        self.servers.iter().map(|server| Ok((server.name.clone(), server.cpu_seconds()?))).collect()
    }
}

async fn keep_asking(client: TokenClient, body: String, gate: Gate) -> anyhow::Result<()> {
    while !gate.lock().ended {
        let sent = Instant::now();
        let mut latest = None;
        let arrived = |at: Instant, count| gate.count(sent, &mut latest, at, count);
        client.stream(body.clone(), ANSWER_TOKENS, arrived).await?;
    }
    Ok(())
}

/// What all clients count into.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Counting>>);

#[derive(Default)]
struct Counting {
    open: bool,
    ended: bool,
    window: Window,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Counting> {
        // Plain numbers: a panic elsewhere cannot have left them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) -> Window {
        let mut counting = self.lock();
        (counting.open, counting.ended) = (false, true);
        std::mem::take(&mut counting.window)
    }

    /// Counts a read of `count` tokens; `latest` is when the same answer's last read was.
    fn count(&self, sent: Instant, latest: &mut Option<Instant>, at: Instant, count: usize) {
        let before = latest.replace(at);
        let mut counting = self.lock();
        if !counting.open {
            return;
        }
        let window = &mut counting.window;
        window.tokens += count;
        match before {
            None => {
                window.ttft.push(at.duration_since(sent).as_secs_f64());
            }
            Some(before) => {
                let share = at.duration_since(before).as_secs_f64() / count as f64;
                window.itl.extend(std::iter::repeat_n(share, count));
            }
        }
    }
}
