//! What the sequences of a shard-forward.0 instance use of every instance on their routes.

use std::collections::HashMap;

use pipelines::Peers;
use pipelines::grants::granted_to;
use schemas::admission::Route;
use schemas::presence::Room;
use schemas::{Fingerprint, InstanceId, Role, RouteId};

/// Room in use, by instance.
#[derive(Default)]
pub(super) struct Usage {
    used: HashMap<InstanceId, Room>,
}

impl Usage {
    /// A sequence begins on `route`.
    pub(super) fn begin(&mut self, route: &Route) {
        for instance in instances(route) {
            self.used.entry(instance).or_default().sequences += 1;
        }
    }

    /// A sequence with `blocks` blocks ends on `route`.
    pub(super) fn end(&mut self, route: &Route, blocks: u32) {
        self.shrink(route, blocks);
        for instance in instances(route) {
            if let Some(room) = self.used.get_mut(&instance) {
                room.sequences = room.sequences.saturating_sub(1);
            }
        }
        self.used.retain(|_, room| *room != Room::default());
    }

    /// A sequence on `route` takes `blocks` more blocks.
    pub(super) fn grow(&mut self, route: &Route, blocks: u32) {
        for shard in &route.shards {
            self.used.entry(*shard).or_default().kv_blocks += blocks;
        }
    }

    /// A sequence on `route` gives `blocks` blocks back.
    pub(super) fn shrink(&mut self, route: &Route, blocks: u32) {
        for shard in &route.shards {
            if let Some(room) = self.used.get_mut(shard) {
                room.kv_blocks = room.kv_blocks.saturating_sub(blocks);
            }
        }
    }

    /// What is used of `instance`.
    pub(super) fn of(&self, instance: InstanceId) -> Room {
        self.used.get(&instance).copied().unwrap_or_default()
    }
}

/// The instances that serve a pipeline behind one shard-forward.0 instance, and the room each grants to it.
pub(super) struct Routes {
    me: InstanceId,
    fp: Fingerprint,
    shards: u16,
    own: Room,
}

impl Routes {
    /// Routes that begin at `me`, which has `own` room.
    pub(super) fn new(me: InstanceId, fp: Fingerprint, shards: u16, own: Room) -> Self {
        Self { me, fp, shards, own }
    }

    /// Sequences that can be admitted now: what the scarcest role has left, 0 when a role is missing.
    pub(super) fn room(&self, peers: &Peers, usage: &Usage) -> u32 {
        let own = self.own.sequences.saturating_sub(usage.of(self.me).sequences);
        let of_role =
            |role| -> u32 { peers.ready(self.fp, role).map(|peer| self.left(peer, usage).sequences).sum() };
        self.roles().map(of_role).fold(own, u32::min)
    }

    /// The least loaded living instance of every role, if each has room for a sequence of `blocks` blocks.
    pub(super) fn choose(&self, id: RouteId, peers: &Peers, usage: &Usage, blocks: u32) -> Option<Route> {
        let own = self.own.kv_blocks.saturating_sub(usage.of(self.me).kv_blocks);
        if own < blocks || usage.of(self.me).sequences >= self.own.sequences {
            return None;
        }
        let best = |role: Role, blocks: u32| {
            peers
                .ready(self.fp, role)
                .map(|peer| (self.left(peer, usage), peer.instance))
                .filter(|(left, _)| left.sequences > 0 && left.kv_blocks >= blocks)
                .max_by_key(|(left, instance)| (left.sequences, left.kv_blocks, *instance))
                .map(|(_, instance)| instance)
        };
        let mut shards = vec![self.me];
        for shard in 1..self.shards {
            shards.push(best(Role::ShardForward(shard), blocks)?);
        }
        let sample = best(Role::Sample, 0)?;
        let detokenize = best(Role::Detokenize, 0)?;
        Some(Route { fp: self.fp, id, shards, sample, detokenize })
    }

    /// Blocks that a sequence on `route` can still get.
    pub(super) fn blocks_left(&self, route: &Route, peers: &Peers, usage: &Usage) -> u32 {
        let own = self.own.kv_blocks.saturating_sub(usage.of(self.me).kv_blocks);
        let later = route.shards.iter().skip(1).map(|shard| match peers.get(*shard) {
            Some(peer) => self.left(peer, usage).kv_blocks,
            None => 0,
        });
        later.fold(own, u32::min)
    }

    /// The most blocks that any sequence can ever have here.
    pub(super) fn blocks_max(&self, peers: &Peers) -> u32 {
        let of_shard =
            |shard| peers.ready(self.fp, Role::ShardForward(shard)).map(|peer| peer.capacity.kv_blocks).max();
        (1..self.shards).filter_map(of_shard).fold(self.own.kv_blocks, u32::min)
    }

    /// What this instance counts as its own of each downstream instance that has granted it anything.
    pub(super) fn held(&self, peers: &Peers, usage: &Usage) -> Vec<(InstanceId, Room)> {
        peers
            .all()
            .filter(|peer| peer.fp == Some(self.fp) && self.roles().any(|role| role == peer.role))
            .map(|peer| {
                let (granted, used) = (granted_to(self.me, peer), usage.of(peer.instance));
                let sequences = granted.sequences.max(used.sequences);
                (peer.instance, Room { sequences, kv_blocks: granted.kv_blocks.max(used.kv_blocks) })
            })
            .filter(|(_, room)| room.sequences > 0)
            .collect()
    }

    /// The role of an instance of `route` that is no longer alive.
    pub(super) fn dead(&self, route: &Route, peers: &Peers) -> Option<Role> {
        let shards = route.shards.iter().enumerate().skip(1);
        shards
            .map(|(shard, instance)| (Role::ShardForward(shard as u16), *instance))
            .chain([(Role::Sample, route.sample), (Role::Detokenize, route.detokenize)])
            .find(|(_, instance)| !peers.is_alive(*instance))
            .map(|(role, _)| role)
    }

    /// Distinct processors or devices that the shards compute on.
    pub(super) fn distinct_compute(&self, peers: &Peers) -> usize {
        let mut places: Vec<&str> = (0..self.shards)
            .filter_map(|shard| peers.ready(self.fp, Role::ShardForward(shard)).next())
            .map(|peer| peer.compute.as_str())
            .collect();
        places.sort_unstable();
        places.dedup();
        places.len()
    }

    fn left(&self, peer: &schemas::presence::Presence, usage: &Usage) -> Room {
        let (granted, used) = (granted_to(self.me, peer), usage.of(peer.instance));
        Room {
            sequences: granted.sequences.saturating_sub(used.sequences),
            kv_blocks: granted.kv_blocks.saturating_sub(used.kv_blocks),
        }
    }

    fn roles(&self) -> impl Iterator<Item = Role> + use<> {
        (1..self.shards).map(Role::ShardForward).chain([Role::Sample, Role::Detokenize])
    }
}

fn instances(route: &Route) -> impl Iterator<Item = InstanceId> {
    route.shards.iter().copied().chain([route.sample, route.detokenize])
}
