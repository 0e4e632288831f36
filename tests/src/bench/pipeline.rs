//! Tokens a second of the whole pipeline over those of the same work in one process, in turns.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use pipelines::Pipeline;
use pipelines::graph::{DTypeName, Overrides, ShardForward, Stages};

use crate::bench::arrivals::Arrivals;
use crate::bench::direct::DirectReport;
use crate::bench::direct_process::{self, Waiting};
use crate::bench::model;
use crate::bench::pipeline_report::{BatchReport, Pair, PipelineReport};
use crate::bench::stream::TokenClient;
use crate::bench::usage::Usage;
use crate::bench::workload::Workload;
use crate::cluster::{Cluster, Options};

const PROMPT_TOKENS: u32 = 64;
const SHARDS: u16 = 2;
const WARM_UP_STEPS: u32 = 16;
const WAKE_UP_STEPS: u32 = 4;

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
        let mut waiting = Vec::new();
        for batch in &self.batches {
            let warm_up = self.workload(*batch, u32::MAX);
            generate(&client, &Workload { steps: WARM_UP_STEPS, ..warm_up }).await?;
            waiting.push(Waiting::best(&pipeline, &warm_up).await?);
        }
        let mut pairs: Vec<Vec<Pair>> = self.batches.iter().map(|_| Vec::new()).collect();
        for round in 0..self.rounds {
            for (index, batch) in self.batches.iter().enumerate() {
                // ABBA: what drifts while the bench runs weighs on both sides alike.
                let pipeline_first = (round as usize + index).is_multiple_of(2);
                let work = self.workload(*batch, round);
                let direct = direct_process::run(&pipeline, &work, waiting[index]);
                let through = async {
                    // The single process has just loaded and computed; the pipeline has been idle.
                    generate(&client, &Workload { steps: WAKE_UP_STEPS, round: u32::MAX, ..work }).await?;
                    generate(&client, &work).await
                };
                let pair = measure(direct, through, pipeline_first).await?;
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
        let batches = self
            .batches
            .iter()
            .zip(&waiting)
            .zip(&pairs)
            .map(|((batch, waiting), pairs)| BatchReport::new(*batch, *waiting, pairs));
        Ok(PipelineReport {
            threads,
            shards: SHARDS,
            prompt_tokens: PROMPT_TOKENS,
            steps: self.steps,
            rounds: self.rounds,
            batches: batches.collect(),
            peak_rss_kib,
        })
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
    direct: impl Future<Output = anyhow::Result<DirectReport>>,
    pipeline: impl Future<Output = anyhow::Result<Arrivals>>,
    pipeline_first: bool,
) -> anyhow::Result<Pair> {
    if pipeline_first {
        let pipeline = pipeline.await?;
        return Ok(Pair { pipeline, direct: direct.await? });
    }
    let direct = direct.await?;
    Ok(Pair { direct, pipeline: pipeline.await? })
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
