//! The `gateway` process: its command line, and what it connects before it serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use pipelines::journal::Journal;
use pipelines::presence::Identity;
use pipelines::service::{self, Presence, connect, once_agreed, shutdown_signal};
use pipelines::session::Door;
use pipelines::settings::Process;
use pipelines::{Status, bus::Bus};
use schemas::presence::State;
use schemas::{InstanceId, Role};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::cors::Origin;
use crate::http::images::hosts::{Host, Hosts};
use crate::http::keys::ApiKeys;
use crate::http::{HttpSettings, document, serve};

const EXAMPLES: &str = "\
Examples:
  gateway                                        serve the pipelines on nats://127.0.0.1:4222
  gateway --http 0.0.0.0:8080 --api-keys keys.txt
  gateway --cors https://chat.example.org        let pages of another origin call";

/// Serves the pipelines on a bus over HTTP, in OpenAI's dialect.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", version = service::VERSION, after_help = EXAMPLES, max_term_width = 110)]
pub struct Args {
    /// Serve HTTP on this address
    #[arg(long, env = "TOKENWAY_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub http: SocketAddr,

    /// File with the bearer keys that `/v1` accepts, one a line; without it, everyone may ask
    #[arg(long, env = "TOKENWAY_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,

    /// Origin whose web pages may call, or `*` for all
    #[arg(long, env = "TOKENWAY_CORS", value_name = "ORIGIN|*")]
    pub cors: Option<Origin>,

    /// Fetch images from these hosts: `example.org`, `*.example.org` or `example.org:8443`; by default from none
    #[arg(long, env = "TOKENWAY_IMAGE_HOSTS", value_name = "HOST,...", value_delimiter = ',')]
    pub image_hosts: Vec<Host>,

    /// Largest request body
    #[arg(long, env = "TOKENWAY_BODY_LIMIT", default_value_t = 24 << 20, value_name = "BYTES")]
    pub body_limit: usize,

    /// Connections served at a time; further ones wait
    #[arg(long, env = "TOKENWAY_CONNECTIONS", default_value_t = 4096, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,

    /// Memory for the streams that clients may read on at any gateway, for up to 15 minutes; 0 turns that off
    #[arg(long, env = "TOKENWAY_JOURNAL_MIB", default_value_t = 128, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    pub journal_mib: u32,

    /// How long requests in flight may run on after SIGTERM
    #[arg(long, env = "TOKENWAY_DRAIN_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    pub drain_seconds: u64,

    /// Threads that serve requests
    #[arg(long, env = "TOKENWAY_GATEWAY_THREADS", default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,

    /// Print the OpenAPI document and exit
    #[arg(long)]
    pub openapi: bool,

    /// What every process has
    #[command(flatten)]
    pub process: Process,
}

/// Serves until SIGTERM.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.openapi {
        println!("{}", document::json());
        return Ok(());
    }
    let runtime = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads as usize)
            .enable_all()
            .build()?,
    };
    runtime.block_on(attend(args))
}

/// Takes the address first, so that a wrong one fails at once, then waits for the bus.
async fn attend(args: Args) -> anyhow::Result<()> {
    let shutdown = shutdown_signal(args.process.supervised)?;
    let keys = args.api_keys.as_deref().map(ApiKeys::read).transpose()?;
    let listener =
        TcpListener::bind(args.http).await.with_context(|| format!("`--http` address `{}`", args.http))?;
    let Some(bus) = connect(&args.process.nats, Role::Gateway.binary(), &shutdown).await else {
        return Ok(());
    };
    let identity = Identity {
        instance: args.process.instance.unwrap_or_else(|| InstanceId(rand::random())),
        role: Role::Gateway,
        fp: None,
        compute: String::new(),
        admin: None,
    };
    let instance = identity.instance;
    let presence = Presence::start(&args.process, identity).await?;
    let journal = match args.journal_mib {
        0 => None,
        mib => {
            let open = || Journal::open(bus.clone(), instance, i64::from(mib) << 20);
            let Some(journal) = once_agreed(open, &shutdown).await? else { return Ok(()) };
            Some(journal)
        }
    };
    let settings = HttpSettings {
        keys,
        cors: args.cors,
        image_hosts: Hosts::new(args.image_hosts),
        body_bytes_max: args.body_limit,
        connections_max: args.connections as usize,
        drain: Duration::from_secs(args.drain_seconds),
        journal,
        metrics: presence.metrics.clone(),
    };
    let ended = open(bus, instance, listener, settings, &presence, shutdown).await;
    presence.stop();
    ended
}

async fn open(
    bus: Bus,
    instance: InstanceId,
    listener: TcpListener,
    settings: HttpSettings,
    presence: &Presence,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // The guard ends the door's tasks, after the last request.
    let open_door = || Door::open_on(bus.clone(), instance, presence.peers.clone());
    let Some((door, _guard)) = once_agreed(open_door, &shutdown).await? else { return Ok(()) };
    presence.pulse.leave(Status::default());
    let pulse = presence.pulse.clone();
    let draining = shutdown.clone();
    let announcing = async move {
        draining.cancelled().await;
        pulse.set_state(State::Draining);
        std::future::pending().await
    };
    tracing::info!(%instance, http = %listener.local_addr()?, "started");
    tokio::select! {
        ended = serve(listener, door, settings, shutdown) => ended,
        () = announcing => Ok(()),
    }
}
