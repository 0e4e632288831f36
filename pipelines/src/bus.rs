//! The bus: NATS core subjects, JetStream work queues, the blob store.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::object_store::{DeleteErrorKind, ObjectStore};
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use schemas::request::BlobRef;
use schemas::{Failure, FailureKind, Fingerprint, Role, Subject};
use tokio::sync::watch;

/// How long a work-queue entry may go without sign of life before another instance gets it.
pub const ACK_WAIT: Duration = Duration::from_secs(1);

/// How often a held entry is extended; several times an [`ACK_WAIT`].
pub const EXTEND_EVERY: Duration = Duration::from_millis(300);

/// Bytes that travel inside a message; more goes to the blob store.
pub const INLINE_BYTES_MAX: usize = 48 * 1024;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(10);
const RECONNECT_DELAY_MS_MAX: u64 = 1_000;
const QUEUE_ENTRY_BYTES_MAX: i32 = 64 * 1024;
const QUEUE_BYTES_MAX: i64 = 64 << 20;
const BLOB_BUCKET: &str = "tw_blobs";
const BLOB_BYTES_MAX: i64 = 512 << 20;
/// Longest time that a blob takes to be stored or fetched, and that its next part takes to come.
const BLOB_DEADLINE: Duration = Duration::from_secs(10);
const BLOB_PART_DEADLINE: Duration = Duration::from_secs(1);
const BLOB_AGE_MAX: Duration = Duration::from_secs(900);
const CONSUMER: &str = "workers";
/// How many servers of a cluster hold each stream: one may go, and two still agree.
const REPLICAS_IN_CLUSTER: usize = 3;

/// A connection to the broker. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    client: async_nats::Client,
    connections: watch::Receiver<u64>,
    jetstream: jetstream::Context,
}

/// The work queues at the entry of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// For answers that have begun and lost their route. Taken from first.
    Resumed,
    /// For new requests.
    New,
}

impl Queue {
    /// Both, in the order in which they are served.
    pub const ALL: [Queue; 2] = [Queue::Resumed, Queue::New];

    /// Its subject.
    pub fn subject(self, fp: Fingerprint, role: Role) -> Subject {
        match self {
            Queue::Resumed => Subject::resume(fp, role),
            Queue::New => Subject::queue(fp, role),
        }
    }

    /// The name that `async_nats` and `nats-server` show for its stream.
    fn stream_name(self, fp: Fingerprint, role: Role) -> String {
        let suffix = match self {
            Queue::Resumed => "_resume",
            Queue::New => "",
        };
        format!("tw_{fp}_{}{suffix}", role.to_string().replace('.', "_"))
    }
}

/// How full a work queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct QueueDepth {
    /// Entries that no instance has taken.
    pub waiting: u64,
    /// Entries that an instance has taken and not acknowledged.
    pub unacknowledged: u64,
}

impl Bus {
    /// Connects to the broker at `urls`, several of a cluster with commas between, as `name`; fails after five seconds.
    ///
    /// Later losses of the connection are repaired by reconnecting, forever, with jitter.
    pub async fn connect(urls: &str, name: &str) -> anyhow::Result<Self> {
        let servers: Vec<&str> = urls.split(',').map(str::trim).collect();
        let (connected, connections) = watch::channel(0);
        let client = async_nats::ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT_DEADLINE)
            .request_timeout(Some(REQUEST_DEADLINE))
            .ping_interval(PING_EVERY)
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                if matches!(event, async_nats::Event::Connected) {
                    connected.send_modify(|count| *count += 1);
                }
                note(&event);
                std::future::ready(())
            })
            .connect(servers)
            .await
            .with_context(|| format!("no NATS server at `{urls}`"))?;
        let jetstream = jetstream::new(client.clone());
        Ok(Self { client, connections, jetstream })
    }

    /// The core connection.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// How often the connection was made. When it grows, messages may have been lost, and the broker may be another one,
    /// whose queues are empty or absent.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// The JetStream context.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// How many servers are to hold a stream.
    pub(crate) fn replicas(&self) -> usize {
        if self.client.server_info().cluster.is_some() { REPLICAS_IN_CLUSTER } else { 1 }
    }

    /// Whether the connection is up.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Waits until the broker has carried out everything sent before: `flush` alone only empties the socket buffer.
    pub async fn barrier(&self) -> anyhow::Result<()> {
        use futures_util::StreamExt;
        let inbox = self.client.new_inbox();
        let mut echo = self.client.subscribe(inbox.clone()).await?;
        self.client.publish(inbox, Bytes::new()).await?;
        tokio::time::timeout(REQUEST_DEADLINE, echo.next())
            .await
            .context("no round trip through the NATS server")?;
        Ok(())
    }

    /// Makes sure that a work queue at the entry of `role` exists, `depth` entries deep, each kept for at most `age`.
    pub async fn ensure_queue(
        &self,
        queue: Queue,
        fp: Fingerprint,
        role: Role,
        depth: u32,
        age: Duration,
    ) -> anyhow::Result<()> {
        let subject = queue.subject(fp, role);
        let config = Config {
            name: queue.stream_name(fp, role),
            subjects: vec![subject.to_string()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::Memory,
            discard: DiscardPolicy::New,
            max_messages: depth.into(),
            max_message_size: QUEUE_ENTRY_BYTES_MAX,
            max_bytes: (i64::from(depth) * i64::from(QUEUE_ENTRY_BYTES_MAX)).min(QUEUE_BYTES_MAX),
            max_age: age,
            num_replicas: self.replicas(),
            ..Config::default()
        };
        self.jetstream
            .create_or_update_stream(config)
            .await
            .with_context(|| format!("work queue `{subject}`"))?;
        Ok(())
    }

    /// A pull consumer on a work queue at the entry of `role`; all instances share it.
    pub async fn workers(
        &self,
        queue: Queue,
        fp: Fingerprint,
        role: Role,
    ) -> anyhow::Result<jetstream::consumer::PullConsumer> {
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            memory_storage: true,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let stream = self.jetstream.get_stream(queue.stream_name(fp, role)).await?;
        Ok(stream.get_or_create_consumer(CONSUMER, config).await?)
    }

    /// Puts an entry into a work queue; a full queue or an absent one is the failure of that request.
    pub async fn enqueue(&self, subject: &Subject, payload: Bytes) -> Result<(), Failure> {
        let acknowledged = self.jetstream.publish(subject.to_string(), payload).await;
        let stored = match acknowledged {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        stored.map(|_| ()).map_err(|error| refusal(subject, &error))
    }

    /// How full the work queue of new requests at the entry of `role` is.
    pub async fn queue_depth(&self, fp: Fingerprint, role: Role) -> anyhow::Result<QueueDepth> {
        let mut stream = self.jetstream.get_stream(Queue::New.stream_name(fp, role)).await?;
        let held = stream.info().await?.state.messages;
        let unacknowledged = match stream.get_consumer::<pull::Config>(CONSUMER).await {
            Ok(mut consumer) => consumer.info().await?.num_ack_pending as u64,
            Err(_) => 0,
        };
        Ok(QueueDepth { waiting: held.saturating_sub(unacknowledged), unacknowledged })
    }

    /// Stores `content` under its hash, unless it is there already; a full store is the failure of that request.
    pub async fn store(&self, blob: BlobRef, content: &Bytes) -> Result<(), Failure> {
        let name = blob_name(blob);
        let bucket = self.blobs().await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "blob store");
            Failure::new(FailureKind::Unavailable, "the store for long prompts and images cannot be reached")
        })?;
        // What was deleted leaves its name behind.
        if bucket.info(&name).await.is_ok_and(|info| !info.deleted) {
            return Ok(());
        }
        let refused = |reason: &dyn std::fmt::Display, answered: bool| {
            tracing::warn!(%reason, bytes = blob.bytes, "blob not stored");
            if answered {
                let message = "the store for long prompts and images is full, try again later";
                return Failure::new(FailureKind::Overloaded, message);
            }
            Failure::new(FailureKind::Unavailable, "the store for long prompts and images does not answer")
        };
        let mut content = content.as_ref();
        match tokio::time::timeout(BLOB_DEADLINE, bucket.put(name.as_str(), &mut content)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&error, !is_unanswered(&error))),
            Err(late) => Err(refused(&late, false)),
        }
    }

    /// The content of `blob`; none when it has expired, is deleted meanwhile or is not what its name says.
    pub async fn fetch(&self, blob: BlobRef) -> anyhow::Result<Option<Bytes>> {
        if blob.bytes > BLOB_BYTES_MAX as u64 {
            return Ok(None);
        }
        tokio::time::timeout(BLOB_DEADLINE, self.read(blob)).await.unwrap_or(Ok(None))
    }

    /// Asks for each part by itself: `ObjectStore::get` makes a consumer for every read, which the broker keeps for half a
    /// minute, and it has at most 1,000 of them. Source of the subjects: NATS ADR-20.
    async fn read(&self, blob: BlobRef) -> anyhow::Result<Option<Bytes>> {
        let bucket = self.blobs().await?;
        let Ok(info) = bucket.info(blob_name(blob)).await else { return Ok(None) };
        let store = self.jetstream.get_stream_no_info(format!("OBJ_{BLOB_BUCKET}")).await?;
        let parts = format!("$O.{BLOB_BUCKET}.C.{}", info.nuid);
        let mut content = Vec::with_capacity(blob.bytes as usize);
        let mut next = None;
        while (content.len() as u64) < blob.bytes {
            let part = store.direct_get_next_for_subject(parts.as_str(), next);
            match tokio::time::timeout(BLOB_PART_DEADLINE, part).await {
                Ok(Ok(part)) => {
                    next = Some(part.sequence + 1);
                    content.extend_from_slice(&part.payload);
                }
                // It is deleted meanwhile, or the broker does not say.
                Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Ok(Err(error)) => return Err(error).context("blob store"),
                Err(_) => return Ok(None),
            }
        }
        let whole = content.len() as u64 == blob.bytes && *blake3::hash(&content).as_bytes() == blob.hash;
        Ok(whole.then(|| content.into()))
    }

    /// Deletes `blob`; one that is not there is no error.
    pub async fn delete(&self, blob: BlobRef) -> anyhow::Result<()> {
        let bucket = self.blobs().await?;
        match bucket.delete(blob_name(blob)).await {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes sure that the blob store exists: a broker without room for it says so at the start, not to the first request.
    pub async fn ensure_blobs(&self) -> anyhow::Result<()> {
        self.blobs().await.map(drop)
    }

    async fn blobs(&self) -> anyhow::Result<ObjectStore> {
        if let Ok(bucket) = self.jetstream.get_object_store(BLOB_BUCKET).await {
            return Ok(bucket);
        }
        let config = jetstream::object_store::Config {
            bucket: BLOB_BUCKET.to_owned(),
            max_age: BLOB_AGE_MAX,
            max_bytes: BLOB_BYTES_MAX,
            storage: StorageType::Memory,
            num_replicas: self.replicas(),
            ..jetstream::object_store::Config::default()
        };
        match self.jetstream.create_object_store(config).await {
            Ok(bucket) => Ok(bucket),
            // Another may have made it meanwhile.
            Err(error) => {
                self.jetstream.get_object_store(BLOB_BUCKET).await.map_err(|_| error).context("blob store")
            }
        }
    }
}

fn blob_name(blob: BlobRef) -> String {
    blob.hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the broker has answered, and refused, rather than not answered.
pub(crate) fn is_answer(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<CreateStreamError>());
    kinds.into_iter().any(|error| matches!(error.kind(), CreateStreamErrorKind::JetStream(_)))
}

/// Whether something was published that no stream has answered.
fn is_unanswered(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|cause| cause.downcast_ref::<jetstream::context::PublishError>())
        .any(|error| {
            use PublishErrorKind::{BrokenPipe, StreamNotFound, TimedOut};
            matches!(error.kind(), TimedOut | BrokenPipe | StreamNotFound)
        })
}

/// What a client hears when its entry was not stored.
fn refusal(subject: &Subject, error: &jetstream::context::PublishError) -> Failure {
    use std::error::Error as _;
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    match (error.kind(), code) {
        (_, Some(ErrorCode::STREAM_STORE_FAILED | ErrorCode::INSUFFICIENT_RESOURCES)) => {
            Failure::new(FailureKind::Overloaded, "the request queue is full, try again later")
                .with_code("queue_full")
        }
        _ if is_unanswered(error) => {
            tracing::warn!(%subject, %error, "work queue does not exist, or has no leader");
            Failure::bus_away()
        }
        (kind, _) => {
            tracing::warn!(%subject, ?kind, %error, "work queue refused an entry");
            Failure::new(FailureKind::Unavailable, "the message bus did not take the request")
        }
    }
}

/// Grows with the attempts and differs between processes, so that a restarted broker is not stormed.
fn reconnect_delay(attempts: usize) -> Duration {
    let ceiling = (20u64 << attempts.min(6)).min(RECONNECT_DELAY_MS_MAX);
    Duration::from_millis(rand::random_range(ceiling / 2..=ceiling))
}

fn note(event: &async_nats::Event) {
    match event {
        async_nats::Event::SlowConsumer(subscription) => {
            metrics::counter!("tokenway_slow_consumer_total").increment(1);
            tracing::error!(subscription, "messages dropped: flow control is broken");
        }
        async_nats::Event::Connected => tracing::debug!("connected to the bus"),
        other => tracing::warn!(event = %other, "bus"),
    }
}
