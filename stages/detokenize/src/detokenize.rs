//! The stage: tokens in, chunks of text out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use models::Tokenizer;
use pipelines::grants::Ledger;
use pipelines::stage::refused;
use pipelines::{Inbox, Outbox, Pipeline, Stage, Status};
use schemas::control::{Control, Feedback, Say};
use schemas::presence::Room;
use schemas::token::Tokens;
use schemas::{Failure, FailureKind, Fingerprint, InstanceId, Role, RouteId, SequenceId, Subject, wire};

use crate::answer::{Answer, AnswerError};
use crate::outgoing::Outgoing;
use pipelines::origins::Origins;

/// Makes the text of every sequence that was opened here.
#[derive(Debug)]
pub struct Detokenize {
    fp: Fingerprint,
    tokenizer: Arc<Tokenizer>,
    ledger: Ledger,
    origins: Origins<Answers>,
    done: u64,
}

/// The answers of one shard-forward.0 instance.
type Answers = HashMap<SequenceId, Answer>;

/// What one call brings out.
#[derive(Debug, Default)]
struct Output {
    chunks: Outgoing,
    feedback: BTreeMap<InstanceId, Vec<(RouteId, Say)>>,
}

impl Detokenize {
    /// The stage as `pipeline` with fingerprint `fp` declares it.
    pub fn new(pipeline: &Pipeline, fp: Fingerprint, tokenizer: Tokenizer) -> Self {
        let capacity = Room { sequences: pipeline.stages.detokenize.max_sequences, kv_blocks: u32::MAX };
        Self {
            fp,
            tokenizer: Arc::new(tokenizer),
            ledger: Ledger::new(capacity),
            origins: Origins::default(),
            done: 0,
        }
    }

    fn share_out(&mut self, inbox: &Inbox) {
        let is_upstream = |role, fp| role == Role::ShardForward(0) && fp == Some(self.fp);
        let upstreams = inbox.peers.all().filter(|peer| is_upstream(peer.role, peer.fp));
        self.ledger.update(inbox.instance, upstreams);
    }

    fn take_in(&mut self, tokens: Tokens, inbox: &Inbox, output: &mut Output, out: &mut Outbox) {
        let origin = tokens.head.origin;
        let answers = self.origins.at(origin, inbox.now);
        for control in tokens.head.control {
            carry_out(answers, control, inbox.instance, &self.tokenizer);
        }
        let feedback = output.feedback.entry(origin).or_default();
        for slice in &tokens.forced {
            let Some(answer) = answers.get_mut(&slice.sequence) else { continue };
            if let Err(error) = answer.replay(slice) {
                fail(answer, &error, feedback, out);
            }
        }
        for token in tokens.tokens {
            let Some(answer) = answers.get_mut(&token.sequence) else { continue };
            match answer.push(token) {
                Ok(None) => {}
                Ok(Some(piece)) => {
                    if piece.stopped {
                        feedback.push((answer.open().route, Say::Stopped));
                    }
                    output.chunks.push(answer.open(), piece);
                }
                Err(error) => fail(answer, &error, feedback, out),
            }
        }
    }
}

impl Stage for Detokenize {
    fn process(&mut self, mut inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        self.origins.free_vanished(&inbox.peers, inbox.now);
        self.share_out(&inbox);
        let mut output = Output::default();
        for payload in std::mem::take(&mut inbox.messages) {
            self.done += 1;
            match wire::decode::<Tokens>(&payload) {
                Ok(tokens) => self.take_in(tokens, &inbox, &mut output, out),
                Err(error) => refused("tokens", &error),
            }
        }
        output.chunks.publish(out);
        for (origin, entries) in output.feedback.into_iter().filter(|(_, entries)| !entries.is_empty()) {
            let subject = Subject::step(self.fp, Role::ShardForward(0), origin);
            out.send(subject, origin, wire::encode(&Feedback { entries }));
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let sequences: usize = self.origins.all().map(HashMap::len).sum();
        Status {
            used: Room { sequences: u32::try_from(sequences).unwrap_or(u32::MAX), kv_blocks: 0 },
            capacity: self.ledger.capacity(),
            grants: self.ledger.grants(),
            held: Vec::new(),
            done: self.done,
            busy: sequences > 0,
        }
    }
}

fn carry_out(answers: &mut Answers, control: Control, me: InstanceId, tokenizer: &Arc<Tokenizer>) {
    match control {
        Control::Open(open) if open.detokenize == me => {
            let sequence = open.sequence;
            answers.entry(sequence).or_insert_with(|| Answer::new(*open, tokenizer.clone()));
        }
        Control::Open(_) => {}
        Control::ReleaseBelow(oldest) => answers.retain(|id, _| *id >= oldest),
        Control::Release(sequence) => {
            answers.remove(&sequence);
        }
    }
}

/// Ends `answer`, which stays until shard-forward.0 releases it.
fn fail(answer: &mut Answer, error: &AnswerError, feedback: &mut Vec<(RouteId, Say)>, out: &mut Outbox) {
    answer.end();
    let open = answer.open();
    let kind = match error {
        // Messages before this one were lost: the session may resume.
        AnswerError::Gap { .. } => FailureKind::Unavailable,
        AnswerError::Tokenizer(_) => FailureKind::Internal,
    };
    let failure = Failure::new(kind, format!("no text could be made: {error}"));
    out.fail(&open.context, Some(open.route), failure);
    feedback.push((open.route, Say::Cancel));
}
