//! What every shard does with a step: carry out its decisions, compute its rows, send the result on.

use std::collections::HashMap;

use pipelines::Outbox;
use schemas::control::{Control, Feedback, Head, Open, Say};
use schemas::extras::Extras;
use schemas::hidden::{Hidden, Slice};
use schemas::logits::{Logits, NeedRow, Row};
use schemas::prompt::Grid;
use schemas::{Failure, FailureKind, Fingerprint, InstanceId, Role, SequenceId, Subject, Tensor, wire};

use crate::engine::{Engine, Overlay, RowOutput, RowSpec, StepBatch, StepOutput};

/// A sequence as its shard-forward.0 instance numbers it.
type Key = (InstanceId, SequenceId);

/// One shard of one pipeline: the engine and the sequences that are open in it.
pub(super) struct Shard {
    pub(super) engine: Box<dyn Engine>,
    pub(super) fp: Fingerprint,
    /// This shard's index and whether it is the last one.
    pub(super) index: u16,
    pub(super) is_last: bool,
    /// Candidates sent for a row that is not greedy.
    pub(super) candidates: u32,
    held: HashMap<Key, Held>,
    last_local: u64,
}

struct Held {
    /// The engine's number: several shard-forward.0 instances count their sequences from 1.
    local: SequenceId,
    open: Open,
    extras: Extras,
}

impl Shard {
    pub(super) fn new(
        engine: Box<dyn Engine>,
        fp: Fingerprint,
        index: u16,
        is_last: bool,
        candidates: u32,
    ) -> Self {
        Self { engine, fp, index, is_last, candidates, held: HashMap::new(), last_local: 0 }
    }

    /// Sequences open now.
    pub(super) fn sequences(&self) -> u32 {
        self.held.len() as u32
    }

    /// Works on one step. What fails is answered here; the step goes on with the rest.
    /// `overlays` are the rows that the first shard takes from images.
    pub(super) fn step(&mut self, me: InstanceId, step: Hidden, overlays: &[Overlay], out: &mut Outbox) {
        let Hidden { head, slices, states } = step;
        let ways = self.carry_out(&head);
        // Before the rows, which may need the blocks.
        for sequence in &ways.released {
            self.drop_sequence((head.origin, *sequence));
        }
        // A later shard ignores rows of a sequence that it has not opened: its states would be without a beginning.
        let known = slices.iter().all(|slice| self.held.contains_key(&(head.origin, slice.sequence)));
        if !known {
            tracing::warn!(step = head.step, "step names sequences that are not open here");
            self.fail_step(&head, &slices, &lost("a shard has lost the sequence"), out);
            return;
        }
        let output = self.compute(&head, &slices, overlays, states.as_ref());
        match output {
            Ok(StepOutput::Hidden(states)) => {
                let Some(next) = ways.next.or_else(|| self.next_of(&head, &slices)) else { return };
                let subject = Subject::step(self.fp, Role::ShardForward(self.index + 1), next);
                out.send(subject, next, wire::encode(&Hidden { head, slices, states }));
            }
            Ok(StepOutput::Rows(rows)) => self.send_rows(me, head, slices, rows, ways.samples, out),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), step = head.step, "forward pass");
                self.fail_step(&head, &slices, &internal("the model's forward pass failed"), out);
            }
        }
    }

    /// Answers a request for whole rows, one message a row: each may be as large as the broker takes.
    pub(super) fn whole_rows(
        &mut self,
        me: InstanceId,
        need: &NeedRow,
        payload_max: usize,
        out: &mut Outbox,
    ) {
        for &(sequence, position) in &need.rows {
            let Some(held) = self.held.get(&(need.origin, sequence)) else { continue };
            let spec = held.spec(self.candidates);
            let output = match self.engine.full_row(held.local, position, &spec) {
                Some(Ok(output)) => output,
                Some(Err(error)) => {
                    self.fail(need.origin, sequence, internal(&error.to_string()), out);
                    continue;
                }
                None => {
                    self.fail(need.origin, sequence, lost("its logits are no longer kept"), out);
                    continue;
                }
            };
            let rows = vec![row(sequence, position, self.engine.vocabulary(), output)];
            let head = Head { origin: need.origin, step: need.step, control: Vec::new() };
            let message = wire::encode(&Logits { head, keeper: me, slices: Vec::new(), rows });
            if message.len() > payload_max {
                let why = format!(
                    "a row of logits takes {} bytes, the broker's `max_payload` is {payload_max}",
                    message.len()
                );
                self.fail(need.origin, sequence, internal(&why), out);
                continue;
            }
            out.send(Subject::step(self.fp, Role::Sample, need.sample), need.sample, message);
        }
    }

    /// Frees everything of shard-forward.0 instances that are gone.
    pub(super) fn retain_origins(&mut self, alive: impl Fn(InstanceId) -> bool) {
        let gone: Vec<Key> = self.held.keys().filter(|(origin, _)| !alive(*origin)).copied().collect();
        for key in gone {
            self.drop_sequence(key);
        }
    }

    /// Frees the blocks of a sequence at once; its ways stay known until the step that releases it.
    pub(super) fn free_blocks(&mut self, key: Key) {
        if let Some(held) = self.held.get(&key) {
            self.engine.release(held.local);
        }
    }

    /// Frees one sequence.
    pub(super) fn drop_sequence(&mut self, key: Key) {
        if let Some(held) = self.held.remove(&key) {
            self.engine.release(held.local);
        }
    }

    /// Opens what the step opens, and finds out where its decisions must go: released sequences name their ways too.
    fn carry_out(&mut self, head: &Head) -> Ways {
        let mut ways = Ways::default();
        for control in &head.control {
            match control {
                Control::ReleaseBelow(oldest) => {
                    let ended = |key: &&Key| key.0 == head.origin && key.1 < *oldest;
                    let ended: Vec<Key> = self.held.keys().filter(ended).copied().collect();
                    ended.into_iter().for_each(|key| self.drop_sequence(key));
                }
                Control::Open(open) => {
                    ways.add(open, self.index);
                    let key = (head.origin, open.sequence);
                    if !self.held.contains_key(&key) {
                        self.last_local += 1;
                        let local = SequenceId(self.last_local);
                        let extras = Extras::new(open);
                        self.held.insert(key, Held { local, open: Open::clone(open), extras });
                    }
                }
                Control::Release(sequence) => {
                    if let Some(held) = self.held.get(&(head.origin, *sequence)) {
                        ways.add(&held.open, self.index);
                        ways.released.push(*sequence);
                    }
                }
            }
        }
        ways
    }

    fn next_of(&self, head: &Head, slices: &[Slice]) -> Option<InstanceId> {
        let held = self.held.get(&(head.origin, slices.first()?.sequence))?;
        held.open.shards.get(usize::from(self.index) + 1).copied()
    }

    fn compute(
        &mut self,
        head: &Head,
        slices: &[Slice],
        overlays: &[Overlay],
        states: Option<&Tensor>,
    ) -> anyhow::Result<StepOutput> {
        let mut local = Vec::with_capacity(slices.len());
        let mut specs = Vec::new();
        for slice in slices {
            let Some(held) = self.held.get_mut(&(head.origin, slice.sequence)) else { continue };
            local.push(Slice { sequence: held.local, ..slice.clone() });
            if self.is_last {
                held.extras.push(&slice.ids, slice.start);
                if slice.sample {
                    specs.push(held.spec(self.candidates));
                }
            }
        }
        if local.is_empty() {
            let nothing = if self.is_last { StepOutput::Rows(Vec::new()) } else { StepOutput::Hidden(None) };
            return Ok(nothing);
        }
        let of_slice = |slice: &Slice| Some(&self.held.get(&(head.origin, slice.sequence))?.open.grids[..]);
        let mut grids: Vec<&[Grid]> = slices.iter().filter_map(of_slice).collect();
        if grids.iter().all(|grids| grids.is_empty()) {
            grids.clear();
        }
        let opened = match self.engine.short_length() {
            Some(_) => slices.iter().filter_map(|slice| self.opened(head.origin, slice)).collect(),
            None => Vec::new(),
        };
        let batch = StepBatch { slices: &local, overlays, grids: &grids, opened: &opened, rows: &specs };
        self.engine.forward(&batch, states)
    }

    /// Tokens that a slice's sequence was opened with.
    fn opened(&self, origin: InstanceId, slice: &Slice) -> Option<u32> {
        let open = &self.held.get(&(origin, slice.sequence))?.open;
        Some(open.prompt_tokens.saturating_add(open.forced_tokens))
    }

    /// One message to each sample instance that has a row or a decision in this step.
    fn send_rows(
        &self,
        me: InstanceId,
        head: Head,
        slices: Vec<Slice>,
        outputs: Vec<Result<RowOutput, crate::engine::RowError>>,
        mut parts: HashMap<InstanceId, Part>,
        out: &mut Outbox,
    ) {
        let mut outputs = outputs.into_iter();
        let vocabulary = self.engine.vocabulary();
        for slice in slices {
            let Some(held) = self.held.get(&(head.origin, slice.sequence)) else { continue };
            let part = parts.entry(held.open.sample).or_default();
            if slice.sample {
                let position = slice.start + slice.ids.len() as u32;
                match outputs.next() {
                    Some(Ok(output)) => part.rows.push(row(slice.sequence, position, vocabulary, output)),
                    Some(Err(error)) => {
                        self.fail(head.origin, slice.sequence, internal(&error.to_string()), out)
                    }
                    None => self.fail(head.origin, slice.sequence, internal("its logits are missing"), out),
                }
            }
            part.slices.push(slice);
        }
        for control in head.control {
            let sample = match &control {
                Control::Open(open) => Some(open.sample),
                Control::ReleaseBelow(_) => None,
                Control::Release(sequence) => {
                    parts.iter().find(|(_, p)| p.releases.contains(sequence)).map(|(s, _)| *s)
                }
            };
            if let Some(part) = sample.and_then(|sample| parts.get_mut(&sample)) {
                part.control.push(control);
            }
        }
        for (sample, part) in parts {
            let head = Head { origin: head.origin, step: head.step, control: part.control };
            let logits = Logits { head, keeper: me, slices: part.slices, rows: part.rows };
            out.send(Subject::step(self.fp, Role::Sample, sample), sample, wire::encode(&logits));
        }
    }

    fn fail_step(&self, head: &Head, slices: &[Slice], failure: &Failure, out: &mut Outbox) {
        for slice in slices {
            self.fail(head.origin, slice.sequence, failure.clone(), out);
        }
    }

    /// Ends one request and has shard-forward.0 release its sequence.
    fn fail(&self, origin: InstanceId, sequence: SequenceId, failure: Failure, out: &mut Outbox) {
        let Some(held) = self.held.get(&(origin, sequence)) else { return };
        metrics::counter!("tokenway_failed_sequences_total").increment(1);
        out.fail(&held.open.context, Some(held.open.route), failure);
        let feedback = Feedback { entries: vec![(held.open.route, Say::Cancel)] };
        out.send(Subject::step(self.fp, Role::ShardForward(0), origin), origin, wire::encode(&feedback));
    }
}

/// A fault of ours: the same request would fail again.
fn internal(why: &str) -> Failure {
    Failure::new(FailureKind::Internal, why)
}

/// What was held is gone: the session may resume.
fn lost(what: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, what)
}

impl Held {
    fn spec(&self, candidates: u32) -> RowSpec {
        let generation = &self.open.generation;
        let greedy = generation.sampling.temperature == 0.0;
        let wanted = if greedy { 1 } else { candidates };
        // One more than the alternatives: the drawn token may not be among them.
        let candidates = wanted.max(generation.logprobs.map_or(0, |top| u32::from(top) + 1));
        RowSpec {
            temperature: generation.sampling.temperature,
            candidates,
            extras: self.extras.ids(),
            keep: !greedy || generation.logprobs.is_some(),
        }
    }
}

/// Where a step goes from here because of its decisions.
#[derive(Default)]
struct Ways {
    next: Option<InstanceId>,
    samples: HashMap<InstanceId, Part>,
    released: Vec<SequenceId>,
}

/// One sample instance's part of a step.
#[derive(Default)]
struct Part {
    control: Vec<Control>,
    releases: Vec<SequenceId>,
    slices: Vec<Slice>,
    rows: Vec<Row>,
}

impl Ways {
    fn add(&mut self, open: &Open, index: u16) {
        self.next = open.shards.get(usize::from(index) + 1).copied();
        self.samples.entry(open.sample).or_default().releases.push(open.sequence);
    }
}

fn row(sequence: SequenceId, position: u32, vocabulary: u32, output: RowOutput) -> Row {
    Row {
        sequence,
        position,
        vocabulary,
        candidates: output.candidates,
        extras: output.extras,
        logsumexp: output.logsumexp,
        logsumexp_scaled: output.logsumexp_scaled,
    }
}

/// What a request hears when `instance` of its route has gone.
pub(super) fn gone(role: Role) -> Failure {
    Failure::instance_lost(role)
}
