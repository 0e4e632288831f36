//! The journal of streamed answers: on the bus, bounded and expiring, so that any door can go on with a stream.
//!
//! A stream begins with an [`Opening`]; what its client is sent follows as entries, recorded before they are sent. One
//! message holds the entries of all streams of a door that are ready at the same time.

mod log;
mod reader;
mod writer;

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use bytes::Bytes;
use schemas::{InstanceId, Subject};
use tokio::sync::mpsc;

use crate::bus::Bus;

pub use log::Log;
pub use reader::Recorded;
use writer::Append;

/// How long a stream can be read again.
pub const AGE_MAX: Duration = Duration::from_secs(900);

const STREAM: &str = "tw_journal";
/// Clients of a door whose entries may wait to be recorded: each waits for its own before it goes on.
const APPENDS_MAX: usize = 8192;
/// Longest wait for the bus to record something, before it is tried anew.
const RECORD_DEADLINE: Duration = Duration::from_secs(2);

/// The journal as one door writes and reads it. Cheap to clone; its task ends with the last clone.
#[derive(Clone)]
pub struct Journal {
    bus: Bus,
    door: InstanceId,
    bytes_max: i64,
    appends: mpsc::Sender<Append>,
}

impl Journal {
    /// Makes sure that the journal exists, with at most `bytes_max` bytes in it: the oldest go first.
    pub async fn open(bus: Bus, door: InstanceId, bytes_max: i64) -> anyhow::Result<Self> {
        let (appends, waiting) = mpsc::channel(APPENDS_MAX);
        let journal = Self { bus: bus.clone(), door, bytes_max, appends };
        journal.ensure().await?;
        tokio::spawn(writer::record_all(bus, Subject::entries(door), waiting));
        Ok(journal)
    }

    async fn ensure(&self) -> anyhow::Result<()> {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![Subject::journal_all().to_string()],
            storage: StorageType::Memory,
            discard: DiscardPolicy::Old,
            max_bytes: self.bytes_max,
            max_age: AGE_MAX,
            allow_direct: true,
            num_replicas: self.bus.replicas(),
            ..Config::default()
        };
        self.bus.jetstream().create_or_update_stream(config).await.context("journal of streams")?;
        Ok(())
    }
}

/// Waits until the bus has recorded `payload`; returns its place in the journal.
async fn record(jetstream: &jetstream::Context, subject: &Subject, payload: Bytes) -> anyhow::Result<u64> {
    let recorded = async {
        let acknowledged = jetstream.publish(subject.to_string(), payload).await?.await?;
        anyhow::Ok(acknowledged.sequence)
    };
    tokio::time::timeout(RECORD_DEADLINE, recorded).await?
}
