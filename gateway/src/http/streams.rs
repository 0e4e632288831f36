//! Streams that outlive their gateway: begun in the journal, taken up again by whichever gateway their client asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use pipelines::journal::{Journal, Log, Recorded};
use pipelines::record::Record;
use pipelines::session::{Door, Images, TakenIn};
use schemas::journal::{Dialect, Entry, Opening};
use schemas::request::{Generation, Payload};
use schemas::{Failure, FailureKind, StreamId};
use tokio::time::Instant;

use crate::http::answer::dialect::Head;
use crate::http::generate::Opened;

/// The header that names the stream of a response.
pub const STREAM_ID: &str = "x-stream-id";

/// A stream in the journal.
pub struct Recording {
    /// Where its pieces are recorded.
    pub log: Log,
    /// What was sent before, by whichever gateway.
    pub sent: Vec<Entry>,
    /// The last of the events that the client has; 0 is none.
    pub seen: u64,
    /// When its time is up.
    pub deadline: Instant,
    /// Its images, which stay in the store until the stream has ended.
    pub images: Arc<Images>,
}

/// What the journal has to know of a new stream beside its prompts.
pub struct Asked {
    /// How its events are written.
    pub dialect: Dialect,
    /// What its events repeat.
    pub head: Head,
    /// Whether the client asked for the usage.
    pub include_usage: bool,
    /// Answers to each prompt.
    pub n: u32,
    /// Everything else about the answers.
    pub generation: Generation,
    /// BLAKE3 of the client's API key.
    pub key: Option<[u8; 32]>,
}

/// A stream that is taken up again.
pub struct Resumed {
    /// How it began.
    pub opening: Opening,
    /// What its events repeat.
    pub head: Head,
    /// The answers that have not ended.
    pub opened: Opened,
    /// Where it goes on.
    pub recording: Recording,
}

/// The way of streams into the journal and out of it; without a journal, streams end with their gateway.
pub struct Streams {
    /// The journal, unless it is turned off.
    pub journal: Option<Journal>,
}

impl Streams {
    /// Begins a stream of `opened`; none without a journal, and when it does not record: the client is served all the same.
    pub async fn begin(&self, asked: Asked, opened: &Opened, record: &Record) -> Option<Recording> {
        let journal = self.journal.as_ref()?;
        let opening = Opening {
            stream: StreamId(rand::random()),
            epoch: rand::random(),
            door: schemas::InstanceId(0),
            fp: record.fingerprint()?,
            key: asked.key,
            dialect: asked.dialect,
            document: asked.head.id,
            now_unix: asked.head.created,
            include_usage: asked.include_usage,
            inputs: opened.inputs.clone(),
            n: asked.n,
            images: opened.images.refs(),
            generation: asked.generation,
            prompt_tokens: opened.prompt_tokens,
            sent: Payload::Inline(Vec::new()),
        };
        // Says itself why, when it fails.
        let log = journal.begin(opening, Vec::new()).await.ok()?;
        opened.images.stay(true);
        let images = opened.images.clone();
        Some(Recording { log, sent: Vec::new(), seen: 0, deadline: deadline(record), images })
    }

    /// Takes up the stream with this id for a client that has the events up to `seen`.
    ///
    /// `NotFound` when the journal does not have it, or not for the client with this key.
    pub async fn resume(
        &self,
        id: &str,
        key: Option<[u8; 32]>,
        seen: u64,
        door: &Door,
    ) -> Result<Resumed, Failure> {
        let recorded = self.read(id).await?.filter(|recorded| recorded.opening.key == key);
        let Some((journal, Recorded { mut opening, mut sent })) = self.journal.as_ref().zip(recorded) else {
            let reason = format!("the stream `{id}` is not known: it is too old, or never was");
            return Err(Failure::new(FailureKind::NotFound, reason).with_code("stream_not_found"));
        };
        let record = door.pipelines().into_iter().find(|record| record.fingerprint() == Some(opening.fp));
        let Some(record) = record else {
            let reason = format!("the pipeline of the stream `{id}` does not exist any more");
            return Err(Failure::new(FailureKind::NotFound, reason).with_code("model_not_found"));
        };
        let finished = sent.iter().filter(|entry| entry.finish.is_some()).count();
        let has_ended = finished == opening.inputs.len() * opening.n as usize;
        // What has ended needs none, and has none.
        let images = door.adopt(if has_ended { &[] } else { &opening.images }).await?;
        images.stay(!has_ended);
        opening.images = images.refs();
        opening.epoch = rand::random();
        for entry in &mut sent {
            entry.epoch = opening.epoch;
        }
        let log = journal.begin(opening.clone(), sent.clone()).await?;
        let opened = reopen(door, &record, &opening, &sent, &images).await?;
        let head = Head {
            id: opening.document.clone(),
            created: opening.now_unix,
            model: record.model.clone(),
            fingerprint: record.fp.clone(),
        };
        let recording = Recording { log, sent, seen, deadline: deadline(&record), images };
        Ok(Resumed { opening, head, opened, recording })
    }

    async fn read(&self, id: &str) -> Result<Option<Recorded>, Failure> {
        let (Some(journal), Ok(stream)) = (&self.journal, id.parse::<StreamId>()) else { return Ok(None) };
        journal.read(stream).await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "journal cannot be read");
            Failure::new(FailureKind::Unavailable, "the journal of streams cannot be read")
        })
    }
}

/// Goes on with the answers that have not ended.
async fn reopen(
    door: &Door,
    record: &Record,
    opening: &Opening,
    sent: &[Entry],
    images: &Arc<Images>,
) -> Result<Opened, Failure> {
    let answers = opening.inputs.len() as u32 * opening.n;
    let mut unfinished: BTreeMap<u32, Vec<u32>> = (0..answers).map(|index| (index, Vec::new())).collect();
    for entry in sent {
        if entry.finish.is_some() {
            unfinished.remove(&entry.index);
        } else if let Some(ids) = unfinished.get_mut(&entry.index) {
            ids.extend_from_slice(&entry.ids);
        }
    }
    // Each prompt once, whatever the number of its answers.
    let needed: BTreeSet<u32> = unfinished.keys().map(|index| index / opening.n).collect();
    let adopting = needed.into_iter().map(|place| async move {
        let prompt = door.adopt_prompt(opening.inputs[place as usize].clone()).await?;
        Ok::<_, Failure>((place, prompt))
    });
    let prompts: BTreeMap<u32, TakenIn> = try_join_all(adopting).await?.into_iter().collect();
    let prompts = &prompts;
    let reopening = unfinished.into_iter().map(|(index, ids)| async move {
        let prompt = prompts[&(index / opening.n)].clone();
        let answer = door.reopen(record, opening, index, (prompt, images.clone()), ids).await?;
        Ok::<_, Failure>((index as usize, answer))
    });
    Ok(Opened {
        answers: try_join_all(reopening).await?,
        prompt_tokens: opening.prompt_tokens,
        inputs: opening.inputs.clone(),
        images: images.clone(),
    })
}

fn deadline(record: &Record) -> Instant {
    Instant::now() + Duration::from_secs(record.deadline_seconds)
}
