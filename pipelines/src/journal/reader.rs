//! What the journal has of a stream.

use anyhow::Context as _;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use schemas::journal::{Entries, Entry, Opening};
use schemas::request::Payload;
use schemas::{StreamId, Subject, wire};

use super::{Journal, RECORD_DEADLINE, STREAM};

/// What the journal has of a stream.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its latest opening.
    pub opening: Opening,
    /// Everything that was sent, in its order.
    pub sent: Vec<Entry>,
}

impl Journal {
    /// What was recorded of `stream` until now; none of a stream that never was, or that the journal has dropped.
    pub async fn read(&self, stream: StreamId) -> anyhow::Result<Option<Recorded>> {
        let journal = match self.bus.jetstream().get_stream(STREAM).await {
            Ok(journal) => journal,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.code() == 404 => return Ok(None),
                _ => return Err(error).context("journal of streams"),
            },
        };
        let subject = Subject::opening(stream);
        let last = match journal.direct_get_last_for_subject(subject.as_str()).await {
            Ok(last) => last,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("journal of streams"),
        };
        let opening: Opening = wire::decode(&last.payload)?;
        let Some(sent) = self.sent_before(&opening).await? else { return Ok(None) };
        let mut recorded = Recorded { opening, sent };
        recorded.read_entries(&journal, last.sequence).await?;
        Ok(Some(recorded))
    }

    async fn sent_before(&self, opening: &Opening) -> anyhow::Result<Option<Vec<Entry>>> {
        let sent = match &opening.sent {
            Payload::Inline(sent) => Bytes::copy_from_slice(sent),
            Payload::Blob(blob) => match self.bus.fetch(*blob).await? {
                Some(sent) => sent,
                None => return Ok(None),
            },
        };
        Ok(Some(wire::decode::<Entries>(&sent)?.entries))
    }
}

impl Recorded {
    /// Adds what the opening's door has recorded since.
    async fn read_entries(&mut self, journal: &Stream, opened_at: u64) -> anyhow::Result<()> {
        let config = pull::OrderedConfig {
            filter_subject: Subject::entries(self.opening.door).to_string(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: opened_at + 1 },
            ..pull::OrderedConfig::default()
        };
        let consumer = journal.create_consumer(config).await?;
        let name = consumer.cached_info().name.clone();
        let read = match consumer.cached_info().num_pending {
            0 => Ok(()),
            _ => self.take_all(consumer).await,
        };
        // The broker would keep it for a while, and has at most 1,000.
        if let Err(error) = journal.delete_consumer(&name).await {
            tracing::debug!(%error, "consumer of the journal");
        }
        read
    }

    async fn take_all(&mut self, consumer: Consumer<pull::OrderedConfig>) -> anyhow::Result<()> {
        let mut messages = consumer.messages().await?;
        loop {
            let message = tokio::time::timeout(RECORD_DEADLINE, messages.next()).await?;
            let message = message.context("journal of streams")??;
            let Entries { entries } = wire::decode(&message.payload)?;
            let (stream, epoch) = (self.opening.stream, self.opening.epoch);
            self.sent
                .extend(entries.into_iter().filter(|entry| (entry.stream, entry.epoch) == (stream, epoch)));
            // Up to what is there now: the door may go on writing for others.
            if message.info().map_err(anyhow::Error::msg)?.pending == 0 {
                return Ok(());
            }
        }
    }
}
