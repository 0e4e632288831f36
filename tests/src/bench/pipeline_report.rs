//! What the whole pipeline reached beside one process.

use std::fmt;

use serde::Serialize;

use crate::bench::arrivals::Arrivals;
use crate::bench::direct::DirectReport;
use crate::bench::direct_process::Waiting;
use crate::bench::spread::{Spread, percentile};
use crate::bench::table::Table;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineReport {
    /// OpenMP threads of the single process, and of each shard.
    pub threads: usize,
    /// Shards of the pipeline.
    pub shards: u16,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Decode steps of each sequence.
    pub steps: u32,
    /// How often each side was measured.
    pub rounds: u32,
    /// In the order in which they were asked for.
    pub batches: Vec<BatchReport>,
    /// Peak memory of each process of the pipeline, then of the single process, in KiB.
    pub peak_rss_kib: Vec<(String, u64)>,
}

/// One batch.
#[derive(Debug, Clone, Serialize)]
pub struct BatchReport {
    batch: u32,
    direct_waiting: Waiting,
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
#[derive(Debug)]
pub struct Pair {
    /// The single process.
    pub direct: DirectReport,
    /// The pipeline.
    pub pipeline: Arrivals,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direct, pipeline) = (self.direct.arrivals.decode_rate(), self.pipeline.decode_rate());
        write!(f, "direct {direct:.1} tok/s, pipeline {pipeline:.1} tok/s, ratio {:.3}", pipeline / direct)
    }
}

impl BatchReport {
    /// Of the rounds at this batch.
    pub fn new(batch: u32, waiting: Waiting, pairs: &[Pair]) -> Self {
        let direct = |pair: &Pair| pair.direct.arrivals.decode_rate();
        let pipeline = |pair: &Pair| pair.pipeline.decode_rate();
        let step_ms = |rate: f64| f64::from(batch) / rate * 1e3;
        let p50 = |firsts: Vec<f64>| percentile(&firsts, 0.5) * 1e3;
        Self {
            batch,
            direct_waiting: waiting,
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

impl PipelineReport {
    fn rates(&self) -> Table {
        let mut table = Table::new([
            "batch",
            "direct waits",
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
                row.direct_waiting.name().to_owned(),
                format!("{:.1}", row.direct_tokens_per_second),
                format!("{:.1}", row.pipeline_tokens_per_second),
                format!("{:.3}", row.ratio),
                format!("{:.3}", row.total_ratio),
                format!("{:.2}", row.added_ms_per_token),
                format!("{:.1}", row.direct_ttft_ms_p50),
                format!("{:.1}", row.pipeline_ttft_ms_p50),
            ]);
        }
        table
    }

    fn memory(&self) -> Table {
        let mut table = Table::new(["process", "peak RSS MiB"]);
        for (name, kib) in &self.peak_rss_kib {
            table.row([name.clone(), format!("{:.1}", *kib as f64 / 1024.0)]);
        }
        table
    }
}

impl fmt::Display for PipelineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prompt_tokens, steps, rounds, threads, shards, .. } = self;
        write!(
            f,
            "\
Whole pipeline over the same engine, sampling and detokenisation, called directly in one process
  model      125 M random parameters, bf16, made by this command; greedy, end of sequence ignored
  lengths    {prompt_tokens} prompt tokens, {steps} decode steps; the prompts of a batch start together
  direct     one process, all layers in one engine, {threads} OpenMP threads; whether they spin (active) or sleep (passive)
             while they wait is chosen at each batch by what is quicker
  pipeline   gateway, tokenize, {shards} of shard-forward with {threads} OpenMP threads each (they spin for half
             a millisecond, then sleep), sample, detokenize, nats-server and the HTTP client, all on the same {threads} processors
  figures    median [least–most] of {rounds} rounds, the sides in turns (ABBA), ratios of each round, median TTFT
  decode     tok/s while every sequence of the batch decodes; `with prefill` is from the first request on

{}
Aims: ratio at least 0.95 at batch 8 and 32, at most 0.6 ms added a token at batch 1.

{}
Weights are mapped files: pages that several processes share count in each.
",
            self.rates(),
            self.memory()
        )
    }
}
