//! The durable record of a pipeline: that it exists, even when nothing of it runs.

use anyhow::Context as _;
use async_nats::jetstream::kv::{self, Store};
use async_nats::jetstream::stream::StorageType;
use futures_util::StreamExt;
use schemas::{Fingerprint, Role};
use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::peers::Peers;

/// Name of the key-value bucket; keys are fingerprints in hexadecimal.
pub const BUCKET: &str = "tw_pipelines";

/// What doors need to know of a pipeline. Stored as JSON, so that it can evolve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Fingerprint in hexadecimal, as in subjects.
    pub fp: String,
    /// Id for the request's `model` field.
    pub model: String,
    /// Seconds since the Unix epoch when the pipeline was first started.
    pub created: u64,
    /// Longest sequence in tokens.
    pub context_length: u32,
    /// Number of shards.
    pub shards: u16,
    /// Longest time one request may take, in seconds.
    pub deadline_seconds: u64,
    /// Depth of the request queue.
    pub queue: u32,
    /// What images it takes; none when it takes none.
    #[serde(default)]
    pub images: Option<ImageLimits>,
}

/// The images that a pipeline takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLimits {
    /// Images of one request.
    pub count: u32,
    /// Pixels of one image.
    pub pixels: u64,
    /// Bytes of one image file.
    pub bytes: u64,
}

impl Record {
    /// The fingerprint.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fp.parse().ok()
    }

    /// The roles without an instance that can take part; none missing means that the pipeline can serve text.
    pub fn missing(&self, peers: &Peers) -> Vec<Role> {
        self.missing_for(peers, false)
    }

    /// The same for requests that have images, or have none.
    pub fn missing_for(&self, peers: &Peers, images: bool) -> Vec<Role> {
        let fp = self.fingerprint();
        [Role::Tokenize, Role::Sample, Role::Detokenize]
            .into_iter()
            .chain(images.then_some(Role::VisionEncode))
            .chain((0..self.shards).map(Role::ShardForward))
            .filter(|role| !fp.is_some_and(|fp| peers.serves(fp, *role)))
            .collect()
    }
}

/// The bucket of records, made when it is missing.
pub async fn bucket(bus: &Bus) -> anyhow::Result<Store> {
    if let Ok(bucket) = bus.jetstream().get_key_value(BUCKET).await {
        return Ok(bucket);
    }
    let config = kv::Config {
        bucket: BUCKET.to_owned(),
        history: 1,
        storage: StorageType::File,
        num_replicas: bus.replicas(),
        ..kv::Config::default()
    };
    bus.jetstream().create_key_value(config).await.context("pipeline records")
}

/// Every record on the bus.
pub async fn list(bus: &Bus) -> anyhow::Result<Vec<Record>> {
    let bucket = bucket(bus).await?;
    let mut keys = bucket.keys().await?;
    let mut records = Vec::new();
    while let Some(key) = keys.next().await {
        let key = key?;
        let Some(value) = bucket.get(&key).await? else { continue };
        match serde_json::from_slice(&value) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!(%error, key, "pipeline record"),
        }
    }
    Ok(records)
}

/// Makes sure that `record` is on the bus; the time of its first start stays.
pub async fn ensure(bus: &Bus, mut record: Record) -> anyhow::Result<()> {
    let bucket = bucket(bus).await?;
    let known = bucket.get(&record.fp).await?;
    if let Some(known) = known.and_then(|known| serde_json::from_slice::<Record>(&known).ok()) {
        record.created = known.created;
        if known == record {
            return Ok(());
        }
    }
    bucket.put(&record.fp, serde_json::to_vec(&record)?.into()).await?;
    Ok(())
}
