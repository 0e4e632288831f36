//! Who is alive: a snapshot of the latest announcement of every instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role};

/// The living instances on the bus. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    alive: Arc<BTreeMap<InstanceId, Presence>>,
    drained: Arc<BTreeSet<InstanceId>>,
}

impl Peers {
    /// A snapshot of `announced`.
    pub fn new(announced: BTreeMap<InstanceId, Presence>) -> Self {
        Self { alive: Arc::new(announced), drained: Arc::default() }
    }

    /// The same snapshot with those that have left lately after they had finished what they held.
    pub fn with_drained(self, drained: BTreeSet<InstanceId>) -> Self {
        Self { drained: Arc::new(drained), ..self }
    }

    /// Whether `instance` has left lately after it had finished what it held.
    pub fn has_drained(&self, instance: InstanceId) -> bool {
        self.drained.contains(&instance)
    }

    /// Whether `instance` is alive, draining or not.
    pub fn is_alive(&self, instance: InstanceId) -> bool {
        self.alive.contains_key(&instance)
    }

    /// Whether `instance` lives in both snapshots and has made its connection anew between them: what was on its way to or
    /// from it may be lost.
    pub fn has_reconnected(&self, before: &Self, instance: InstanceId) -> bool {
        let reconnects = |peers: &Self| peers.get(instance).map(|presence| presence.reconnects);
        matches!((reconnects(before), reconnects(self)), (Some(before), Some(now)) if before != now)
    }

    /// The latest announcement of `instance`.
    pub fn get(&self, instance: InstanceId) -> Option<&Presence> {
        self.alive.get(&instance)
    }

    /// Everyone, by instance id.
    pub fn all(&self) -> impl Iterator<Item = &Presence> {
        self.alive.values()
    }

    /// The instances of one role of one pipeline that take new work, by instance id.
    pub fn ready(&self, fp: Fingerprint, role: Role) -> impl Iterator<Item = &Presence> {
        self.alive
            .values()
            .filter(move |peer| peer.fp == Some(fp) && peer.role == role && peer.state == State::Ready)
    }

    /// Whether `role` of a pipeline can take part in serving: an instance is ready and, where a shard-forward.0 must have room
    /// of it to admit anything, one has.
    pub fn serves(&self, fp: Fingerprint, role: Role) -> bool {
        let mut instances = self.ready(fp, role).map(|peer| peer.instance).peekable();
        let mut firsts = self.ready(fp, Role::ShardForward(0)).peekable();
        if !role.is_downstream() || firsts.peek().is_none() {
            return instances.peek().is_some();
        }
        let held: Vec<InstanceId> =
            firsts.flat_map(|first| first.held.iter().map(|(instance, _)| *instance)).collect();
        instances.any(|instance| held.contains(&instance))
    }

    /// Whether two snapshots are the same one.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.alive, &other.alive)
    }
}

#[cfg(test)]
mod tests {
    use schemas::presence::Room;

    use super::*;

    const FP: Fingerprint = Fingerprint(1);

    fn presence(id: u64, role: Role, held: Vec<(InstanceId, Room)>) -> Presence {
        Presence { held, ..Presence::bare(InstanceId(id), role, Some(FP), State::Ready) }
    }

    fn serves_sample(others: &[Presence]) -> bool {
        let sample = presence(1, Role::Sample, Vec::new());
        let all = others.iter().cloned().chain([sample]);
        Peers::new(all.map(|peer| (peer.instance, peer)).collect()).serves(FP, Role::Sample)
    }

    #[test]
    fn who_reconnected_is_told_from_who_came_and_went() {
        let snapshot = |reconnects: Option<u64>| {
            let peer = |reconnects| Presence { reconnects, ..presence(1, Role::Sample, Vec::new()) };
            Peers::new(reconnects.map(|reconnects| (InstanceId(1), peer(reconnects))).into_iter().collect())
        };
        let cases = [
            (Some(0), Some(0), false),
            (Some(0), Some(1), true),
            (None, Some(1), false),
            (Some(1), None, false),
        ];
        for (before, now, expected) in cases {
            assert_eq!(snapshot(now).has_reconnected(&snapshot(before), InstanceId(1)), expected);
        }
    }

    #[test]
    fn a_stage_serves_once_the_scheduling_shard_has_room_of_it() {
        let first = |held| presence(2, Role::ShardForward(0), held);
        let room = Room { sequences: 1, kv_blocks: 1 };
        assert!(serves_sample(&[]), "nobody is there who could have room of it");
        assert!(!serves_sample(&[first(Vec::new())]));
        assert!(!serves_sample(&[first(vec![(InstanceId(9), room)])]));
        assert!(serves_sample(&[first(vec![(InstanceId(1), room)])]));
    }
}
