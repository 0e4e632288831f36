//! The stage: requests from its queue, prompts into the queue of shard-forward.0.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use pipelines::stage::refused;
use pipelines::{Inbox, Job, Outbox, Stage, Status};
use schemas::prompt::Prompt;
use schemas::request::{BlobRef, Payload, Request};
use schemas::{Failure, FailureKind, Fingerprint, Role, Subject, wire};

use crate::input;
use crate::model::Model;

/// Entries taken from the queue at once.
const ROOM: usize = 64;

/// Longest list of ids that travels in the entry, in bytes; an entry is at most 64 KiB, with images and settings beside it.
const INLINE_BYTES: usize = 40 * 1024;

/// Makes prompts.
#[derive(Debug)]
pub struct Tokenize {
    fp: Fingerprint,
    model: Model,
    done: u64,
}

impl Tokenize {
    /// The stage of the pipeline with fingerprint `fp`.
    pub fn new(fp: Fingerprint, model: Model) -> Self {
        Self { fp, model, done: 0 }
    }

    fn answer(&self, request: &Request, job: &Job, out: &mut Outbox) {
        match self.prompt(request, job) {
            Ok(prompt) => {
                let next = if prompt.images.is_empty() { Role::ShardForward(0) } else { Role::VisionEncode };
                let payload = wire::encode(&with_blob(prompt, out));
                let queue = match request.context.attempt {
                    0 => Subject::queue(self.fp, next),
                    _ => Subject::resume(self.fp, next),
                };
                out.enqueue(queue, request.context.clone(), payload);
            }
            Err(failure) => out.fail(&request.context, None, failure),
        }
    }

    /// The prompt, or why there is none; a panic in a library ends this request only.
    fn prompt(&self, request: &Request, job: &Job) -> Result<Prompt, Failure> {
        if request.context.remaining_ms == 0 {
            let message = "the deadline passed while the request waited for a tokenizer";
            return Err(Failure::new(FailureKind::DeadlineExceeded, message));
        }
        if job.is_poison {
            return Err(Failure::poison());
        }
        catch_unwind(AssertUnwindSafe(|| self.model.tokenize(request, &job.blobs)))
            .unwrap_or_else(|_| Err(Failure::new(FailureKind::Internal, "the tokenizer panicked")))
    }
}

impl Stage for Tokenize {
    fn room(&self) -> usize {
        ROOM
    }

    fn attachments(&self, entry: &Bytes) -> Vec<BlobRef> {
        match wire::decode::<Request>(entry) {
            Ok(request) => input::blobs(&request),
            // `process` meets the same error and reports it.
            Err(_) => Vec::new(),
        }
    }

    fn process(&mut self, inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        for job in &inbox.jobs {
            match wire::decode::<Request>(&job.payload) {
                Ok(request) => self.answer(&after_wait(request, job.age), job, out),
                Err(error) => refused("request", &error),
            }
            out.ack(job.ticket);
            self.done += 1;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status { done: self.done, ..Status::default() }
    }
}

/// `request` with the time left after `age` in the queue.
fn after_wait(mut request: Request, age: Duration) -> Request {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    request.context.remaining_ms = request.context.remaining_ms.saturating_sub(age_ms);
    request
}

/// `prompt` with its ids in the blob store when they are too long for an entry.
fn with_blob(mut prompt: Prompt, out: &mut Outbox) -> Prompt {
    if let Payload::Inline(ids) = &mut prompt.ids
        && ids.len() > INLINE_BYTES
    {
        let content = std::mem::take(ids).into();
        prompt.ids = Payload::Blob(out.store(prompt.context.clone(), content));
    }
    prompt
}
