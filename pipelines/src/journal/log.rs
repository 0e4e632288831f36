//! One stream in the journal, as the door that serves it writes it.

use std::time::Duration;

use bytes::Bytes;
use schemas::journal::{Entries, Entry, Opening};
use schemas::request::{BlobRef, Payload};
use schemas::{Failure, FailureKind, StreamId, Subject, wire};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::writer::Append;
use super::{Journal, record};
use crate::session::Piece;

/// Bytes of what was sent that an opening holds itself; more is a blob.
const SENT_INLINE_BYTES_MAX: usize = 256 * 1024;

const AGAIN_AFTER: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// One stream in the journal.
pub struct Log {
    journal: Journal,
    opening: Opening,
    /// Everything sent, for another opening: the journal is in the broker's memory, and a broker that starts anew has
    /// lost it.
    sent: Vec<Entry>,
    /// How often the bus had been connected when the opening was recorded.
    connections: u64,
}

impl Journal {
    /// Begins the stream of `opening`, of which `sent` was sent before. `Unavailable` when the bus does not take it.
    pub async fn begin(&self, mut opening: Opening, sent: Vec<Entry>) -> Result<Log, Failure> {
        opening.door = self.door;
        let connections = *self.bus.connections().borrow();
        let mut log = Log { journal: self.clone(), opening, sent, connections };
        log.record_opening().await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "journal did not take a stream");
            Failure::new(FailureKind::Unavailable, "the journal of streams does not record")
        })?;
        Ok(log)
    }
}

impl Log {
    /// The stream's id.
    pub fn stream(&self) -> StreamId {
        self.opening.stream
    }

    /// Records pieces of the answers with these indices. Until it returns, none of them may be sent.
    ///
    /// Waits while the bus is away, until `deadline`; then it fails with `Unavailable`.
    pub async fn append(&mut self, pieces: Vec<(usize, Piece)>, deadline: Instant) -> Result<(), Failure> {
        let (stream, epoch) = (self.opening.stream, self.opening.epoch);
        let entries = pieces.into_iter().map(|(index, piece)| {
            let Piece { text, ids, logprobs, finish } = piece;
            Entry { stream, epoch, index: index as u32, ids, text, logprobs, finish }
        });
        let entries: Vec<Entry> = entries.collect();
        self.sent.extend(entries.iter().cloned());
        if *self.journal.bus.connections().borrow() == self.connections && self.record(entries).await {
            return Ok(());
        }
        self.open_again(deadline).await
    }

    async fn record(&self, entries: Vec<Entry>) -> bool {
        let (recorded, hears) = oneshot::channel();
        let append = Append { entries, recorded };
        self.journal.appends.send(append).await.is_ok() && hears.await.unwrap_or(false)
    }

    /// Whatever the journal has of this stream, a new opening with all that was sent takes its place.
    async fn open_again(&mut self, deadline: Instant) -> Result<(), Failure> {
        let mut pause = AGAIN_AFTER;
        loop {
            self.connections = *self.journal.bus.connections().borrow();
            self.opening.epoch = rand::random();
            for entry in &mut self.sent {
                entry.epoch = self.opening.epoch;
            }
            match self.record_opening().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "stream is not in the journal yet")
                }
            }
            if Instant::now() + pause > deadline {
                return Err(Failure::new(FailureKind::Unavailable, "the journal of streams does not record"));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(AGAIN_AFTER_MAX);
        }
    }

    async fn record_opening(&mut self) -> anyhow::Result<()> {
        let sent = wire::encode(&Entries { entries: self.sent.clone() });
        self.opening.sent = self.payload(sent).await?;
        let subject = Subject::opening(self.opening.stream);
        let opening = wire::encode(&self.opening);
        let jetstream = self.journal.bus.jetstream();
        if record(jetstream, &subject, opening.clone()).await.is_err() {
            // A broker that started anew has no journal.
            self.journal.ensure().await?;
            record(jetstream, &subject, opening).await?;
        }
        Ok(())
    }

    async fn payload(&self, sent: Bytes) -> anyhow::Result<Payload> {
        if sent.len() <= SENT_INLINE_BYTES_MAX {
            return Ok(Payload::Inline(sent.to_vec()));
        }
        let blob = BlobRef { hash: *blake3::hash(&sent).as_bytes(), bytes: sent.len() as u64 };
        self.journal.bus.store(blob, &sent).await.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        Ok(Payload::Blob(blob))
    }
}
