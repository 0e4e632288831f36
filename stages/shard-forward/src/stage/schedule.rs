//! What the next step holds: every sequence that decodes, then as much prefill as the budget leaves.

use std::collections::HashSet;

use pipelines::{Inbox, Outbox};
use schemas::control::{Control, Head};
use schemas::hidden::{Hidden, Slice};
use schemas::{InstanceId, SequenceId};

use super::first::First;
use super::lane::{Ended, Sent};
use crate::engine::Overlay;

/// What a message of hidden states has beside the states: decisions, ids, header.
const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

impl First {
    /// Computes and sends one step, on the lane that has waited longest; returns whether another may follow at once.
    pub(super) fn run_step(&mut self, inbox: &Inbox, out: &mut Outbox) -> bool {
        let lanes: HashSet<Vec<InstanceId>> = self
            .sequences
            .values()
            .filter(|it| it.rows_ready() > 0 && self.may_run(it))
            .map(|it| it.route.shards.clone())
            .chain(
                self.lanes
                    .lanes
                    .iter()
                    .filter(|(_, it)| !it.control.is_empty())
                    .map(|(lane, _)| lane.clone()),
            )
            .collect();
        let mut free: Vec<Vec<InstanceId>> = lanes.into_iter().filter(|lane| self.has_room(lane)).collect();
        free.sort_by_key(|lane| self.in_flight(lane));
        for lane in free {
            // The step will carry the releases, before its rows.
            let ended = self.lanes.lanes.get_mut(&lane).map(|it| std::mem::take(&mut it.ended));
            for Ended { route, blocks, .. } in ended.unwrap_or_default() {
                self.usage.end(&route, blocks);
            }
            let slices = self.fill(&lane, inbox.payload_max);
            if slices.is_empty() && !self.has_control(&lane) {
                continue;
            }
            self.send_step(lane, slices, inbox, out);
            return true;
        }
        false
    }

    fn in_flight(&self, lane: &[InstanceId]) -> usize {
        self.lanes.lanes.get(lane).map_or(0, |it| it.in_flight)
    }

    fn has_control(&self, lane: &[InstanceId]) -> bool {
        self.lanes.lanes.get(lane).is_some_and(|it| !it.control.is_empty())
    }

    fn on_lane<'a>(&'a self, lane: &'a [InstanceId]) -> impl Iterator<Item = &'a super::sequence::Sequence> {
        self.sequences.values().filter(move |it| it.route.shards == lane)
    }

    fn has_room(&self, lane: &[InstanceId]) -> bool {
        self.others_are_back() && self.in_flight(lane) < self.depth.limit(self.on_lane(lane).count())
    }

    /// Takes rows from the sequences of a lane.
    fn fill(&mut self, lane: &[InstanceId], payload_max: usize) -> Vec<Slice> {
        let by_payload = payload_max.saturating_sub(MESSAGE_OVERHEAD_BYTES) / self.row_bytes.max(1);
        let mut budget = self.budget.rows().min(by_payload.max(1)) as u32;
        self.renew_outgrown(lane);
        let window = self.settings.window;
        let steps = self.depth.limit(self.on_lane(lane).count()).max(1);
        let decoding = self.on_lane(lane).filter(|it| it.decodes() || it.awaits_token).count();
        let mut decode: Vec<(u64, SequenceId)> = Vec::new();
        let mut prefill: Vec<SequenceId> = Vec::new();
        for it in self.on_lane(lane).filter(|it| it.rows_ready() > 0 && self.may_run(it)) {
            match it.decodes() {
                true if it.unread() <= window => decode.push((it.last_step, it.id)),
                true => {}
                false => prefill.push(it.id),
            }
        }
        // Those served longest ago come first, so that a small budget starves nobody.
        decode.sort_unstable();
        decode.truncate(decoding.div_ceil(steps));
        let mut slices = Vec::with_capacity(decode.len() + prefill.len());
        for (_, id) in decode {
            slices.extend(self.take(id, 1, &mut budget));
        }
        for id in prefill {
            slices.extend(self.take(id, u32::MAX, &mut budget));
        }
        // A later sequence's need may have preempted one that was taken before.
        slices.retain(|slice| self.sequences.contains_key(&slice.sequence));
        slices
    }

    /// Begins those of a lane anew whose keys and values are other ones at the length that they have come to.
    fn renew_outgrown(&mut self, lane: &[InstanceId]) {
        let Some(length) = self.shard.engine.short_length() else { return };
        let outgrown = self.on_lane(lane).filter(|it| it.has_outgrown(length) && self.may_run(it));
        for id in outgrown.map(|it| it.id).collect::<Vec<_>>() {
            self.begin_anew(id);
        }
    }

    /// Takes up to `rows` rows of a sequence into the step, if there are blocks for them or can be made.
    fn take(&mut self, id: SequenceId, rows: u32, budget: &mut u32) -> Option<Slice> {
        let it = self.sequences.get(&id)?;
        let rows = it.rows_ready().min(rows).min(*budget);
        if rows == 0 {
            return None;
        }
        let computed = it.computed();
        let blocks = self.blocks_for(computed + rows) - self.blocks_for(computed);
        while self.routes.blocks_left(&self.sequences.get(&id)?.route, &self.peers, &self.usage) < blocks {
            self.preempt_for(id)?;
        }
        let step = self.lanes.upcoming_step();
        let it = self.sequences.get_mut(&id)?;
        self.usage.grow(&it.route, blocks);
        it.last_step = step;
        *budget -= rows;
        Some(it.take(rows))
    }

    /// The image embeddings among the rows of a step.
    fn overlays(&self, slices: &[Slice]) -> Vec<Overlay> {
        let mut overlays = Vec::new();
        let mut row = 0;
        for slice in slices {
            overlays.extend(
                self.sequences.get(&slice.sequence).map(|it| it.overlays(slice, row)).into_iter().flatten(),
            );
            row += slice.ids.len();
        }
        overlays
    }

    /// Frees the blocks of the youngest other sequence on the same lane that has no row on its way.
    ///
    /// It keeps its place, its tokens and its session, and is computed anew from them when there is room.
    fn preempt_for(&mut self, id: SequenceId) -> Option<()> {
        let lane = self.sequences.get(&id)?.route.shards.clone();
        let step = self.lanes.upcoming_step();
        let victim = self
            .on_lane(&lane)
            .filter(|it| it.id > id && it.computed() > 0 && !it.awaits_token && it.last_step != step)
            .map(|it| it.id)
            .max()?;
        metrics::counter!("tokenway_preemptions_total").increment(1);
        self.begin_anew(victim)
    }

    /// Frees the blocks of a sequence without a row on its way, by the step that is being made; it is computed from its tokens, as
    /// another.
    fn begin_anew(&mut self, id: SequenceId) -> Option<()> {
        let mut it = self.sequences.remove(&id)?;
        self.usage.shrink(&it.route, self.blocks_for(it.computed()));
        self.release(&it);
        let number = self.number();
        it.begin_anew(number);
        self.alone_goes_on_as(id, number);
        self.renumber(it.route_id(), number);
        self.sequences.insert(number, it);
        Some(())
    }

    fn send_step(&mut self, lane: Vec<InstanceId>, slices: Vec<Slice>, inbox: &Inbox, out: &mut Outbox) {
        let step = self.lanes.next_step();
        let mut control: Vec<Control> =
            self.lanes.lanes.get_mut(&lane).map(|it| std::mem::take(&mut it.control)).unwrap_or_default();
        for slice in &slices {
            let open = self.sequences.get_mut(&slice.sequence).and_then(|it| it.open(self.me));
            control.extend(open.map(|open| Control::Open(Box::new(open))));
        }
        let expected: HashSet<SequenceId> =
            slices.iter().filter(|slice| slice.sample).map(|slice| slice.sequence).collect();
        let sequences = slices.iter().map(|slice| slice.sequence).collect();
        let rows = slices.iter().map(|slice| slice.ids.len()).sum();
        let sent = Sent { lane, sequences, tokens: expected.len(), expected, rows, at: inbox.now };
        if !slices.is_empty() {
            self.lanes.send(step, sent);
        }
        let head = Head { origin: self.me, step, control };
        let overlays = self.overlays(&slices);
        self.shard.step(self.me, Hidden { head, slices, states: None }, &overlays, out);
    }
}
