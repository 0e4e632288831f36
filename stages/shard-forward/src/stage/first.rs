//! The first shard: admits prompts, decides what each step holds, and is the only one to open and release sequences.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use pipelines::graph::ShardForward;
use pipelines::stage::refused;
use pipelines::{Inbox, Outbox, Peers, Stage, Status};
use schemas::admission::Route;
use schemas::control::{Control, Feedback, Say};
use schemas::logits::NeedRow;
use schemas::presence::Room;
use schemas::prompt::Prompt;
use schemas::request::{BlobRef, Payload};
use schemas::token::Tokens;
use schemas::{Edge, Failure, FailureKind, InstanceId, Role, RouteId, SequenceId, wire};

use super::admission::Waiting;
use super::alone::Alone;
use super::depth::Depth;
use super::farewell;
use super::images;
use super::lane::{Budget, Ended, Lanes, Sent};
use super::sequence::Sequence;
use super::shard::{Shard, gone};
use super::usage::{Routes, Usage};

/// How long after a reconnect later stages are told what is still alive: by then they have reconnected, too.
pub(super) const SWEEP_AFTER: Duration = Duration::from_secs(2);

/// Telling later stages what is still alive, until nothing is that releases may have been lost of.
struct Sweep {
    /// When the next time is.
    at: Instant,
    /// The newest sequence there was.
    newest: SequenceId,
}

/// The scheduling shard.
pub(super) struct First {
    pub(super) shard: Shard,
    pub(super) settings: ShardForward,
    pub(super) shards: u16,
    /// Bytes of one row of hidden states.
    pub(super) row_bytes: usize,
    pub(super) me: InstanceId,
    pub(super) peers: Peers,
    pub(super) routes: Routes,
    pub(super) usage: Usage,
    pub(super) sequences: BTreeMap<SequenceId, Sequence>,
    pub(super) by_route: HashMap<RouteId, SequenceId>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) alone: Option<Alone>,
    pub(super) lanes: Lanes,
    pub(super) depth: Depth,
    pub(super) budget: Budget,
    pub(super) last_sequence: u64,
    /// Set after releases may have been lost.
    sweep: Option<Sweep>,
    pub(super) done: u64,
}

impl First {
    pub(super) fn new(shard: Shard, settings: ShardForward, shards: u16, row_bytes: usize) -> Self {
        let own = Room { sequences: settings.max_sequences, kv_blocks: shard.engine.blocks_total() };
        let me = InstanceId(0);
        Self {
            routes: Routes::new(me, shard.fp, shards, own),
            depth: Depth::new(settings.in_flight),
            budget: Budget::new(
                Duration::from_millis(settings.step_ms.into()),
                settings.step_tokens as usize,
            ),
            shard,
            settings,
            shards,
            row_bytes,
            me,
            peers: Peers::default(),
            usage: Usage::default(),
            sequences: BTreeMap::new(),
            by_route: HashMap::new(),
            waiting: VecDeque::new(),
            alone: None,
            lanes: Lanes::default(),
            last_sequence: 0,
            sweep: None,
            done: 0,
        }
    }

    fn own_room(&self) -> Room {
        Room { sequences: self.settings.max_sequences, kv_blocks: self.shard.engine.blocks_total() }
    }

    /// Takes in who is alive; requests whose route has lost an instance end, or one that has lost something on its way.
    fn meet(&mut self, inbox: &Inbox, out: &mut Outbox) {
        if self.me != inbox.instance {
            self.me = inbox.instance;
            self.routes = Routes::new(self.me, self.shard.fp, self.shards, self.own_room());
        }
        if inbox.peers.is_same(&self.peers) {
            return;
        }
        let before = std::mem::replace(&mut self.peers, inbox.peers.clone());
        self.end_orphans(&before, out);
        self.depth.set_distinct(self.routes.distinct_compute(&self.peers));
        let shaken = self.shaken(&before);
        let is_shaken = |instance: &InstanceId| shaken.contains(instance);
        let mut broken: Vec<(SequenceId, Failure)> = self
            .sequences
            .values()
            .filter_map(|it| match self.routes.dead(&it.route, &self.peers) {
                Some(role) => Some((it.id, gone(role))),
                None => {
                    let Route { shards, sample, detokenize, .. } = &it.route;
                    let mut others = shards.iter().chain([sample, detokenize]);
                    others.any(is_shaken).then(|| (it.id, Failure::bus_away()))
                }
            })
            .collect();
        if self.later().any(|peer| shaken.contains(&peer) || !before.is_alive(peer)) {
            // One that comes back may not have heard of releases.
            self.sweep_after(inbox.now);
        }
        if !shaken.is_empty() {
            let waiting = self.give_up_steps(&shaken, inbox.now);
            broken.extend(waiting.map(|sequence| (sequence, Failure::bus_away())));
        }
        let peers = self.peers.clone();
        let me = self.me;
        let is_dead = |lane: &[InstanceId]| lane.iter().any(|shard| *shard != me && !peers.is_alive(*shard));
        let mut released: Vec<(SequenceId, Route)> = Vec::new();
        for (sequence, failure) in broken {
            // Those on a dead lane are found again with everything else that had ended on it.
            let route = self.sequences.get(&sequence).map(|it| it.route.clone());
            released.extend(route.filter(|it| !is_dead(&it.shards)).map(|route| (sequence, route)));
            self.fail(sequence, failure, out);
        }
        self.lanes.lost(inbox.now, is_dead);
        for Ended { sequence, route, blocks } in self.lanes.bury(is_dead) {
            self.usage.end(&route, blocks);
            released.push((sequence, route));
        }
        farewell::send(self, &released, out);
    }

    /// The later instances whose connection was made anew since `before`: what was on its way to or from them may be lost.
    fn shaken(&self, before: &Peers) -> HashSet<InstanceId> {
        self.later().filter(|instance| self.peers.has_reconnected(before, *instance)).collect()
    }

    /// Every later instance of the pipeline.
    fn later(&self) -> impl Iterator<Item = InstanceId> + '_ {
        let all = self.peers.all().filter(|peer| peer.fp == Some(self.shard.fp));
        all.filter(|peer| peer.role.is_downstream()).map(|peer| peer.instance)
    }

    /// Waits no longer for steps that may have passed one of `shaken`; returns the sequences that did. Samples are on every lane.
    fn give_up_steps(
        &mut self,
        shaken: &HashSet<InstanceId>,
        now: Instant,
    ) -> impl Iterator<Item = SequenceId> + use<> {
        let is_sample = |instance| self.peers.get(instance).is_some_and(|peer| peer.role == Role::Sample);
        let all = shaken.iter().copied().any(is_sample);
        let lost = self.lanes.lost(now, |lane| all || lane.iter().any(|shard| shaken.contains(shard)));
        metrics::counter!("tokenway_lost_steps_total").increment(lost.len() as u64);
        lost.into_iter().flat_map(|step| step.expected)
    }

    fn take_message(
        &mut self,
        message: &bytes::Bytes,
        inbox: &Inbox,
        out: &mut Outbox,
    ) -> Result<(), schemas::WireError> {
        match wire::kind(message)? {
            NeedRow::KIND => {
                let need: NeedRow = wire::decode(message)?;
                self.shard.whole_rows(self.me, &need, inbox.payload_max, out);
            }
            Feedback::KIND => {
                for (route, word) in wire::decode::<Feedback>(message)?.entries {
                    self.hear(route, word);
                }
            }
            _ => self.take_tokens(wire::decode(message)?, inbox.now),
        }
        Ok(())
    }

    /// Ends the sequences whose door has gone. One that was only stopped hears of it when it wakes, and resumes its answers.
    fn end_orphans(&mut self, before: &Peers, out: &mut Outbox) {
        let has_gone = |door| before.is_alive(door) && !self.peers.is_alive(door);
        let orphans = self.sequences.values().filter(|it| has_gone(it.context.door)).map(|it| it.id);
        for sequence in orphans.collect::<Vec<_>>() {
            self.fail(sequence, Failure::new(FailureKind::Unavailable, "the door was silent"), out);
        }
    }

    fn hear(&mut self, route: RouteId, word: Say) {
        let Some(sequence) = self.by_route.get(&route).copied() else { return };
        match word {
            Say::Delivered(tokens) => {
                self.others_go_on_after(sequence);
                if let Some(it) = self.sequences.get_mut(&sequence) {
                    it.acknowledge(tokens);
                }
            }
            Say::Stopped | Say::Cancel => self.end(sequence),
        }
    }

    /// Appends what was drawn; a sequence with a finish reason ends.
    fn take_tokens(&mut self, tokens: Tokens, now: Instant) {
        for token in &tokens.tokens {
            let Some(it) = self.sequences.get_mut(&token.sequence) else { continue };
            if it.push(token.position, token.id) && token.finish.is_some() {
                self.end(token.sequence);
            }
        }
        let drawn = tokens.tokens.iter().map(|token| token.sequence);
        if let Some(Sent { rows, tokens, at, .. }) = self.lanes.receive(tokens.head.step, drawn) {
            self.done += 1;
            self.budget.record(rows, now.duration_since(at));
            self.depth.record(rows, tokens, self.sequences.len(), now);
            metrics::histogram!("tokenway_step_seconds").record(now.duration_since(at).as_secs_f64());
            metrics::histogram!("tokenway_step_rows").record(rows as f64);
        }
    }

    /// Releases a sequence here at once, and elsewhere with the next step.
    fn end(&mut self, sequence: SequenceId) {
        let Some(it) = self.sequences.remove(&sequence) else { return };
        self.others_go_on_after(sequence);
        self.by_route.remove(&it.route_id());
        self.lanes.forget(sequence);
        let blocks = self.blocks_for(it.computed());
        if it.is_open() {
            self.release(&it);
            let ended = Ended { sequence: it.id, blocks, route: it.route };
            self.lanes.lanes.entry(ended.route.shards.clone()).or_default().ended.push(ended);
        } else {
            self.usage.end(&it.route, blocks);
        }
    }

    /// Frees the blocks here, and has later stages free what they hold under the sequence's present number.
    pub(super) fn release(&mut self, it: &Sequence) {
        self.shard.free_blocks((self.me, it.id));
        let lane = self.lanes.lanes.entry(it.route.shards.clone()).or_default();
        lane.control.push(Control::Release(it.id));
    }

    fn fail(&mut self, sequence: SequenceId, failure: Failure, out: &mut Outbox) {
        if let Some(it) = self.sequences.get(&sequence) {
            out.fail(&it.context, Some(it.route_id()), failure);
        }
        self.end(sequence);
    }

    /// Ends what has run out of time, and fails what waits for a step that was lost: all of them when the bus was away.
    fn expire(&mut self, now: Instant, reconnected: bool, out: &mut Outbox) {
        let late: Vec<SequenceId> =
            self.sequences.values().filter(|it| it.deadline <= now).map(|it| it.id).collect();
        // The session has its own clock and has told its client.
        late.into_iter().for_each(|sequence| self.end(sequence));
        for lost in self.lanes.lost(now, |_| reconnected) {
            self.budget.lost();
            metrics::counter!("tokenway_lost_steps_total").increment(1);
            for sequence in lost.expected {
                self.fail(
                    sequence,
                    Failure::new(FailureKind::Unavailable, "a step was lost on its way"),
                    out,
                );
            }
        }
        let (late, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|it| it.deadline <= now);
        self.waiting = waiting;
        for it in Vec::from_iter::<VecDeque<Waiting>>(late) {
            images::blob(&it.prompt).into_iter().for_each(|blob| out.discard(blob));
            out.ack(it.ticket);
        }
    }

    /// Releases may have been lost until now.
    pub(super) fn sweep_after(&mut self, now: Instant) {
        self.sweep = Some(Sweep { at: now + SWEEP_AFTER, newest: SequenceId(self.last_sequence) });
    }

    fn sweep(&mut self, now: Instant, out: &mut Outbox) {
        let Some(Sweep { newest, .. }) = self.sweep.take_if(|sweep| sweep.at <= now) else { return };
        farewell::sweep(self, out);
        if self.sequences.keys().next().is_some_and(|oldest| *oldest <= newest) {
            self.sweep = Some(Sweep { at: now + SWEEP_AFTER, newest });
        }
    }

    pub(super) fn number(&mut self) -> SequenceId {
        self.last_sequence += 1;
        SequenceId(self.last_sequence)
    }

    /// The sequence goes on under a new number.
    pub(super) fn renumber(&mut self, route: RouteId, sequence: SequenceId) {
        self.by_route.insert(route, sequence);
    }

    pub(super) fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.shard.engine.block_tokens())
    }
}

impl Stage for First {
    fn room(&self) -> usize {
        if !self.waiting.is_empty() {
            return 0;
        }
        self.routes.room(&self.peers, &self.usage) as usize
    }

    /// What waits here waits for room, and what is admitted is the session's.
    fn isolates_entries(&self) -> bool {
        false
    }

    fn attachments(&self, entry: &bytes::Bytes) -> Vec<BlobRef> {
        match wire::decode::<Prompt>(entry) {
            Ok(prompt) => {
                let ids = match prompt.ids {
                    Payload::Blob(blob) => Some(blob),
                    Payload::Inline(_) => None,
                };
                ids.into_iter().chain(images::blob(&prompt)).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    fn process(&mut self, mut inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        self.meet(&inbox, out);
        for message in std::mem::take(&mut inbox.messages) {
            if let Err(error) = self.take_message(&message, &inbox, out) {
                refused("token", &error);
            }
        }
        for job in std::mem::take(&mut inbox.jobs) {
            self.take_job(job, inbox.now, out);
        }
        self.expire(inbox.now, inbox.reconnected, out);
        self.alone = self.alone.filter(|alone| alone.until > inbox.now);
        if inbox.reconnected {
            self.sweep_after(inbox.now);
        }
        self.sweep(inbox.now, out);
        if inbox.draining {
            self.waiting.drain(..).for_each(|it| out.give_back(it.ticket));
        }
        // What was admitted is told before the first step is computed, which may take long.
        let again = self.admit(inbox.now, out) || self.run_step(&inbox, out);
        if again {
            out.wake_at(inbox.now);
        } else if let Some(deadline) = self.next_deadline() {
            out.wake_at(deadline);
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            used: Room { sequences: self.sequences.len() as u32, kv_blocks: self.shard.engine.blocks_used() },
            capacity: self.own_room(),
            grants: Vec::new(),
            held: self.routes.held(&self.peers, &self.usage),
            done: self.done,
            busy: !self.sequences.is_empty() || self.lanes.is_busy(),
        }
    }
}

impl First {
    fn next_deadline(&self) -> Option<Instant> {
        let sequences = self.sequences.values().map(|it| it.deadline);
        let waiting = self.waiting.iter().map(|it| it.deadline);
        let rest = sequences
            .chain(waiting)
            .chain(self.lanes.deadline())
            .chain(self.sweep.as_ref().map(|sweep| sweep.at));
        rest.chain(self.alone.map(|alone| alone.until)).min()
    }
}
