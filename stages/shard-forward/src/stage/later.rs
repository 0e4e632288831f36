//! Every shard but the first: computes the steps that come, in the order they come.

use pipelines::grants::Ledger;
use pipelines::stage::refused;
use pipelines::{Inbox, Outbox, Peers, Stage, Status};
use schemas::hidden::Hidden;
use schemas::logits::NeedRow;
use schemas::presence::Room;
use schemas::{Edge, InstanceId, Role, wire};

use super::shard::Shard;

/// A shard that follows another one.
pub(super) struct Later {
    shard: Shard,
    ledger: Ledger,
    peers: Peers,
    done: u64,
}

impl Later {
    pub(super) fn new(shard: Shard, capacity: Room) -> Self {
        Self { shard, ledger: Ledger::new(capacity), peers: Peers::default(), done: 0 }
    }

    fn meet(&mut self, me: InstanceId, peers: Peers) {
        if peers.is_same(&self.peers) {
            return;
        }
        let fp = self.shard.fp;
        let first = Role::ShardForward(0);
        self.ledger.update(me, peers.all().filter(|peer| peer.fp == Some(fp) && peer.role == first));
        self.shard.retain_origins(|origin| peers.is_alive(origin));
        self.peers = peers;
    }
}

impl Stage for Later {
    fn messages_max(&self) -> usize {
        1
    }

    fn process(&mut self, inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        self.meet(inbox.instance, inbox.peers);
        for message in &inbox.messages {
            let taken = match wire::kind(message) {
                Ok(Hidden::KIND) => wire::decode(message).map(|step| {
                    self.done += 1;
                    self.shard.step(inbox.instance, step, &[], out);
                }),
                Ok(NeedRow::KIND) => wire::decode(message).map(|need| {
                    self.shard.whole_rows(inbox.instance, &need, inbox.payload_max, out);
                }),
                Ok(_) | Err(_) => wire::decode::<Hidden>(message).map(drop),
            };
            if let Err(error) = taken {
                refused("hidden", &error);
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            used: Room { sequences: self.shard.sequences(), kv_blocks: self.shard.engine.blocks_used() },
            capacity: self.ledger.capacity(),
            grants: self.ledger.grants(),
            held: Vec::new(),
            done: self.done,
            busy: self.shard.sequences() > 0,
        }
    }
}
