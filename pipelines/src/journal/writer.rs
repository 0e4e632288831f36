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
        let is_recorded = match record(bus.jetstream(), &subject, wire::encode(&Entries { entries })).await {
            Ok(_) => true,
            Err(error) => {
                metrics::counter!("tokenway_journal_failures_total").increment(1);
                tracing::warn!(error = format!("{error:#}"), "journal did not record");
                false
            }
        };
        for listener in listeners {
            // One whose client has left does not listen.
            let _ = listener.send(is_recorded);
        }
    }
}

fn count(append: &Append) -> usize {
    append.entries.iter().map(|entry| entry.ids.len()).sum()
}
