//! Tokens a second of the whole pipeline over those of the same work in one process, in turns.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use pipelines::Pipeline;
use pipelines::graph::{DTypeName, Overrides, ShardForward, Stages};
use serde::Serialize;

use crate::bench::arrivals::Arrivals;
use crate::bench::direct::DirectReport;
use crate::bench::model;
use crate::bench::spread::{Spread, percentile};
use crate::bench::stream::TokenClient;
use crate::bench::table::Table;
use crate::bench::usage::Usage;
use crate::bench::workload::Workload;
use crate::cluster::{Cluster, Options};

const PROMPT_TOKENS: u32 = 64;
const SHARDS: u16 = 2;
const WARM_UP_STEPS: u32 = 16;

/// What is measured.
#[derive(Debug, Clone)]
pub struct PipelineBench {
    /// Decode steps of each sequence.
    pub steps: u32,
    /// How often each side is measured at each batch.
    pub rounds: u32,
    /// Sequences at once.
    pub batches: Vec<u32>,
    /// Where the model is kept between runs.
    pub cache: PathBuf,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineReport {
    threads: usize,
    steps: u32,
    rounds: u32,
    batches: Vec<BatchReport>,
    /// Peak memory of each process of the pipeline, then of the single process, in KiB.
    peak_rss_kib: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Serialize)]
struct BatchReport {
    batch: u32,
    direct_tokens_per_second: Spread,
    pipeline_tokens_per_second: Spread,
    /// Pipeline over direct, of each round.
    ratio: Spread,
    /// The same with prefill and everything before it.
    total_ratio: Spread,
    added_ms_per_token: Spread,
    direct_ttft_ms_p50: f64,
    pipeline_ttft_ms_p50: f64,
}

/// Both sides of one round at one batch.
struct Pair {
    direct: DirectReport,
    pipeline: Arrivals,
}

impl PipelineBench {
    /// Measures. The single process starts anew each time, so that neither its memory nor its waiting threads are there
    /// while the pipeline is measured; the pipeline stays up and is idle meanwhile.
    pub async fn run(&self) -> anyhow::Result<PipelineReport> {
        let threads = std::thread::available_parallelism()?.get();
        let pipeline = self.write_pipeline(&model::cached(&self.cache)?, threads)?;
        let mut options = Options::demo();
        (options.pipeline, options.log) = (pipeline.clone(), "warn".into());
        let cluster = Cluster::start(options).await?;
        let client = TokenClient::new(&cluster.url(), &cluster.model, model::TOKEN_TEXT_BYTES)?;
        for batch in &self.batches {
            generate(&client, &Workload { steps: WARM_UP_STEPS, ..self.workload(*batch, u32::MAX) }).await?;
        }
        let mut pairs: Vec<Vec<Pair>> = self.batches.iter().map(|_| Vec::new()).collect();
        for round in 0..self.rounds {
            for (index, batch) in self.batches.iter().enumerate() {
                // ABBA: what drifts while the bench runs weighs on both sides alike.
                let pipeline_first = (round as usize + index).is_multiple_of(2);
                let pair = measure(&pipeline, &client, &self.workload(*batch, round), pipeline_first).await?;
                eprintln!("bench: round {} of {}, batch {batch}: {pair}", round + 1, self.rounds);
                pairs[index].push(pair);
            }
        }
        let mut peak_rss_kib = Vec::new();
        for usage in Usage::of_cluster(&cluster) {
            peak_rss_kib.push((usage.name.clone(), usage.peak_rss_kib()?));
        }
        let direct_rss_kib = pairs.iter().flatten().map(|pair| pair.direct.peak_rss_kib).max();
        peak_rss_kib.push(("direct".into(), direct_rss_kib.unwrap_or(0)));
        let batches =
            self.batches.iter().zip(&pairs).map(|(batch, pairs)| BatchReport::new(*batch, pairs)).collect();
        Ok(PipelineReport { threads, steps: self.steps, rounds: self.rounds, batches, peak_rss_kib })
    }

    fn workload(&self, batch: u32, round: u32) -> Workload {
        Workload {
            batch,
            prompt_tokens: PROMPT_TOKENS,
            steps: self.steps,
            round,
            vocabulary: model::VOCABULARY,
        }
    }

    /// The file that both sides read their settings from.
    fn write_pipeline(&self, model: &Path, threads: usize) -> anyhow::Result<PathBuf> {
        let defaults = ShardForward::default();
        let batch_max = self.batches.iter().copied().max().unwrap_or(0);
        let shard_forward = ShardForward {
            shards: SHARDS,
            dtype: DTypeName::Bf16,
            threads,
            max_sequences: defaults.max_sequences.max(batch_max),
            ..defaults
        };
        let pipeline = Pipeline {
            model: "bench-125m".into(),
            path: model.to_owned(),
            deadline_seconds: 300,
            stages: Stages { shard_forward, ..Stages::default() },
        };
        let file = self.cache.join("pipeline.toml");
        std::fs::write(&file, toml::to_string(&pipeline)?)
            .with_context(|| format!("write `{}`", file.display()))?;
        // What both sides will read, checked before anything starts.
        Pipeline::read(&file, Overrides::default())?;
        Ok(file)
    }
}

async fn measure(
    pipeline: &Path,
    client: &TokenClient,
    work: &Workload,
    pipeline_first: bool,
) -> anyhow::Result<Pair> {
    if pipeline_first {
        let pipeline_arrivals = generate(client, work).await?;
        return Ok(Pair { pipeline: pipeline_arrivals, direct: direct(pipeline, work).await? });
    }
    let direct = direct(pipeline, work).await?;
    Ok(Pair { direct, pipeline: generate(client, work).await? })
}

/// Streams all answers of `work` at once.
async fn generate(client: &TokenClient, work: &Workload) -> anyhow::Result<Arrivals> {
    let tokens = work.answer_tokens();
    let bodies: Vec<String> = work.prompts().iter().map(|prompt| client.body(prompt, tokens)).collect();
    let started = Instant::now();
    let stream = |body| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(tokens as usize);
            let arrived = |at: Instant, count| {
                times.extend(std::iter::repeat_n(at.duration_since(started).as_secs_f64(), count));
            };
            client.stream(body, tokens, arrived).await?;
            anyhow::Ok(times)
        })
    };
    let streams: Vec<_> = bodies.into_iter().map(stream).collect();
    let mut arrivals = Arrivals::default();
    for stream in streams {
        arrivals.0.push(stream.await??);
    }
    Ok(arrivals)
}

/// Runs `work` in one process: this program again, whose threads wait for the next piece of work without going to sleep.
async fn direct(pipeline: &Path, work: &Workload) -> anyhow::Result<DirectReport> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .arg("--direct")
        .arg(pipeline)
        .args(["--work", &serde_json::to_string(work)?])
        .env("OMP_WAIT_POLICY", "active")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "the single process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the single process printed no report")
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direct, pipeline) = (self.direct.arrivals.decode_rate(), self.pipeline.decode_rate());
        write!(f, "direct {direct:.1} tok/s, pipeline {pipeline:.1} tok/s, ratio {:.3}", pipeline / direct)
    }
}

impl BatchReport {
    fn new(batch: u32, pairs: &[Pair]) -> Self {
        let direct = |pair: &Pair| pair.direct.arrivals.decode_rate();
        let pipeline = |pair: &Pair| pair.pipeline.decode_rate();
        let step_ms = |rate: f64| f64::from(batch) / rate * 1e3;
        let p50 = |firsts: Vec<f64>| percentile(&firsts, 0.5) * 1e3;
        Self {
            batch,
            direct_tokens_per_second: Spread::of(pairs.iter().map(direct)),
            pipeline_tokens_per_second: Spread::of(pairs.iter().map(pipeline)),
            ratio: Spread::of(pairs.iter().map(|pair| pipeline(pair) / direct(pair))),
            total_ratio: Spread::of(
                pairs.iter().map(|pair| pair.pipeline.total_rate() / pair.direct.arrivals.total_rate()),
            ),
            added_ms_per_token: Spread::of(
                pairs.iter().map(|pair| step_ms(pipeline(pair)) - step_ms(direct(pair))),
            ),
            direct_ttft_ms_p50: p50(pairs.iter().flat_map(|pair| pair.direct.arrivals.firsts()).collect()),
            pipeline_ttft_ms_p50: p50(pairs.iter().flat_map(|pair| pair.pipeline.firsts()).collect()),
        }
    }
}

impl fmt::Display for PipelineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, steps, rounds, .. } = self;
        writeln!(
            f,
            "Whole pipeline over the same engine, sampling and detokenisation called directly in one process"
        )?;
        writeln!(
            f,
            "  model      125 M random parameters, bf16, made by this command; greedy, end of sequence ignored"
        )?;
        writeln!(
            f,
            "  lengths    {PROMPT_TOKENS} prompt tokens, {steps} decode steps; prompts of a batch start together"
        )?;
        writeln!(
            f,
            "  direct     one process, all layers in one engine, {threads} OpenMP threads that spin between steps"
        )?;
        writeln!(
            f,
            "  pipeline   gateway, tokenize, {SHARDS} of shard-forward with {threads} threads each in turns on the same"
        )?;
        writeln!(
            f,
            "             {threads} processors, sample, detokenize, nats-server, and the HTTP client"
        )?;
        writeln!(
            f,
            "  figures    median [least–most] of {rounds} rounds, the sides in turns (ABBA); the ratio is of each round"
        )?;
        writeln!(
            f,
            "  decode     counts while every sequence of the batch decodes; `with prefill` counts from the first request on"
        )?;
        writeln!(f)?;
        let mut table = Table::new([
            "batch",
            "direct tok/s",
            "pipeline tok/s",
            "ratio",
            "ratio with prefill",
            "added ms a token",
            "direct TTFT ms",
            "pipeline TTFT ms",
        ]);
        for row in &self.batches {
            table.row([
                row.batch.to_string(),
                format!("{:.1}", row.direct_tokens_per_second),
                format!("{:.1}", row.pipeline_tokens_per_second),
                format!("{:.3}", row.ratio),
                format!("{:.3}", row.total_ratio),
                format!("{:.2}", row.added_ms_per_token),
                format!("{:.1}", row.direct_ttft_ms_p50),
                format!("{:.1}", row.pipeline_ttft_ms_p50),
            ]);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "Aims: ratio at least 0.95 at batch 8 and 32; at most 0.6 ms added a token at batch 1. TTFT is the median."
        )?;
        writeln!(f)?;
        let mut memory = Table::new(["process", "peak RSS MiB"]);
        for (name, kib) in &self.peak_rss_kib {
            memory.row([name.clone(), format!("{:.1}", *kib as f64 / 1024.0)]);
        }
        writeln!(f, "{memory}")?;
        writeln!(f, "Weights are mapped files: pages that several processes share count in each.")
    }
}
