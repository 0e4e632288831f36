//! `make bench`: what the bus costs, and what everything but the model costs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use pipelines::Pipeline;
use pipelines::graph::Overrides;
use serde_json::json;
use shard_forward::engine::ComputeDevice;
use tests::bench::direct;
use tests::bench::echo::EchoBench;
use tests::bench::engine::EngineBench;
use tests::bench::overload::OverloadBench;
use tests::bench::pipeline::PipelineBench;
use tests::bench::vision::{self, VisionBench};
use tests::bench::workload::Workload;

const EXAMPLES: &str = "\
Examples:
  bench                                  everything, in about ten minutes
  bench --only pipeline --batches 8      the pipeline beside one process, at batch 8
  bench --only echo --json               the echo engine, as JSON
  bench --only overload --seconds 10     what becomes of requests above capacity
  bench --only engine --engine-model ~/models/llama --device cuda:0 --batches 1,8,64 --steps 64";

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

    /// Entries that may wait in a queue when overloaded, in place of the pipeline file's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: Option<u32>,

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
    // One thread: the client shares the processors with what it measures.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let load = load_average()?;
    let wants = |part| args.only.is_none_or(|only| only == part);
    let pipeline = match wants(Part::Pipeline) {
        true => Some(pipeline_bench(args)?.run().await?),
        false => None,
    };
    let echo = match wants(Part::Echo) {
        true => Some(echo_bench(args).run().await?),
        false => None,
    };
    let vision = match args.vision_model.as_ref().filter(|_| wants(Part::Vision)) {
        Some(model) => Some(vision_bench(args, model.clone()).run().await?),
        None if args.only == Some(Part::Vision) => {
            anyhow::bail!("`--only vision` needs `--vision-model PATH`")
        }
        None => None,
    };
    // Other than the rest it has no peer in the same run, and takes minutes.
    let overload = match args.only {
        Some(Part::Overload) => Some(overload_bench(args).run().await?),
        _ => None,
    };
    let engine = match args.engine_model.as_ref().filter(|_| wants(Part::Engine)) {
        Some(model) => Some(engine_bench(args, model.clone()).run()?),
        None if args.only == Some(Part::Engine) => {
            anyhow::bail!("`--only engine` needs `--engine-model PATH`")
        }
        None => None,
    };
    if args.json {
        let parts = json!({
            "load_average": load, "pipeline": pipeline, "echo": echo, "vision": vision, "engine": engine, "overload": overload,
        });
        println!("{parts}");
        return Ok(());
    }
    println!(
        "Load average before the start: {load:.1}. Close to 0 is a quiet machine; more makes every figure worse.\n"
    );
    if let Some(report) = pipeline {
        println!("{report}\n");
    }
    if let Some(report) = echo {
        println!("{report}\n");
    }
    if let Some(report) = vision {
        println!("{report}\n");
    }
    if let Some(report) = engine {
        println!("{report}\n");
    }
    if let Some(report) = overload {
        println!("{report}");
    }
    Ok(())
}

fn pipeline_bench(args: &Args) -> anyhow::Result<PipelineBench> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("the program is not in a target folder")?;
    Ok(PipelineBench {
        steps: args.steps,
        rounds: args.rounds,
        batches: args.batches.clone(),
        cache: target.join("bench-model"),
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
    OverloadBench { window: Duration::from_secs(args.seconds.into()), queue: args.queue }
}

fn vision_bench(args: &Args, model: PathBuf) -> VisionBench {
    VisionBench {
        model,
        batches: vec![1, 8],
        rounds: args.rounds,
        window: Duration::from_secs(args.seconds.into()),
    }
}

fn engine_bench(args: &Args, model: PathBuf) -> EngineBench {
    EngineBench {
        model,
        device: args.device,
        batches: args.batches.clone(),
        context: args.context,
        steps: args.steps,
        prefills: args.prefill.clone(),
        rounds: args.rounds,
    }
}

/// Programs that wanted a processor in the last minute, on average.
fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().context("`/proc/loadavg` has no number")
}
