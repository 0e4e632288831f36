//! One answer on its way: pulled by the door, journalled as it is delivered, cancelled when dropped.

use schemas::admission::Route;
use schemas::chunk::{Chunk, TokenLogprob};
use schemas::control::Say;
use schemas::token::Finish;
use schemas::{Failure, FailureKind, Fingerprint, SessionId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::door::Door;
use super::roster::Delivery;

/// Tokens after which shard-forward.0 hears how far the client is; well below the smallest useful window.
const ACKNOWLEDGE_EVERY: u32 = 16;

/// What a client gets at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Text that became releasable.
    pub text: String,
    /// Token ids.
    pub ids: Vec<u32>,
    /// One entry a token id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the last piece.
    pub finish: Option<Finish>,
}

/// One answer. Dropping it before its end frees everything that it holds in the pipeline.
pub struct Answer {
    door: Door,
    session: SessionId,
    fp: Fingerprint,
    deliveries: mpsc::Receiver<Delivery>,
    deadline: Instant,
    route: Option<Route>,
    prompt_tokens: u32,
    /// The delivered token ids: what a later attempt would be forced to repeat.
    journal: Vec<u32>,
    acknowledged: u32,
    ended: bool,
}

impl Answer {
    pub(super) fn new(
        door: Door,
        session: SessionId,
        fp: Fingerprint,
        deliveries: mpsc::Receiver<Delivery>,
        deadline: Instant,
    ) -> Self {
        Self {
            door,
            session,
            fp,
            deliveries,
            deadline,
            route: None,
            prompt_tokens: 0,
            journal: Vec::new(),
            acknowledged: 0,
            ended: false,
        }
    }

    /// Length of the prompt in tokens.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// The token ids delivered so far.
    pub fn journal(&self) -> &[u32] {
        &self.journal
    }

    /// Waits for the admission.
    pub(super) async fn admitted(&mut self) -> Result<(), Failure> {
        match self.delivery().await? {
            Delivery::Admitted { route, prompt_tokens } => {
                self.route = Some(route);
                self.prompt_tokens = prompt_tokens;
                Ok(())
            }
            Delivery::Failed(failure) => Err(failure),
            Delivery::Chunk(_) => {
                Err(Failure::new(FailureKind::Internal, "a chunk came before its admission"))
            }
        }
    }

    /// The next piece; none after the piece with a finish reason or after a failure.
    pub async fn next(&mut self) -> Option<Result<Piece, Failure>> {
        if self.ended {
            return None;
        }
        let piece = match self.delivery().await {
            Ok(Delivery::Chunk(chunk)) => Ok(self.deliver(chunk)),
            Ok(Delivery::Failed(failure)) | Err(failure) => Err(failure),
            Ok(Delivery::Admitted { .. }) => Err(Failure::new(FailureKind::Internal, "admitted twice")),
        };
        self.ended = !matches!(&piece, Ok(Piece { finish: None, .. }));
        Some(piece)
    }

    async fn delivery(&mut self) -> Result<Delivery, Failure> {
        match tokio::time::timeout_at(self.deadline, self.deliveries.recv()).await {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err(Failure::new(FailureKind::Internal, "the session was closed")),
            Err(_) => Err(self.door.timed_out(self.fp)),
        }
    }

    /// Journals a chunk and tells shard-forward.0 now and then how far the client is.
    fn deliver(&mut self, chunk: Chunk) -> Piece {
        self.journal.extend_from_slice(&chunk.ids);
        let delivered = self.journal.len() as u32;
        if chunk.finish.is_none() && delivered >= self.acknowledged + ACKNOWLEDGE_EVERY {
            self.acknowledged = delivered;
            if let Some(route) = &self.route {
                self.door.state().feedbacks.say(route, Say::Delivered(delivered));
            }
        }
        Piece { text: chunk.text, ids: chunk.ids, logprobs: chunk.logprobs, finish: chunk.finish }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The roster knows the route even when its admission has not been read here, and forgets it at the answer's end.
        if let Some(route) = self.door.state().roster.close(self.session) {
            self.door.state().feedbacks.say(&route, Say::Cancel);
        }
    }
}
