//! Chunks of one call, merged by answer and sorted by door.

use std::collections::{BTreeMap, HashMap};

use pipelines::Outbox;
use schemas::chunk::{Chunk, Chunks};
use schemas::control::Open;
use schemas::{InstanceId, RouteId, Subject};

use crate::answer::Piece;

/// Size from which a door's chunks are split over several messages, in bytes: well below a broker's smallest limit.
const MESSAGE_BYTES: usize = 256 * 1024;

/// What leaves for the doors.
#[derive(Debug, Default)]
pub struct Outgoing {
    doors: BTreeMap<InstanceId, Vec<Chunk>>,
    /// Where in its door's list an answer's chunk is.
    places: HashMap<RouteId, usize>,
}

impl Outgoing {
    /// Adds `piece` to the chunk of the answer of `open`.
    pub fn push(&mut self, open: &Open, piece: Piece) {
        let chunks = self.doors.entry(open.context.door).or_default();
        let place = *self.places.entry(open.route).or_insert_with(|| {
            chunks.push(Chunk {
                session: open.context.session,
                attempt: open.context.attempt,
                route: open.route,
                first: piece.index,
                ids: Vec::new(),
                text: String::new(),
                logprobs: Vec::new(),
                finish: None,
            });
            chunks.len() - 1
        });
        let chunk = &mut chunks[place];
        chunk.ids.push(piece.id);
        chunk.text.push_str(&piece.text);
        chunk.logprobs.extend(piece.logprob);
        chunk.finish = piece.finish;
    }

    /// Publishes one message a door, more only where one would be too large.
    pub fn publish(self, out: &mut Outbox) {
        for (door, chunks) in self.doors {
            let mut message = Vec::new();
            let mut bytes = 0;
            for chunk in chunks {
                bytes += size(&chunk);
                message.push(chunk);
                if bytes >= MESSAGE_BYTES {
                    out.publish(Subject::chunk(door), &Chunks { chunks: std::mem::take(&mut message) });
                    bytes = 0;
                }
            }
            if !message.is_empty() {
                out.publish(Subject::chunk(door), &Chunks { chunks: message });
            }
        }
    }
}

/// About how many bytes `chunk` takes in a message.
fn size(chunk: &Chunk) -> usize {
    let top = |entry: &(Vec<u8>, f32)| 16 + entry.0.len();
    let logprobs = chunk.logprobs.iter();
    let logprobs: usize =
        logprobs.map(|it| 32 + it.bytes.len() + it.top.iter().map(top).sum::<usize>()).sum();
    128 + 4 * chunk.ids.len() + chunk.text.len() + logprobs
}
