//! Answers as server-sent events, one write for whatever is there.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use pipelines::session::{Answer, Piece};
use schemas::journal::Entry;
use schemas::{Failure, FailureKind};
use serde::Serialize;

use crate::http::answer::dialect::Dialect;
use crate::http::failure::ErrorBody;
use crate::http::generate::Opened;
use crate::http::meter::Meter;
use crate::http::streams::Recording;

/// A comment goes out after this much silence, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events are joined into one write up to about this size.
const WRITE_BYTES: usize = 16 << 10;

/// The events of `opened`, each pulled from its answer only when the client has read what came before.
///
/// With a recording, those come first that were sent before and that its client does not have; `Invalid` when the client
/// says that it has more.
pub fn events<D: Dialect>(
    opened: Opened,
    mut meter: Meter,
    dialect: D,
    include_usage: bool,
    mut recording: Option<Recording>,
) -> Result<impl Stream<Item = Bytes>, Failure> {
    meter.admitted(opened.prompt_tokens);
    let sent = recording.as_mut().map(|recording| std::mem::take(&mut recording.sent)).unwrap_or_default();
    let finished = sent.iter().filter(|entry| entry.finish.is_some()).count();
    let seen = recording.as_ref().map_or(0, |recording| recording.seen);
    let unfinished = opened.answers.len() + finished;
    let pieces = opened.answers.into_iter().map(|(index, answer)| pieces(index, answer).boxed());
    let mut writer = Writer {
        pieces: pieces.collect(),
        unfinished,
        dialect,
        meter,
        include_usage,
        recording,
        unrecorded: Vec::new(),
        events: 0,
        buffer: BytesMut::new(),
        ended: false,
    };
    for Entry { index, ids, text, logprobs, finish, .. } in sent {
        writer.meter.had_grown(ids.len());
        writer.write_piece(index as usize, Piece { text, ids, logprobs, finish });
    }
    if writer.events < seen {
        let reason = format!("`Last-Event-ID` is {seen}, the stream has {} events until now", writer.events);
        return Err(Failure::invalid("Last-Event-ID", reason));
    }
    Ok(stream::unfold(writer, Writer::next))
}

type Indexed = (usize, Result<Piece, Failure>);

fn pieces(index: usize, answer: Answer) -> impl Stream<Item = Indexed> {
    stream::unfold(answer, move |mut answer| async move {
        let piece = answer.next().await?;
        Some(((index, piece), answer))
    })
}

struct Writer<D> {
    pieces: SelectAll<BoxStream<'static, Indexed>>,
    unfinished: usize,
    dialect: D,
    meter: Meter,
    include_usage: bool,
    recording: Option<Recording>,
    /// What is in the buffer and not in the journal.
    unrecorded: Vec<(usize, Piece)>,
    /// Events written, those that the client has included.
    events: u64,
    buffer: BytesMut,
    ended: bool,
}

impl<D: Dialect> Writer<D> {
    /// Waits for a piece, takes what else is there already, and returns the bytes of their events.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while !self.ended && self.buffer.is_empty() {
            let Ok(first) = tokio::time::timeout(KEEP_ALIVE, self.pieces.next()).await else {
                return Some((Bytes::from_static(b":\n\n"), self));
            };
            self.take(first);
            while !self.ended && self.buffer.len() < WRITE_BYTES {
                let Some(more) = self.pieces.next().now_or_never() else { break };
                self.take(more);
            }
        }
        self.record().await;
        if self.buffer.is_empty() {
            return None;
        }
        Some((self.buffer.split().freeze(), self))
    }

    /// Nothing is sent before it is in the journal.
    async fn record(&mut self) {
        let Some(recording) = &mut self.recording else { return };
        let pieces = std::mem::take(&mut self.unrecorded);
        if pieces.is_empty() {
            return;
        }
        match recording.log.append(pieces, recording.deadline).await {
            Ok(()) if self.unfinished == 0 => recording.images.stay(false),
            Ok(()) => {}
            Err(failure) => {
                self.buffer.clear();
                self.fail(failure);
            }
        }
    }

    fn take(&mut self, next: Option<Indexed>) {
        match next {
            Some((index, Ok(piece))) => {
                self.meter.grew(index, piece.ids.len());
                if self.recording.is_some() {
                    self.unrecorded.push((index, piece.clone()));
                }
                self.write_piece(index, piece);
            }
            Some((_, Err(failure))) => self.fail(failure),
            None => self.fail(Failure::new(FailureKind::Internal, "an answer ended without a reason")),
        }
    }

    fn write_piece(&mut self, index: usize, piece: Piece) {
        let is_last = piece.finish.is_some();
        if let Some(event) = self.dialect.event(index, piece) {
            let number = number(&self.recording, &mut self.events);
            write(&mut self.buffer, number, event);
        }
        if is_last {
            self.unfinished -= 1;
        }
        if self.unfinished == 0 {
            if self.include_usage {
                let number = number(&self.recording, &mut self.events);
                write(&mut self.buffer, number, self.dialect.usage(self.meter.usage()));
            }
            let number = number(&self.recording, &mut self.events);
            write_data(&mut self.buffer, number, |buffer| buffer.put_slice(b"[DONE]"));
            self.ended = true;
        }
    }

    /// Ends the stream with an error event; the other answers are cancelled with the last of it.
    fn fail(&mut self, failure: Failure) {
        tracing::warn!(kind = ?failure.kind, message = failure.message, "stream failed");
        write(&mut self.buffer, Number::None, &ErrorBody::from(failure));
        self.pieces.clear();
        self.ended = true;
    }
}

/// How an event is numbered.
#[derive(Clone, Copy)]
enum Number {
    /// Not: it is not in the journal.
    None,
    /// By its place in the stream.
    Some(u64),
    /// The client has it already.
    Seen,
}

/// The number of the next event.
fn number(recording: &Option<Recording>, events: &mut u64) -> Number {
    *events += 1;
    match recording {
        None => Number::None,
        Some(recording) if *events <= recording.seen => Number::Seen,
        Some(_) => Number::Some(*events),
    }
}

fn write(buffer: &mut BytesMut, number: Number, event: &impl Serialize) {
    write_data(buffer, number, |buffer| {
        if let Err(error) = serde_json::to_writer(buffer.writer(), event) {
            tracing::error!(%error, "an event cannot be written as JSON");
        }
    });
}

fn write_data(buffer: &mut BytesMut, number: Number, data: impl FnOnce(&mut BytesMut)) {
    match number {
        Number::Seen => return,
        Number::Some(number) => buffer.put_slice(format!("id: {number}\n").as_bytes()),
        Number::None => {}
    }
    buffer.put_slice(b"data: ");
    data(buffer);
    buffer.put_slice(b"\n\n");
}
