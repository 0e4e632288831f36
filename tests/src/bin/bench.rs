//! `make bench`: what the bus costs, and what everything but the model costs.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use pipelines::Pipeline;
use pipelines::graph::Overrides;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shard_forward::engine::ComputeDevice;
use tests::bench::direct;
use tests::bench::echo::EchoBench;
use tests::bench::engine::EngineBench;
use tests::bench::exactness::ExactnessBench;
use tests::bench::overload::OverloadBench;
use tests::bench::pipeline::PipelineBench;
use tests::bench::vision::{self, VisionBench};
use tests::bench::workload::Workload;

const EXAMPLES: &str = "\
Examples:
  bench                                  everything, in about ten minutes
  bench --only pipeline --batches 8      the pipeline beside one process, at batch 8
  bench --only echo --json               the echo engine, as JSON
  bench --only overload --seconds 60     what becomes of requests above capacity
  bench --only engine --engine-model ~/models/llama --device cuda:0 --batches 1,8,64 --steps 64
  bench --only exactness --rounds 4      how often answers differ, and what deterministic mode costs";

/// Tokens of each answer whose exactness is measured.
const ANSWER_TOKENS: usize = 64;

/// Measures tokens a second, latency, memory and CPU time of a whole pipeline on this machine
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, max_term_width = 110)]
struct Args {
    /// Decode steps of each sequence
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=2048))]
    steps: u32,

    /// How often each thing is measured
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Batches at which the pipeline is compared
    #[arg(long, default_value = "1,8,32", value_delimiter = ',', value_name = "N,...",
          value_parser = clap::value_parser!(u32).range(1..=128))]
    batches: Vec<u32>,

    /// Numbers of clients of the echo engine
    #[arg(long, default_value = "1,32,128", value_delimiter = ',', value_name = "N,...",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Vec<u32>,

    /// Length of each measurement with the echo engine
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// Entries that may wait in each queue when overloaded
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: u32,

    /// Element type of the model that is overloaded
    #[arg(long, default_value = "bf16", value_parser = ["f32", "bf16"])]
    dtype: String,

    /// Only one part
    #[arg(long, value_name = "PART")]
    only: Option<Part>,

    /// Model folder whose vision encoder is measured; without one, none is
    #[arg(long, value_name = "PATH")]
    vision_model: Option<PathBuf>,

    /// Model folder whose engine is measured alone; without one, none is
    #[arg(long, value_name = "PATH")]
    engine_model: Option<PathBuf>,

    /// Where the engine alone computes
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: ComputeDevice,

    /// Tokens of context at which the engine alone decodes
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    context: u32,

    /// Prompts that the engine alone prefills, in tokens
    #[arg(long, default_value = "512,2048", value_delimiter = ',', value_name = "N,...",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    prefill: Vec<u32>,
    /// Answers of each case whose exactness is measured
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    answers: u32,

    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,

    /// Run one piece of work in this process, as one side of the comparison
    #[arg(long, hide = true, requires = "work")]
    direct: Option<PathBuf>,

    /// Encode images of this model in this process, as one side of the comparison
    #[arg(long, hide = true, requires = "work")]
    direct_vision: Option<PathBuf>,

    /// The piece of work, as JSON
    #[arg(long, hide = true)]
    work: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The whole pipeline beside the same work in one process
    Pipeline,
    /// The echo engine under load
    Echo,
    /// Images through vision-encode beside the same encoder called directly
    Vision,
    /// The demo pipeline at its capacity and at three times that; only when asked for
    Overload,
    /// The engine alone beside the limits of its device
    Engine,
    /// Resumed and batched answers beside undisturbed ones, and the cost of deterministic mode; only when asked for
    Exactness,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(pipeline), Some(work)) = (&args.direct, &args.work) {
        let work: Workload = serde_json::from_str(work)?;
        let report = direct::measure(&Pipeline::read(pipeline, Overrides::default())?, &work)?;
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    if let (Some(model), Some(work)) = (&args.direct_vision, &args.work) {
        println!("{}", vision::direct(model, &serde_json::from_str(work)?)?);
        return Ok(());
    }
    if args.only == Some(Part::Exactness) {
        // Threads of libtorch wait as they do in a shard.
        shard_forward::threads::settle()?;
    }
    // One thread: the client shares the processors with what it measures.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&args))
}

/// What a part has measured, for people and for programs.
struct Measured {
    part: &'static str,
    table: String,
    json: Value,
}

impl Measured {
    fn new(part: &'static str, report: impl Display + Serialize) -> anyhow::Result<Self> {
        Ok(Self { part, table: report.to_string(), json: serde_json::to_value(&report)? })
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let load = load_average()?;
    let mut measured = Vec::new();
    for part in args.parts() {
        measured.push(match part {
            Part::Pipeline => Measured::new("pipeline", pipeline_bench(args)?.run().await?)?,
            Part::Echo => Measured::new("echo", echo_bench(args).run().await?)?,
            Part::Vision => Measured::new("vision", vision_bench(args)?.run().await?)?,
            Part::Engine => Measured::new("engine", engine_bench(args)?.run()?)?,
            Part::Exactness => Measured::new("exactness", exactness_bench(args)?.run()?)?,
            Part::Overload => Measured::new("overload", overload_bench(args).run().await?)?,
        });
    }
    if args.json {
        let parts = measured.into_iter().map(|it| (it.part.to_owned(), it.json));
        let all: Map<String, Value> = parts.chain([("load_average".to_owned(), json!(load))]).collect();
        println!("{}", Value::from(all));
        return Ok(());
    }
    println!(
        "Load average before the start: {load:.1}. Close to 0 is a quiet machine; more makes every figure worse.\n"
    );
    measured.iter().for_each(|it| println!("{}\n", it.table));
    Ok(())
}

impl Args {
    /// What is to be measured: one part, or all that compare something with a peer and have what they need.
    fn parts(&self) -> Vec<Part> {
        if let Some(only) = self.only {
            return vec![only];
        }
        let mut parts = vec![Part::Pipeline, Part::Echo];
        parts.extend(self.vision_model.as_ref().map(|_| Part::Vision));
        parts.extend(self.engine_model.as_ref().map(|_| Part::Engine));
        parts
    }
}

fn exactness_bench(args: &Args) -> anyhow::Result<ExactnessBench> {
    Ok(ExactnessBench {
        answers: args.answers as usize,
        tokens: ANSWER_TOKENS,
        steps: args.steps,
        rounds: args.rounds,
        cache: cache()?,
    })
}

/// Where models of random weights are kept.
fn cache() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).context("the program is not in a target folder")?.join("bench-model"))
}

fn pipeline_bench(args: &Args) -> anyhow::Result<PipelineBench> {
    Ok(PipelineBench {
        steps: args.steps,
        rounds: args.rounds,
        batches: args.batches.clone(),
        cache: cache()?,
    })
}

fn echo_bench(args: &Args) -> EchoBench {
    EchoBench {
        clients: args.clients.clone(),
        rounds: args.rounds,
        window: Duration::from_secs(args.seconds.into()),
    }
}

fn overload_bench(args: &Args) -> OverloadBench {
    let window = Duration::from_secs(args.seconds.into());
    OverloadBench { window, queue: args.queue, dtype: args.dtype.clone() }
}

fn vision_bench(args: &Args) -> anyhow::Result<VisionBench> {
    Ok(VisionBench {
        model: args.vision_model.clone().context("`--only vision` needs `--vision-model PATH`")?,
        batches: vec![1, 8],
        rounds: args.rounds,
        window: Duration::from_secs(args.seconds.into()),
    })
}

fn engine_bench(args: &Args) -> anyhow::Result<EngineBench> {
    Ok(EngineBench {
        model: args.engine_model.clone().context("`--only engine` needs `--engine-model PATH`")?,
        device: args.device,
        batches: args.batches.clone(),
        context: args.context,
        steps: args.steps,
        prefills: args.prefill.clone(),
        rounds: args.rounds,
    })
}

/// Programs that wanted a processor in the last minute, on average.
fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().context("`/proc/loadavg` has no number")
}
