//! Releases that cannot travel along their lane, because an instance on it has died or the bus was away.

use std::collections::BTreeMap;

use pipelines::Outbox;
use schemas::admission::Route;
use schemas::control::{Control, Head};
use schemas::hidden::Hidden;
use schemas::logits::Logits;
use schemas::token::Tokens;
use schemas::{InstanceId, Role, SequenceId, Subject, wire};

use super::first::First;

/// Tells of `released` whoever comes next after a dead instance, and passes the word on from there; and the dead one, which
/// may only be stopped and hears it when it wakes.
pub(super) fn send(first: &mut First, released: &[(SequenceId, Route)], out: &mut Outbox) {
    let mut words: BTreeMap<(Role, InstanceId), Vec<Control>> = BTreeMap::new();
    for (sequence, route) in released {
        let mut is_cut = false;
        for (role, instance) in later(route) {
            let is_dead = !first.peers.is_alive(instance);
            if is_cut || is_dead {
                words.entry((role, instance)).or_default().push(Control::Release(*sequence));
            }
            is_cut = is_dead;
        }
    }
    tell(first, words, out);
}

/// Tells every later instance which sequences can still be alive, after releases may have been lost with the bus.
pub(super) fn sweep(first: &mut First, out: &mut Outbox) {
    let none_left = SequenceId(first.last_sequence + 1);
    let oldest = first.sequences.keys().next().copied().unwrap_or(none_left);
    let fp = first.shard.fp;
    let later = first.peers.all().filter(|peer| peer.fp == Some(fp) && peer.role.is_downstream());
    let words = later.map(|peer| ((peer.role, peer.instance), vec![Control::ReleaseBelow(oldest)]));
    tell(first, words.collect(), out);
}

fn tell(first: &mut First, words: BTreeMap<(Role, InstanceId), Vec<Control>>, out: &mut Outbox) {
    for ((role, instance), control) in words {
        let head = Head { origin: first.me, step: first.lanes.next_step(), control };
        let message = match role {
            Role::Sample => {
                wire::encode(&Logits { head, keeper: first.me, slices: Vec::new(), rows: Vec::new() })
            }
            Role::Detokenize => wire::encode(&Tokens { head, forced: Vec::new(), tokens: Vec::new() }),
            _ => wire::encode(&Hidden { head, slices: Vec::new(), states: None }),
        };
        out.send(Subject::step(first.shard.fp, role, instance), instance, message);
    }
}

/// The instances of a route behind its first shard, in the order of the data.
fn later(route: &Route) -> impl Iterator<Item = (Role, InstanceId)> + '_ {
    let shards = (0..).map(Role::ShardForward).zip(route.shards.iter().copied()).skip(1);
    shards.chain([(Role::Sample, route.sample), (Role::Detokenize, route.detokenize)])
}
