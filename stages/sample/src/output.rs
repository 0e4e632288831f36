//! What one step brings out, sorted by receiver and encoded.

use std::collections::BTreeMap;

use bytes::Bytes;
use pipelines::Outbox;
use schemas::control::{Control, Feedback, Head, Say};
use schemas::hidden::Slice;
use schemas::logits::NeedRow;
use schemas::token::{Token, Tokens};
use schemas::{Fingerprint, InstanceId, Role, RouteId, SequenceId, Subject, wire};

/// Where a sample instance stands in its pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The pipeline.
    pub fp: Fingerprint,
    /// The role of the last shard, which keeps the rows.
    pub last_shard: Role,
    /// The instance's own id.
    pub instance: InstanceId,
}

/// Collects what one step brings out.
#[derive(Debug)]
pub struct Output {
    origin: InstanceId,
    step: u64,
    keeper: InstanceId,
    tokens: Vec<Token>,
    texts: BTreeMap<InstanceId, Tokens>,
    needed: Vec<(SequenceId, u32)>,
    cancelled: Vec<(RouteId, Say)>,
}

impl Output {
    /// Nothing yet, for step number `step` of `origin`, whose rows `keeper` keeps.
    pub fn new(origin: InstanceId, step: u64, keeper: InstanceId) -> Self {
        Self {
            origin,
            step,
            keeper,
            tokens: Vec::new(),
            texts: BTreeMap::new(),
            needed: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    /// A decision for the sequence's `detokenize`.
    pub fn control(&mut self, detokenize: InstanceId, control: Control) {
        self.text(detokenize).head.control.push(control);
    }

    /// Rows that `detokenize` must know.
    pub fn history(&mut self, detokenize: InstanceId, slice: Slice) {
        self.text(detokenize).forced.push(slice);
    }

    /// A drawn token, for the next step and for `detokenize`.
    pub fn token(&mut self, detokenize: InstanceId, token: Token) {
        self.text(detokenize).tokens.push(token.clone());
        self.tokens.push(token);
    }

    /// A row that is needed whole.
    pub fn need(&mut self, sequence: SequenceId, position: u32) {
        self.needed.push((sequence, position));
    }

    /// A sequence that cannot go on.
    pub fn cancel(&mut self, route: RouteId) {
        self.cancelled.push((route, Say::Cancel));
    }

    /// The messages. Every step is answered with one [`Tokens`], even without a token, so that its sender knows that it arrived.
    pub fn letters(self, place: &Place) -> Letters {
        let Place { fp, last_shard, instance } = *place;
        let scheduler = |payload| Letter {
            subject: Subject::step(fp, Role::ShardForward(0), self.origin),
            receiver: self.origin,
            payload,
        };
        let head = Head { origin: self.origin, step: self.step, control: Vec::new() };
        // The next step needs ids and ends, not log probabilities.
        let bare = self.tokens.into_iter().map(|token| Token { logprobs: None, ..token });
        let tokens = Tokens { head, forced: Vec::new(), tokens: bare.collect() };
        let mut urgent = vec![scheduler(wire::encode(&tokens))];
        if !self.needed.is_empty() {
            let need = NeedRow { origin: self.origin, step: self.step, sample: instance, rows: self.needed };
            urgent.push(Letter {
                subject: Subject::step(fp, last_shard, self.keeper),
                receiver: self.keeper,
                payload: wire::encode(&need),
            });
        }
        if !self.cancelled.is_empty() {
            urgent.push(scheduler(wire::encode(&Feedback { entries: self.cancelled })));
        }
        let text = |(receiver, tokens): (InstanceId, Tokens)| Letter {
            subject: Subject::step(fp, Role::Detokenize, receiver),
            receiver,
            payload: wire::encode(&tokens),
        };
        Letters { urgent, later: self.texts.into_iter().map(text).collect() }
    }

    fn text(&mut self, detokenize: InstanceId) -> &mut Tokens {
        let head = Head { origin: self.origin, step: self.step, control: Vec::new() };
        self.texts.entry(detokenize).or_insert_with(|| Tokens {
            head,
            forced: Vec::new(),
            tokens: Vec::new(),
        })
    }
}

/// An encoded message with its address.
#[derive(Debug, Clone)]
pub struct Letter {
    subject: Subject,
    receiver: InstanceId,
    payload: Bytes,
}

impl Letter {
    /// Sends it.
    pub fn send(self, out: &mut Outbox) {
        out.send(self.subject, self.receiver, self.payload);
    }
}

/// The messages of one step.
#[derive(Debug, Clone, Default)]
pub struct Letters {
    /// What the next step waits for.
    pub urgent: Vec<Letter>,
    /// What only clients wait for.
    pub later: Vec<Letter>,
}
