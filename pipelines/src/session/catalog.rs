//! The pipelines that exist, kept up to date from their durable records.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream::kv;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::record::{self, Record};

const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Every known pipeline, by fingerprint.
#[derive(Clone, Default)]
pub(super) struct Catalog(Arc<RwLock<BTreeMap<String, Record>>>);

impl Catalog {
    /// The records, oldest pipeline first.
    pub(super) fn all(&self) -> Vec<Record> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<Record> = known.values().cloned().collect();
        records.sort_by(|a, b| (a.created, &a.fp).cmp(&(b.created, &b.fp)));
        records
    }

    /// Follows the records until `stop`; a broken watch is begun anew.
    pub(super) async fn follow(self, bus: Bus, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                ended = self.follow_once(&bus) => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(error = format!("{error:#}"), "pipeline records");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Reads the records that are there now.
    pub(super) async fn load(&self, bus: &Bus) -> anyhow::Result<()> {
        for record in record::list(bus).await? {
            self.put(record);
        }
        Ok(())
    }

    async fn follow_once(&self, bus: &Bus) -> anyhow::Result<()> {
        let mut changes = record::bucket(bus).await?.watch_with_history(">").await?;
        while let Some(entry) = changes.next().await {
            let entry = entry?;
            match entry.operation {
                kv::Operation::Put => match serde_json::from_slice(&entry.value) {
                    Ok(record) => self.put(record),
                    Err(error) => tracing::warn!(%error, key = entry.key, "pipeline record"),
                },
                kv::Operation::Delete | kv::Operation::Purge => {
                    self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&entry.key);
                }
            }
        }
        Ok(())
    }

    fn put(&self, record: Record) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(record.fp.clone(), record);
    }
}
