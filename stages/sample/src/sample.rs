//! The stage: logits in, tokens out.

use pipelines::grants::Ledger;
use pipelines::stage::refused;
use pipelines::{Inbox, Outbox, Pipeline, Stage, Status};
use schemas::logits::Logits;
use schemas::presence::Room;
use schemas::{Fingerprint, InstanceId, Role, wire};

use crate::origin::Origin;
use crate::output::{Letter, Place};
use pipelines::origins::Origins;

/// Draws tokens for every sequence that was opened here.
#[derive(Debug)]
pub struct Sample {
    fp: Fingerprint,
    last_shard: Role,
    ledger: Ledger,
    origins: Origins<Origin>,
    done: u64,
}

impl Sample {
    /// The stage as `pipeline` with fingerprint `fp` declares it.
    pub fn new(pipeline: &Pipeline, fp: Fingerprint) -> Self {
        let capacity = Room { sequences: pipeline.stages.sample.max_sequences, kv_blocks: u32::MAX };
        Self {
            fp,
            last_shard: Role::ShardForward(pipeline.shards().saturating_sub(1)),
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

    fn place(&self, instance: InstanceId) -> Place {
        Place { fp: self.fp, last_shard: self.last_shard, instance }
    }
}

impl Stage for Sample {
    fn process(&mut self, inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        self.origins.free_vanished(&inbox.peers, inbox.now);
        self.share_out(&inbox);
        let place = self.place(inbox.instance);
        let mut later: Vec<Letter> = Vec::new();
        for payload in &inbox.messages {
            self.done += 1;
            let logits: Logits = match wire::decode(payload) {
                Ok(logits) => logits,
                Err(error) => {
                    refused("logits", &error);
                    continue;
                }
            };
            let origin = self.origins.at(logits.head.origin, inbox.now);
            let letters = origin.answer(logits, &place, out);
            letters.urgent.into_iter().for_each(|letter| letter.send(out));
            later.extend(letters.later);
        }
        later.into_iter().for_each(|letter| letter.send(out));
        Ok(())
    }

    fn status(&self) -> Status {
        let sequences: usize = self.origins.all().map(Origin::sequences).sum();
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
