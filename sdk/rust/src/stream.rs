//! An answer while it is made, read on where it was when its connection breaks.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::error::{ApiError, Error};
use crate::generated::{ChatCompletionChunk, CompletionChunk, ErrorBody};
use crate::sse::{Decoder, Event};

#[cfg(test)]
mod tests;

/// The last event of a whole stream.
const DONE: &str = "[DONE]";

/// What one event of a stream holds.
pub trait Chunk: DeserializeOwned + Send {}

impl Chunk for ChatCompletionChunk {}
impl Chunk for CompletionChunk {}

/// The answers to a conversation, piece by piece.
pub type ChatStream = ChunkStream<ChatCompletionChunk>;
/// What follows prompts, piece by piece.
pub type CompletionStream = ChunkStream<CompletionChunk>;

/// An answer while it is made. When its connection or its gateway is lost, the rest is asked for at the base URL, and comes
/// from whichever gateway is there, each chunk exactly once. Dropping it closes the connection.
pub struct ChunkStream<C> {
    client: Client,
    /// Where the gateway keeps no journal, there is none.
    id: Option<String>,
    last: u64,
    source: Source,
    /// Since when an open source has been waited for without a byte.
    silent_since: Option<Instant>,
    decoder: Decoder,
    events: VecDeque<Event>,
    outage: Option<Outage>,
    chunk: PhantomData<fn() -> C>,
}

/// Where the bytes come from.
enum Source {
    Open(Response),
    /// Asked for, after a pause. Kept, so that a wait which is dropped does not begin anew.
    Asked {
        response: BoxFuture<'static, Result<Response, Error>>,
        until: Instant,
    },
    Ended,
}

/// How long is waited for what.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// A connection without a byte for so long is broken: a gateway writes a comment every 15 seconds.
    pub silence: Duration,
    /// The first pause before the rest is asked for, more or less by half: a gateway may have many streams.
    pub pause: Duration,
    /// The longest.
    pub pause_max: Duration,
    /// How long the rest is asked for.
    pub outage: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(2),
            outage: Duration::from_secs(60),
        }
    }
}

/// The time since a connection broke, up to the next chunk.
struct Outage {
    /// How it broke, if that is known, else why the rest was not to be had.
    cause: Option<Box<Error>>,
    /// When the rest is given up.
    until: Instant,
    /// Before it is asked for again.
    pause: Duration,
}

impl<C: Chunk> ChunkStream<C> {
    /// The stream that `response` begins.
    pub(crate) fn begun(client: Client, response: Response) -> Self {
        let id = response.headers().get("x-stream-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Self { source: Source::Open(response), ..Self::at(client, id, 0) }
    }

    /// The stream `id` after its event `last`, once a gateway has it.
    pub(crate) async fn taken_up(client: Client, id: String, last: u64) -> Result<Self, Error> {
        let mut stream = Self::at(client, Some(id), last);
        // The first time at once.
        stream.outage = Some(Outage { pause: Duration::ZERO, ..Outage::new(&stream.client.patience) });
        stream.ask(None)?;
        while matches!(stream.source, Source::Asked { .. }) {
            stream.step().await?;
        }
        Ok(stream)
    }

    fn at(client: Client, id: Option<String>, last: u64) -> Self {
        Self {
            client,
            id,
            last,
            source: Source::Ended,
            silent_since: None,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            outage: None,
            chunk: PhantomData,
        }
    }

    /// The stream's name, under which [`Client::read_stream`] finds it for 15 minutes; none where it cannot be read on.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Number of the last chunk that [`next`](Self::next) has returned; 0 before the first one.
    pub fn last_event_id(&self) -> u64 {
        self.last
    }

    /// The next chunk; none at the end, and after an error. Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<C, Error>> {
        while !matches!(self.source, Source::Ended) {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(chunk)) => return Some(Ok(chunk)),
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// The same chunks as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<C, Error>> + Send {
        futures_util::stream::unfold(self, |mut stream| async move {
            let next = stream.next().await?;
            Some((next, stream))
        })
    }

    /// Takes one event, or waits once for more.
    async fn step(&mut self) -> Result<Option<C>, Error> {
        if let Some(event) = self.events.pop_front() {
            return self.take(event);
        }
        match &mut self.source {
            Source::Open(response) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                let read = timeout_at(since + self.client.patience.silence, response.chunk()).await;
                self.silent_since = None;
                match read {
                    Ok(Ok(Some(bytes))) => self.events.extend(self.decoder.push(&bytes)),
                    Ok(Err(error)) => self.ask(Some(Error::Http(error)))?,
                    // It ended too early, or fell silent.
                    Ok(Ok(None)) | Err(_) => self.ask(None)?,
                }
            }
            Source::Asked { response, until } => match timeout_at(*until, response).await {
                Ok(Ok(response)) => self.source = Source::Open(response),
                Ok(Err(error)) if error.is_passing() => self.ask(Some(error))?,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(self.broken_off()),
            },
            Source::Ended => {}
        }
        Ok(None)
    }

    fn take(&mut self, event: Event) -> Result<Option<C>, Error> {
        if event.data == DONE {
            self.end();
            return Ok(None);
        }
        let id = event.id.and_then(|id| id.parse().ok());
        // Read before, whatever a gateway or a proxy sends again.
        if id.is_some_and(|id: u64| id <= self.last) {
            return Ok(None);
        }
        let chunk = serde_json::from_str(&event.data).map_err(|error| failure(&event.data, error))?;
        self.last = id.unwrap_or(self.last);
        self.outage = None;
        Ok(Some(chunk))
    }

    /// Asks for what follows the last chunk, for `cause` has ended the source; fails where it cannot be asked for.
    fn ask(&mut self, cause: Option<Error>) -> Result<(), Error> {
        // Half an event comes again as a whole one.
        self.decoder = Decoder::default();
        let outage = self.outage.get_or_insert_with(|| Outage::new(&self.client.patience));
        outage.cause = outage.cause.take().or(cause.map(Box::new));
        let Some(id) = self.id.clone() else { return Err(self.broken_off()) };
        let (client, last, pause) =
            (self.client.clone(), self.last, outage.next_pause(&self.client.patience));
        let response = async move {
            sleep(pause).await;
            client.rest_of(&id, last).await
        };
        self.source = Source::Asked { response: Box::pin(response), until: outage.until };
        Ok(())
    }

    fn broken_off(&mut self) -> Error {
        Error::BrokenOff(self.outage.take().and_then(|outage| outage.cause))
    }

    fn end(&mut self) {
        self.source = Source::Ended;
        self.events.clear();
    }
}

impl<C> fmt::Debug for ChunkStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkStream").field("id", &self.id).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Outage {
    fn new(patience: &Patience) -> Self {
        Self { cause: None, until: Instant::now() + patience.outage, pause: patience.pause }
    }

    /// How long to wait now. The next pause is twice as long.
    fn next_pause(&mut self, patience: &Patience) -> Duration {
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.5));
        self.pause = (2 * self.pause).clamp(patience.pause, patience.pause_max);
        pause
    }
}

/// What `data` says, which is no chunk.
fn failure(data: &str, error: serde_json::Error) -> Error {
    match serde_json::from_str::<ErrorBody>(data) {
        Ok(body) => ApiError::from(body.error).into(),
        Err(_) => Error::Undocumented(error),
    }
}
