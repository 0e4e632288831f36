//! One sequence as shard-forward.0 schedules it.

use std::time::Instant;

use schemas::admission::Route;
use schemas::control::Open;
use schemas::hidden::Slice;
use schemas::prompt::Prompt;
use schemas::request::Context;
use schemas::{InstanceId, RouteId, SequenceId};

use super::images::Images;
use crate::engine::Overlay;

/// A sequence that was admitted and has not ended.
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    pub(super) context: Context,
    pub(super) route: Route,
    pub(super) deadline: Instant,
    prompt: Prompt,
    /// Prompt, then answer.
    ids: Vec<u32>,
    images: Images,
    prompt_tokens: u32,
    /// Tokens of the answer that the session already had when this number was given to the sequence.
    forced: u32,
    /// Tokens of the answer that the client has taken.
    delivered: u32,
    /// Positions whose keys and values are computed, or will be when the step on its way has passed.
    computed: u32,
    /// Whether the later stages know of it.
    opened: bool,
    /// Whether a row of it is on its way whose token must come before the next.
    pub(super) awaits_token: bool,
    /// The last step that had a row of it.
    pub(super) last_step: u64,
}

impl Sequence {
    /// A sequence for `prompt`, whose token ids and images are `content`.
    pub(super) fn new(
        id: SequenceId,
        prompt: Prompt,
        content: (Vec<u32>, Images),
        route: Route,
        deadline: Instant,
    ) -> Self {
        let (ids, images) = content;
        let prompt_tokens = prompt.prompt_tokens;
        let forced = ids.len() as u32 - prompt_tokens;
        Self {
            id,
            context: prompt.context.clone(),
            route,
            deadline,
            prompt,
            ids,
            images,
            prompt_tokens,
            forced,
            delivered: forced,
            computed: 0,
            opened: false,
            awaits_token: false,
            last_step: 0,
        }
    }

    pub(super) fn route_id(&self) -> RouteId {
        self.route.id
    }

    /// Positions whose keys and values exist.
    pub(super) fn computed(&self) -> u32 {
        self.computed
    }

    /// Rows still to compute before the next token can be drawn.
    pub(super) fn rows_ready(&self) -> u32 {
        if self.awaits_token { 0 } else { self.ids.len() as u32 - self.computed }
    }

    /// Whether the next row is the one after the last token, and no prompt is left to prefill.
    pub(super) fn decodes(&self) -> bool {
        self.computed + 1 == self.ids.len() as u32 && self.computed > 0
    }

    /// Tokens that were made and that the client has not taken.
    pub(super) fn unread(&self) -> u32 {
        (self.ids.len() as u32 - self.prompt_tokens).saturating_sub(self.delivered)
    }

    /// The client has taken the answer up to `tokens`.
    pub(super) fn acknowledge(&mut self, tokens: u32) {
        self.delivered = self.delivered.max(tokens);
    }

    /// Takes the next `rows` rows into a step.
    pub(super) fn take(&mut self, rows: u32) -> Slice {
        let start = self.computed;
        let end = start + rows;
        let sample = end == self.ids.len() as u32;
        self.computed = end;
        self.awaits_token = sample;
        Slice { sequence: self.id, start, ids: self.ids[start as usize..end as usize].to_vec(), sample }
    }

    /// What a step embeds `slice`, whose rows begin at `first_row`, with, beside its token ids.
    pub(super) fn overlays(&self, slice: &Slice, first_row: usize) -> Vec<Overlay> {
        self.images.overlays(slice.start, slice.start + slice.ids.len() as u32, first_row)
    }

    /// Appends the drawn token at `position`; false when it is a repeat.
    pub(super) fn push(&mut self, position: u32, id: u32) -> bool {
        if !self.awaits_token || position != self.ids.len() as u32 {
            return false;
        }
        self.ids.push(id);
        self.awaits_token = false;
        true
    }

    /// What later stages must know, the first time that rows of this number are sent.
    pub(super) fn open(&mut self, me: InstanceId) -> Option<Open> {
        if std::mem::replace(&mut self.opened, true) {
            return None;
        }
        debug_assert_eq!(self.route.shards.first(), Some(&me));
        Some(Open {
            sequence: self.id,
            context: self.context.clone(),
            route: self.route.id,
            shards: self.route.shards.clone(),
            sample: self.route.sample,
            detokenize: self.route.detokenize,
            prompt_tokens: self.prompt_tokens,
            forced_tokens: self.forced,
            max_tokens: self.prompt.max_tokens,
            generation: self.prompt.generation.clone(),
            eos: self.prompt.eos.clone(),
            grids: self.prompt.grids.clone(),
        })
    }

    /// Whether it has grown beyond `length` since it was opened with at most so many tokens.
    pub(super) fn has_outgrown(&self, length: u32) -> bool {
        let opened = self.prompt_tokens + self.forced;
        self.computed > 0 && !self.awaits_token && opened <= length && self.ids.len() as u32 > length
    }

    /// Whether later stages hold something of it.
    pub(super) fn is_open(&self) -> bool {
        self.opened
    }

    /// Gives up its keys and values: it is computed anew as sequence `id`, with the tokens it has made forced.
    pub(super) fn begin_anew(&mut self, id: SequenceId) {
        self.id = id;
        self.forced = self.ids.len() as u32 - self.prompt_tokens;
        self.computed = 0;
        self.opened = false;
    }
}
