//! Who works on an entry that was delivered before: it works on nothing else, so when it goes, it was the entry.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_nats::jetstream::kv::{Config, Operation, Store};
use async_nats::jetstream::stream::StorageType;
use schemas::InstanceId;

use crate::bus::Bus;
use crate::peers::Peers;

const BUCKET: &str = "tw_claims";
/// Longer than any request waits.
const KEPT_FOR: Duration = Duration::from_secs(900);
/// How old a claim is when its holder is judged: well after an instance that has gone is known to have, and one that lives to
/// whoever has just started. Whoever lives then has let go of the entry.
const JUDGED_AFTER: Duration = Duration::from_secs(3);
const BYTES_MAX: i64 = 4 << 20;

/// An entry by its queue, its number there and its time: a queue that was made anew counts from 1 again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryName(String);

impl EntryName {
    /// The entry `number` of the JetStream stream `stream`, put there at `published`.
    pub(crate) fn new(stream: &str, number: u64, published: SystemTime) -> Self {
        let since = published.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(format!("{stream}.{number}.{}", since.as_nanos()))
    }
}

/// What an instance may do with an entry that was delivered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Work on it.
    Mine,
    /// Answer it: who worked on it has gone.
    Poison,
    /// Leave it: somebody may still work on it.
    Others,
}

/// Notes that `me` works on `entry`, unless another does or did.
pub(crate) async fn take(
    bus: &Bus,
    entry: &EntryName,
    me: InstanceId,
    peers: &Peers,
) -> anyhow::Result<Claim> {
    let claims = bucket(bus).await?;
    let before = claims.entry(entry.0.as_str()).await?.filter(|it| it.operation == Operation::Put);
    let holder = before.as_ref().and_then(|it| std::str::from_utf8(&it.value).ok()?.parse().ok());
    if let (Some(before), Some(holder)) = (before, holder.filter(|holder| *holder != me)) {
        let age = SystemTime::from(before.created).elapsed().unwrap_or_default();
        if age < JUDGED_AFTER {
            return Ok(Claim::Others);
        }
        if !peers.is_alive(holder) {
            return Ok(Claim::Poison);
        }
    }
    claims.put(entry.0.as_str(), me.to_string().into()).await?;
    Ok(Claim::Mine)
}

/// Takes back what [`take`] noted: the entry is given back whole.
pub(crate) async fn release(bus: &Bus, entry: &EntryName) -> anyhow::Result<()> {
    Ok(bucket(bus).await?.delete(entry.0.as_str()).await?)
}

async fn bucket(bus: &Bus) -> anyhow::Result<Store> {
    if let Ok(bucket) = bus.jetstream().get_key_value(BUCKET).await {
        return Ok(bucket);
    }
    let config = Config {
        bucket: BUCKET.to_owned(),
        max_age: KEPT_FOR,
        max_bytes: BYTES_MAX,
        storage: StorageType::Memory,
        num_replicas: bus.replicas(),
        ..Config::default()
    };
    match bus.jetstream().create_key_value(config).await {
        Ok(bucket) => Ok(bucket),
        // Another may have made it meanwhile.
        Err(error) => bus.jetstream().get_key_value(BUCKET).await.map_err(|_| error).context("claims"),
    }
}
