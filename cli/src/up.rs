//! `tokenway up`: starts a NATS server, one process a stage instance and a gateway, and keeps them running.

mod backoff;
mod broker;
mod child;
mod door;
mod greet;
mod parent_death;
mod plan;
mod processes;
mod ready;
mod replicas;
mod supervisor;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::bus::View;
use crate::exit::misuse;
use crate::last::Last;
use crate::named;
use crate::signals::Signals;
use broker::Broker;
use door::Door;
use plan::Planned;

use supervisor::Supervisor;
use terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  tokenway up                                        the demo model
  tokenway up --model ~/models/llama --shards 2      a model folder of one's own
  tokenway up --model ~/models/llama-q4_k.gguf       a GGUF, computed as it is quantised
  tokenway up --model hf:ORG/NAME:q4_k_m             one of the Hugging Face Hub, downloaded when it is not here
  tokenway up --model my-llama                       one that `tokenway models` lists
  tokenway up pipelines/demo.toml pipelines/echo.toml two pipelines behind one gateway
  tokenway up --replicas tokenize=2 --replicas shard-forward.0=2
  tokenway up --http 127.0.0.1:0 --nats nats://10.0.0.5:4222

A setting of a pipeline comes from its flag here, else from TOKENWAY_STAGES__<STAGE>__<SETTING>, else from the file.
Ctrl-C stops everything that was started; a second one does so at once.";

/// Serve one or more pipelines until Ctrl-C
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    plan: plan::Arguments,
    /// Address of the REST API and the chat page; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "TOKENWAY_HTTP", default_value = "127.0.0.1:8080")]
    http: String,
    /// A NATS server that runs already [default: one is started, on a free port of 127.0.0.1]
    #[arg(long, value_name = "URL", env = "TOKENWAY_NATS")]
    nats: Option<String>,
    /// File with the bearer keys that the gateway accepts, one a line
    #[arg(long, value_name = "FILE", env = "TOKENWAY_API_KEYS")]
    api_keys: Option<PathBuf>,
    /// Let pages of this origin, or of any, call the API
    #[arg(long, value_name = "ORIGIN", env = "TOKENWAY_CORS", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    cors: Option<String>,
    /// Start the stages only
    #[arg(long, conflicts_with_all = ["greet", "api_keys", "cors"])]
    no_gateway: bool,
    /// Once ready, stream the answer to this prompt into the terminal
    #[arg(long, value_name = "PROMPT")]
    greet: Option<String>,
    /// Form of the logs; `json` leaves each line as the process wrote it
    #[arg(long, env = "TOKENWAY_LOG_FORMAT", value_parser = ["text", "json"], default_value = "text")]
    log_format: String,
    /// Folder for the resolved pipelines and the NATS store, kept afterwards [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// How long the start may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    ready_within: u64,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let run_dir = RunDir::open(arguments.run_dir.as_deref())?;
    let model = match arguments.plan.model() {
        Some(model) => Some(named::resolve(model).await?),
        None => None,
    };
    let planned = plan::make(&arguments.plan, model.as_ref(), run_dir.path())?;
    let door = (!arguments.no_gateway).then(|| Door::open(&arguments)).transpose()?;
    let programs = processes::Programs::locate(&planned, door.is_some(), &arguments.log_format)?;

    let mut signals = Signals::listen()?;
    let terminal = Arc::new(Terminal::new(arguments.log_format == "json"));
    let (mut supervisor, mut fatal) = Supervisor::new(terminal.clone());
    let outcome = tokio::select! {
        outcome = serve(&arguments, &planned, door, programs, run_dir.path(), &mut supervisor) => outcome,
        Some(error) = fatal.recv() => Err(error),
        () = signals.next() => Ok(()),
    };
    terminal.release();
    supervisor.shut_down(&mut signals).await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Brings everything up, then goes on until it is dropped.
async fn serve(
    arguments: &Arguments,
    planned: &[Planned],
    door: Option<Door>,
    programs: processes::Programs,
    run_dir: &Path,
    supervisor: &mut Supervisor,
) -> anyhow::Result<()> {
    let broker = match &arguments.nats {
        Some(url) => Broker { url: url.clone(), monitoring: None },
        None => broker::start(run_dir, supervisor).await?,
    };
    let view = match View::connect(&broker.url, "tokenway up").await {
        Err(error) if arguments.nats.is_some() => {
            return Err(misuse(format!("{error:#}; leave `--nats` out to have one started")));
        }
        other => Arc::new(other.context("the NATS server that was started")?),
    };
    supervisor.announce_through(view.clone());
    let last = Last { pid: std::process::id(), nats: broker.url.clone(), http: door.as_ref().map(Door::url) };
    let _word = Word::leave(last, supervisor.terminal());

    for process in programs.processes(planned, door.as_ref(), &broker.url) {
        supervisor.start(process);
    }
    let deadline = Duration::from_secs(arguments.ready_within);
    ready::wait(supervisor, &view, planned, door.as_ref(), deadline).await?;
    if let (Some(prompt), Some(door), [first, ..]) = (&arguments.greet, &door, planned) {
        greet::greet(supervisor.terminal(), door, &first.model, prompt).await?;
    }
    announce(supervisor.terminal(), planned, door.as_ref(), &broker);
    std::future::pending().await
}

/// Prints where everything is.
fn announce(terminal: &Terminal, planned: &[Planned], door: Option<&Door>, broker: &Broker) {
    let models: Vec<_> = planned.iter().map(|pipeline| pipeline.model.as_str()).collect();
    terminal.print(&format!("\ntokenway serves {}\n", models.join(", ")));
    if let Some(url) = door.map(Door::url) {
        for (name, path) in
            [("chat page", "/ui"), ("API", "/v1"), ("reference", "/docs"), ("metrics", "/metrics")]
        {
            terminal.print(&format!("  {name:<10} {url}{path}\n"));
        }
    }
    terminal.print(&format!("  {:<10} {}\n", "NATS", broker.url));
    if let Some(monitoring) = &broker.monitoring {
        terminal.print(&format!("  {:<10} {monitoring}\n", "monitoring"));
    }
    terminal.print("Ctrl-C stops everything.\n");
}

/// The folder of this run's files; a temporary one is deleted when dropped.
enum RunDir {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl RunDir {
    fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = given else {
            let folder =
                tempfile::Builder::new().prefix("tokenway-run-").tempdir().context("temporary folder")?;
            return Ok(Self::Temporary(folder));
        };
        let make = || std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
        let path = make().map_err(|error| misuse(format!("run folder `{}`: {error}", path.display())))?;
        Ok(Self::Given(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The word left for the other commands, taken back when dropped.
struct Word(Last);

impl Word {
    fn leave(last: Last, terminal: &Terminal) -> Self {
        if let Err(error) = last.write() {
            terminal.say(&format!("`tokenway status` needs `--nats {}`: {error}", last.nats));
        }
        Self(last)
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.0.remove();
    }
}
