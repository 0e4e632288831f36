//! Command-line settings that every process shares. Each is a flag, else a `TOKENWAY_*` variable, else its default.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use schemas::InstanceId;

/// Where the bus is unless told otherwise.
pub const NATS_URL: &str = "nats://127.0.0.1:4222";

/// How OpenMP threads of a shard wait for each other, unless its environment says so: they look for work about half a
/// millisecond, which is longer than most gaps within a step, then sleep, so that the shard that computes next has the
/// processors. Without the first they sleep at every operation, without the second they would spin for minutes.
pub const OPENMP_ENVIRONMENT: [(&str, &str); 2] =
    [("GOMP_SPINCOUNT", "10000"), ("OMP_WAIT_POLICY", "passive")];

/// Settings of every process on the bus.
#[derive(Debug, Clone, Args)]
pub struct Process {
    /// NATS server to connect to, or several of a cluster
    #[arg(long, env = "TOKENWAY_NATS", default_value = NATS_URL, value_name = "URL,...")]
    pub nats: String,

    /// Serve health and metrics on this address
    #[arg(long, env = "TOKENWAY_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,

    /// Form of the log lines
    #[arg(long, env = "TOKENWAY_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Id on the bus, when a supervisor wants to know it [default: random]
    #[arg(long, value_name = "HEX")]
    pub instance: Option<InstanceId>,

    /// Drain and exit when standard input ends, so that no process outlives its supervisor
    #[arg(long)]
    pub supervised: bool,
}

/// Settings of a stage.
#[derive(Debug, Clone, Args)]
pub struct Stage {
    /// Pipeline file
    #[arg(long, env = "TOKENWAY_PIPELINE", value_name = "FILE")]
    pub pipeline: PathBuf,

    /// Which shard of the model this process computes, from 0 (shard-forward only)
    #[arg(long, env = "TOKENWAY_SHARD", value_name = "N")]
    pub shard: Option<u16>,

    /// What every process has
    #[command(flatten)]
    pub process: Process,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}
