//! Answers as server-sent events, one write for whatever is there.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use pipelines::session::{Answer, Piece};
use schemas::{Failure, FailureKind};
use serde::Serialize;

use crate::http::answer::dialect::Dialect;
use crate::http::failure::ErrorBody;
use crate::http::generate::Opened;
use crate::http::meter::Meter;

/// A comment goes out after this much silence, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events are joined into one write up to about this size.
const WRITE_BYTES: usize = 16 << 10;

/// The events of `opened`, each pulled from its answer only when the client has read what came before.
pub fn events<D: Dialect>(
    opened: Opened,
    mut meter: Meter,
    dialect: D,
    include_usage: bool,
) -> impl Stream<Item = Bytes> {
    meter.admitted(opened.prompt_tokens);
    let unfinished = opened.answers.len();
    let pieces = opened.answers.into_iter().enumerate().map(|(index, answer)| pieces(index, answer).boxed());
    let writer = Writer {
        pieces: pieces.collect(),
        unfinished,
        dialect,
        meter,
        include_usage,
        buffer: BytesMut::new(),
        ended: false,
    };
    stream::unfold(writer, Writer::next)
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
        if self.buffer.is_empty() {
            return None;
        }
        Some((self.buffer.split().freeze(), self))
    }

    fn take(&mut self, next: Option<Indexed>) {
        match next {
            Some((index, Ok(piece))) => self.write_piece(index, piece),
            Some((_, Err(failure))) => self.fail(failure),
            None => self.fail(Failure::new(FailureKind::Internal, "an answer ended without a reason")),
        }
    }

    fn write_piece(&mut self, index: usize, piece: Piece) {
        self.meter.grew(index, piece.ids.len());
        let is_last = piece.finish.is_some();
        if let Some(event) = self.dialect.event(index, piece) {
            write(&mut self.buffer, event);
        }
        if is_last {
            self.unfinished -= 1;
        }
        if self.unfinished == 0 {
            if self.include_usage {
                write(&mut self.buffer, self.dialect.usage(self.meter.usage()));
            }
            self.buffer.put_slice(b"data: [DONE]\n\n");
            self.ended = true;
        }
    }

    /// Ends the stream with an error event; the other answers are cancelled with the last of it.
    fn fail(&mut self, failure: Failure) {
        tracing::warn!(kind = ?failure.kind, message = failure.message, "stream failed");
        write(&mut self.buffer, &ErrorBody::from(failure));
        self.pieces.clear();
        self.ended = true;
    }
}

fn write(buffer: &mut BytesMut, event: &impl Serialize) {
    buffer.put_slice(b"data: ");
    if let Err(error) = serde_json::to_writer((&mut *buffer).writer(), event) {
        tracing::error!(%error, "an event cannot be written as JSON");
    }
    buffer.put_slice(b"\n\n");
}
