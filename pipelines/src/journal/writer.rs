//! Records what all streams of a door send: one message for whatever is ready while the last one is on its way.

use schemas::journal::{Entries, Entry};
use schemas::{Subject, wire};
use tokio::sync::{mpsc, oneshot};

use super::record;
use crate::bus::Bus;

/// Tokens in one message at most: with twenty alternatives each they stay below the broker's limit for a message.
const TOKENS_MAX: usize = 1024;

/// What one stream wants recorded.
pub(super) struct Append {
    pub(super) entries: Vec<Entry>,
    /// Hears whether it was.
    pub(super) recorded: oneshot::Sender<bool>,
}

/// Records until the last stream has gone.
pub(super) async fn record_all(bus: Bus, subject: Subject, mut waiting: mpsc::Receiver<Append>) {
    let mut connections = bus.connections();
    while let Some(first) = waiting.recv().await {
        let mut tokens = count(&first);
        let mut entries = first.entries;
        let mut listeners = vec![first.recorded];
        while tokens < TOKENS_MAX {
            let Ok(more) = waiting.try_recv() else { break };
            tokens += count(&more);
            entries.extend(more.entries);
            listeners.push(more.recorded);
        }
        connections.mark_unchanged();
        let entries = wire::encode(&Entries { entries });
        let recorded = tokio::select! {
            recorded = record(bus.jetstream(), &subject, entries) => recorded,
            // To wait for an answer that is lost is to keep all clients waiting.
            _ = connections.changed() => Err(anyhow::anyhow!("the connection was made anew")),
        };
        if let Err(error) = &recorded {
            metrics::counter!("tokenway_journal_failures_total").increment(1);
            tracing::warn!(error = format!("{error:#}"), "journal did not record");
        }
        for listener in listeners {
            // One whose client has left does not listen.
            let _ = listener.send(recorded.is_ok());
        }
    }
}

fn count(append: &Append) -> usize {
    append.entries.iter().map(|entry| entry.ids.len()).sum()
}
