//! `make chaos`: faults of every process under load, and what became of every answer.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tests::Options;
use tests::chaos::cell::{Arena, Plan, Row};
use tests::chaos::matrix::{Cell, Fault, matrix};
use tests::chaos::question;
use tests::chaos::report::Report;
use tests::cluster::Namespace;

const EXAMPLES: &str = "\
Examples:
  chaos                                             the whole matrix, in about twenty minutes
  chaos --only 'kill shard' --strikes 20            the shards, 20 kills each
  chaos --only kill --strikes 1 --requests 800      the columns that other systems publish: 8 clients, 100 requests each
  chaos --only kill --default-mode                  how many answers change without deterministic mode";

/// Strikes every process of the demo pipeline with every fault under load, and compares each answer with an undisturbed one
#[derive(Debug, Parser)]
#[command(name = "chaos", version, after_help = EXAMPLES, max_term_width = 110)]
struct Args {
    /// Only cells whose name (`kill sample`) has this in it
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,

    /// Faults of a cell
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    strikes: u32,

    /// Requests of a cell, at least
    #[arg(long, default_value_t = 0, value_name = "N")]
    requests: u64,

    /// Clients at a time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,

    /// Processes of each role
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4))]
    replicas: u32,

    /// Element type of the model
    #[arg(long, default_value = "bf16", value_parser = ["f32", "bf16"])]
    dtype: String,

    /// Compute in the default mode, in which an answer that resumes may change, instead of deterministically
    #[arg(long)]
    default_mode: bool,

    /// Where random numbers begin
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Print the names of the cells and do nothing
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut cells: Vec<Cell> =
        matrix().into_iter().filter(|cell| cell.to_string().contains(&args.only)).collect();
    if cells.is_empty() {
        eprintln!("chaos: `--only {}` is in no cell's name; --list shows them", args.only);
        return Ok(ExitCode::from(2));
    }
    if args.list {
        cells.iter().for_each(|cell| println!("{cell}"));
        return Ok(ExitCode::SUCCESS);
    }
    leave_out_what_is_not_allowed(&mut cells);
    if cells.is_empty() {
        return Ok(ExitCode::from(2));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(&args, &cells))?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => println!("{report}"),
    }
    let faults = report.faults(!args.default_mode);
    for fault in &faults {
        eprintln!("FAILED: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says so when there are cells that this machine or user cannot run.
fn leave_out_what_is_not_allowed(cells: &mut Vec<Cell>) {
    if !cells.iter().any(|cell| cell.fault == Fault::Drop) {
        return;
    }
    if let Err(error) = Namespace::allowed() {
        eprintln!("chaos: without cells of dropped packets, which need root, `ip` and `tc`: {error:#}");
        cells.retain(|cell| cell.fault != Fault::Drop);
    }
}

/// Neighbouring cells share a cluster where they can.
async fn run(args: &Args, cells: &[Cell]) -> anyhow::Result<Report> {
    let questions = Arc::new(question::all()?);
    let mut options = Options::demo().set("shard-forward", "dtype", args.dtype.as_str()).set(
        "shard-forward",
        "deterministic",
        !args.default_mode,
    );
    options.replicas = args.replicas;
    let plan = Plan {
        options,
        clients: usize::from(args.clients),
        strikes: args.strikes,
        requests: args.requests,
        seed: args.seed,
    };
    let mut report = Report::default();
    for group in cells.chunk_by(Cell::shares_cluster_with) {
        let mut arena = Arena::open(&plan, questions.clone(), group[0]).await?;
        if report.rows.is_empty() {
            report.rows.push(arena.calm().await?);
        }
        for cell in group {
            match arena.run(*cell).await {
                Ok(row) => {
                    eprintln!("chaos: {row}");
                    report.rows.push(row);
                }
                Err(error) => {
                    eprintln!("chaos: {cell}: {error:#}");
                    report.rows.push(Row::broken(cell, &error));
                    arena = Arena::open(&plan, questions.clone(), *cell).await?;
                }
            }
        }
    }
    Ok(report)
}
