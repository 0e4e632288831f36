//! `tokenway status`: pipelines, instances and queues, as the bus knows them.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pipelines::Peers;
use pipelines::record::Record;
use schemas::presence::{Presence, State};
use schemas::{Fingerprint, Role};
use serde::Serialize;

use crate::bus::{self, View};
use crate::status_table;

const EXAMPLES: &str = "\
Examples:
  tokenway status
  tokenway status --watch
  tokenway status --json | jq '.instances[] | {role, pid, state}'
  tokenway status --nats nats://10.0.0.5:4222";

/// A little more than two announcements of everyone.
const LISTEN: Duration = Duration::from_millis(700);
const REFRESH: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// Show what runs: pipelines, instances, queues
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NATS server [default: that of the running `tokenway up`, else nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL", env = "TOKENWAY_NATS")]
    nats: Option<String>,
    /// Print one JSON object; with --watch, one a line
    #[arg(long)]
    json: bool,
    /// Show it anew every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Everything that `status` shows.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The pipelines that exist.
    pub pipelines: Vec<PipelineRow>,
    /// Everyone alive.
    pub instances: Vec<InstanceRow>,
    /// The work queues of the pipelines.
    pub queues: Vec<QueueRow>,
}

/// A pipeline.
#[derive(Debug, Serialize)]
pub struct PipelineRow {
    /// Its durable record.
    #[serde(flatten)]
    pub record: Record,
    /// Roles without an instance that takes work.
    pub missing: Vec<String>,
}

/// An instance.
#[derive(Debug, Serialize)]
pub struct InstanceRow {
    /// What it does.
    pub role: String,
    /// Who.
    pub instance: String,
    /// Process id on its host.
    pub pid: u32,
    /// `ready` or `draining`.
    pub state: &'static str,
    /// Model id of its pipeline, when that has a record.
    pub model: Option<String>,
    /// Fingerprint of its pipeline; none for doors.
    pub fp: Option<String>,
    /// Sequences it holds.
    pub sequences_used: u32,
    /// Sequences it can hold.
    pub sequences_capacity: u32,
    /// KV blocks in use, where there is a KV cache.
    pub kv_blocks_used: Option<u32>,
    /// KV blocks in all, where there is a KV cache.
    pub kv_blocks_capacity: Option<u32>,
    /// How long it has been inside one batch.
    pub busy_ms: u64,
    /// Jobs and batches done.
    pub done: u64,
    /// Host and processors or device.
    pub compute: String,
    /// Address of its health and metrics.
    pub admin: Option<String>,
    /// Release and commit.
    pub version: String,
}

/// A work queue.
#[derive(Debug, Serialize)]
pub struct QueueRow {
    /// Model id of its pipeline.
    pub model: String,
    /// Fingerprint of its pipeline.
    pub fp: String,
    /// The role that takes from it.
    pub role: String,
    /// Entries that no instance has taken.
    pub waiting: u64,
    /// Entries that an instance works on.
    pub unacknowledged: u64,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let url = bus::url(arguments.nats.as_deref());
    let hint = "start one with `tokenway up`, or name it with `--nats`";
    let connected = View::connect(&url, "tokenway status").await;
    let view = connected.map_err(|error| anyhow::anyhow!("{error:#}; {hint}"))?;
    tokio::time::sleep(LISTEN).await;
    loop {
        show(&Report::collect(&view).await?, &arguments, &url)?;
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(REFRESH).await;
    }
}

fn show(report: &Report, arguments: &Arguments, url: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        let clear = if arguments.watch && out.is_terminal() { CLEAR_SCREEN } else { "" };
        writeln!(out, "{clear}{}", status_table::render(report, url))?;
    }
    Ok(out.flush()?)
}

impl Report {
    async fn collect(view: &View) -> anyhow::Result<Self> {
        let records = view.pipelines().await?;
        let instances = view.instances();
        let mut queues = Vec::new();
        for (record, fp) in records.iter().filter_map(|record| Some((record, record.fingerprint()?))) {
            for role in [Role::Tokenize, Role::VisionEncode, Role::ShardForward(0)] {
                let Some(depth) = view.queue(fp, role).await else { continue };
                queues.push(QueueRow {
                    model: record.model.clone(),
                    fp: record.fp.clone(),
                    role: role.to_string(),
                    waiting: depth.waiting,
                    unacknowledged: depth.unacknowledged,
                });
            }
        }
        Ok(Self::new(records, &instances, queues))
    }

    fn new(records: Vec<Record>, instances: &[Presence], queues: Vec<QueueRow>) -> Self {
        let models: HashMap<Fingerprint, String> =
            records.iter().filter_map(|record| Some((record.fingerprint()?, record.model.clone()))).collect();
        let rows = instances.iter().map(|presence| {
            let model = presence.fp.and_then(|fp| models.get(&fp).cloned());
            InstanceRow::new(presence, model)
        });
        let rows = rows.collect();
        let peers =
            Peers::new(instances.iter().map(|presence| (presence.instance, presence.clone())).collect());
        let with_missing = |record: Record| {
            let missing = record.missing(&peers).iter().map(ToString::to_string).collect();
            PipelineRow { missing, record }
        };
        Self { pipelines: records.into_iter().map(with_missing).collect(), instances: rows, queues }
    }
}

impl InstanceRow {
    fn new(presence: &Presence, model: Option<String>) -> Self {
        let has_kv =
            presence.capacity.kv_blocks != u32::MAX && matches!(presence.role, Role::ShardForward(_));
        Self {
            role: presence.role.to_string(),
            instance: presence.instance.to_string(),
            pid: presence.pid,
            state: match presence.state {
                State::Ready => "ready",
                State::Draining => "draining",
                State::Drained => "drained",
                State::Gone => "gone",
                State::Unreachable => "unreachable",
            },
            model,
            fp: presence.fp.map(|fp| fp.to_string()),
            sequences_used: presence.used.sequences,
            sequences_capacity: presence.capacity.sequences,
            kv_blocks_used: has_kv.then_some(presence.used.kv_blocks),
            kv_blocks_capacity: has_kv.then_some(presence.capacity.kv_blocks),
            busy_ms: presence.busy_ms,
            done: presence.done,
            compute: presence.compute.clone(),
            admin: presence.admin.clone(),
            version: presence.version.clone(),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use schemas::InstanceId;
    use schemas::presence::Room;

    use super::*;

    fn presence(role: Role, instance: u64) -> Presence {
        Presence {
            done: 3,
            used: Room { sequences: 1, kv_blocks: 2 },
            capacity: Room { sequences: 64, kv_blocks: 2048 },
            compute: "host/cpu/0-1".into(),
            pid: 100,
            ..Presence::bare(InstanceId(instance), role, Some(Fingerprint(0xab)), State::Ready)
        }
    }

    /// A pipeline of two shards, of which one is missing.
    pub fn report() -> Report {
        let record = Record {
            fp: Fingerprint(0xab).to_string(),
            model: "m".into(),
            created: 0,
            context_length: 512,
            shards: 2,
            deadline_seconds: 300,
            queue: 256,
            images: None,
        };
        let roles = [Role::Tokenize, Role::ShardForward(0), Role::Sample, Role::Detokenize];
        let mut instances: Vec<_> = roles.into_iter().zip(1..).map(|(role, id)| presence(role, id)).collect();
        let room = Room { sequences: 4, kv_blocks: 64 };
        instances[1].held = vec![(InstanceId(3), room), (InstanceId(4), room)];
        Report::new(vec![record], &instances, Vec::new())
    }

    #[test]
    fn a_shard_without_an_instance_is_missing() {
        assert_eq!(report().pipelines[0].missing, ["shard-forward.1"]);
    }

    #[test]
    fn json_has_the_three_lists_with_roles_and_pids() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["pipelines"][0]["model"], "m");
        assert_eq!(json["instances"][1]["role"], "shard-forward.0");
        assert_eq!(json["instances"][1]["pid"], 100);
        assert_eq!(json["instances"][0]["kv_blocks_used"], serde_json::Value::Null);
        assert!(json["queues"].is_array());
    }
}
