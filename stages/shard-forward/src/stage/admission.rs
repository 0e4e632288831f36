//! Prompts on their way in: read, kept until there is room, admitted, oldest first.

use std::time::{Duration, Instant};

use pipelines::stage::{Ticket, refused};
use pipelines::{Job, Outbox};
use schemas::admission::Event;
use schemas::prompt::Prompt;
use schemas::request::Payload;
use schemas::{Failure, FailureKind, RouteId, wire};

use super::first::First;
use super::images::{self, Images};
use super::sequence::Sequence;

/// A prompt that was pulled and does not fit yet.
pub(super) struct Waiting {
    pub(super) prompt: Prompt,
    ids: Vec<u32>,
    images: Images,
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
}

impl First {
    pub(super) fn take_job(&mut self, job: Job, inbox_now: Instant, out: &mut Outbox) {
        let prompt: Prompt = match wire::decode(&job.payload) {
            Ok(prompt) => prompt,
            Err(error) => {
                refused("prompt", &error);
                return out.ack(job.ticket);
            }
        };
        let images = Images::read(&prompt, &job, self.settings.dtype.into(), self.row_bytes);
        let refusal = match ids_of(&prompt, &job).zip(images) {
            None => Failure::new(
                FailureKind::Unavailable,
                "the stored prompt or the images' embeddings have expired",
            ),
            Some((ids, images)) => match self.too_large(&prompt) {
                Some(failure) => failure,
                None => {
                    let left = Duration::from_millis(prompt.context.remaining_ms).saturating_sub(job.age);
                    let deadline = inbox_now + left;
                    self.wait(Waiting { prompt, ids, images, ticket: job.ticket, deadline });
                    return;
                }
            },
        };
        out.fail(&prompt.context, None, refusal);
        images::blob(&prompt).into_iter().for_each(|blob| out.discard(blob));
        out.ack(job.ticket);
    }

    /// Answers that have begun come before new ones.
    fn wait(&mut self, it: Waiting) {
        let is_new = |it: &Waiting| it.prompt.context.attempt == 0;
        let place = match is_new(&it) {
            true => self.waiting.len(),
            false => self.waiting.iter().position(is_new).unwrap_or(self.waiting.len()),
        };
        self.waiting.insert(place, it);
    }

    /// A sequence that can never fit must not wait at the head of the queue for ever.
    fn too_large(&self, prompt: &Prompt) -> Option<Failure> {
        let tokens = prompt.prompt_tokens.saturating_add(prompt.max_tokens);
        let blocks_max = self.routes.blocks_max(&self.peers);
        if self.blocks_for(tokens) <= blocks_max {
            return None;
        }
        let held = u64::from(blocks_max) * u64::from(self.shard.engine.block_tokens());
        let message = format!("prompt and answer take up to {tokens} tokens, the KV cache holds {held}");
        Some(Failure::invalid("max_tokens", message).with_code("context_length_exceeded"))
    }

    /// Admits what fits, oldest first, and nothing beside a request that is served alone; returns whether anything was.
    pub(super) fn admit(&mut self, now: Instant, out: &mut Outbox) -> bool {
        let mut admitted = false;
        while let Some(next) = self.waiting.front().filter(|_| self.alone.is_none()) {
            // Room for the prompt and one more block; what grows beyond is preempted when it must be.
            let blocks = self.blocks_for(next.ids.len() as u32 + 1);
            let id = RouteId(rand::random());
            let Some(route) = self.routes.choose(id, &self.peers, &self.usage, blocks) else { break };
            let Some(Waiting { prompt, ids, images, ticket, deadline }) = self.waiting.pop_front() else {
                break;
            };
            let prompt_tokens = prompt.prompt_tokens;
            out.notify(&prompt.context, Event::Admitted { route: route.clone(), prompt_tokens });
            images::blob(&prompt).into_iter().for_each(|blob| out.discard(blob));
            out.ack(ticket);
            self.usage.begin(&route);
            let sequence = self.number();
            if prompt.context.alone {
                self.serve_alone(sequence, now);
            }
            self.by_route.insert(id, sequence);
            self.sequences.insert(sequence, Sequence::new(sequence, prompt, (ids, images), route, deadline));
            admitted = true;
        }
        admitted
    }
}

/// The prompt's token ids; none when they were stored apart and are no longer there.
fn ids_of(prompt: &Prompt, job: &Job) -> Option<Vec<u32>> {
    let bytes: &[u8] = match &prompt.ids {
        Payload::Inline(bytes) => bytes,
        Payload::Blob(_) => job.blobs.first()?.as_ref()?,
    };
    let ids: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
    (!ids.is_empty() && ids.len() as u32 >= prompt.prompt_tokens).then_some(ids)
}
