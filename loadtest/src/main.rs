//! `loadtest`: puts load on a server and prints what came of it.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use loadtest::{Api, Arrivals, Lengths, Objective, Report, Target, Until, Workload, closed_loop, open_loop};

const EXAMPLES: &str = "\
Examples:
  loadtest --clients 32 --requests 320                     32 clients, each asks again when answered
  loadtest --rate 20 --duration 30 --prompt-tokens 16..256 20 requests a second, whatever the server does
  loadtest --model tokenway-echo --clients 128 --requests 1280 --json

Exit codes: 0 every request was answered, 1 some failed, 2 wrong usage.";

/// Load over HTTP: times to first token and between tokens, goodput, tokens a second
#[derive(Parser)]
#[command(name = "loadtest", version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The server
    #[arg(long, env = "TOKENWAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Model id
    #[arg(long, default_value = "tokenway-demo")]
    model: String,
    /// Bearer key, where the server asks for one
    #[arg(long, env = "TOKENWAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Open loop: mean arrivals a second, Poisson
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "clients", value_parser = rate)]
    rate: Option<f64>,
    /// Open loop: requests on their way at once
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "rate")]
    concurrent: usize,
    /// Closed loop: clients that each ask again when answered [default: 1]
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// Stop after this many requests [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Endpoint: completions over token ids, or chat over as many letters
    #[arg(long, value_enum, default_value_t = ApiName::Completions)]
    api: ApiName,
    /// Prompt lengths: N, FIRST..LAST (uniform) or exp:MEAN
    #[arg(long, value_name = "LENGTHS", default_value = "114")]
    prompt_tokens: Lengths,
    /// Token ids that prompts are made of, without the last [default: the bytes a to z]
    #[arg(long, value_name = "FIRST..END", default_value = "97..123", value_parser = ids)]
    ids: Range<u32>,
    /// Tokens of each answer
    #[arg(long, default_value_t = 64)]
    max_tokens: u32,
    /// Let the model end its answers; also for servers that do not know `ignore_eos`
    #[arg(long)]
    stop_at_eos: bool,
    /// Randomness of the answers
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Seed of prompts and arrivals
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// An answer is good when its first token comes within this time
    #[arg(long, value_name = "MS", default_value_t = 500)]
    good_ttft_ms: u64,
    /// An answer is good when the mean time between its tokens is at most this
    #[arg(long, value_name = "MS", default_value_t = 50)]
    good_itl_ms: u64,
    /// Longest time of one request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ApiName {
    Completions,
    Chat,
}

// One thread: the client takes as little as it can from a server on the same processors.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let report = run(&arguments).await?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let deadline = Duration::from_secs(arguments.timeout);
    let target = Target::new(&arguments.url, &arguments.model, arguments.api_key.clone(), deadline)?;
    let workload = Workload {
        api: match arguments.api {
            ApiName::Completions => Api::Completions,
            ApiName::Chat => Api::Chat,
        },
        lengths: arguments.prompt_tokens,
        ids: arguments.ids.clone(),
        max_tokens: arguments.max_tokens,
        ignore_eos: !arguments.stop_at_eos,
        temperature: arguments.temperature,
        seed: arguments.seed,
    };
    let objective = Objective {
        ttft: Duration::from_millis(arguments.good_ttft_ms),
        itl: Duration::from_millis(arguments.good_itl_ms),
    };
    let until = match arguments.duration {
        Some(seconds) => Until::Elapsed(Duration::from_secs(seconds)),
        None => Until::Requests(arguments.requests.unwrap_or(100)),
    };
    match arguments.rate {
        Some(per_second) => {
            let arrivals = Arrivals { per_second, concurrent_max: arguments.concurrent };
            open_loop(&target, &workload, objective, arrivals, until).await
        }
        None => closed_loop(&target, &workload, objective, arguments.clients.unwrap_or(1), until).await,
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("must be more than 0".to_owned()) }
}

fn ids(text: &str) -> Result<Range<u32>, String> {
    let parsed = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    parsed.filter(|ids: &Range<u32>| !ids.is_empty()).ok_or_else(|| "must be FIRST..END".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert_eq!(ids("5..8"), Ok(5..8));
        assert!(ids("8..5").is_err() && ids("5").is_err());
        assert!(rate("0").is_err() && rate("inf").is_err());
    }
}
