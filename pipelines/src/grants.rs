//! Grants: a stage shares its room out among its upstreams, the sum never above what it has.

use std::collections::BTreeMap;

use schemas::InstanceId;
use schemas::presence::{Presence, Room};

/// The room of one instance and who may use how much of it.
///
/// Each living upstream is due an equal share. A share that shrinks is given to others only when its holder has
/// said, through `held` in its announcements, that it counts on no more than that.
#[derive(Debug)]
pub struct Ledger {
    capacity: Room,
    granted: BTreeMap<InstanceId, Room>,
}

impl Ledger {
    /// A ledger over `capacity`, with nothing granted.
    pub fn new(capacity: Room) -> Self {
        Self { capacity, granted: BTreeMap::new() }
    }

    /// Shares out the room of instance `me` among `upstreams`, which must be all that are alive.
    pub fn update<'a>(&mut self, me: InstanceId, upstreams: impl Iterator<Item = &'a Presence>) {
        let held: BTreeMap<InstanceId, Room> =
            upstreams.map(|peer| (peer.instance, held_of(peer, me))).collect();
        self.granted.retain(|upstream, _| held.contains_key(upstream));
        let due = share(self.capacity, held.len());
        for upstream in held.keys() {
            let others = held
                .iter()
                .filter(|(other, _)| *other != upstream)
                .map(|(other, held)| max(*held, self.granted.get(other).copied().unwrap_or_default()));
            let free = others.fold(self.capacity, subtract);
            self.granted.insert(*upstream, due.min(free));
        }
    }

    /// What each upstream may use.
    pub fn grants(&self) -> Vec<(InstanceId, Room)> {
        self.granted.iter().map(|(upstream, room)| (*upstream, *room)).collect()
    }

    /// All there is.
    pub fn capacity(&self) -> Room {
        self.capacity
    }
}

/// What `downstream` grants to `upstream`; nothing before it has said so.
pub fn granted_to(upstream: InstanceId, downstream: &Presence) -> Room {
    find(&downstream.grants, upstream)
}

fn held_of(upstream: &Presence, downstream: InstanceId) -> Room {
    find(&upstream.held, downstream)
}

fn find(rooms: &[(InstanceId, Room)], instance: InstanceId) -> Room {
    rooms.iter().find(|(owner, _)| *owner == instance).map(|(_, room)| *room).unwrap_or_default()
}

fn share(capacity: Room, upstreams: usize) -> Room {
    let n = u32::try_from(upstreams.max(1)).unwrap_or(u32::MAX);
    Room { sequences: capacity.sequences / n, kv_blocks: capacity.kv_blocks / n }
}

fn max(a: Room, b: Room) -> Room {
    Room { sequences: a.sequences.max(b.sequences), kv_blocks: a.kv_blocks.max(b.kv_blocks) }
}

fn subtract(from: Room, room: Room) -> Room {
    Room {
        sequences: from.sequences.saturating_sub(room.sequences),
        kv_blocks: from.kv_blocks.saturating_sub(room.kv_blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Role;
    use schemas::presence::State;

    const ME: InstanceId = InstanceId(100);

    fn room(n: u32) -> Room {
        Room { sequences: n, kv_blocks: n * 10 }
    }

    fn upstream(id: u64, held: u32) -> Presence {
        let bare = Presence::bare(InstanceId(id), Role::ShardForward(0), None, State::Ready);
        Presence { held: vec![(ME, room(held))], ..bare }
    }

    #[test]
    fn one_upstream_gets_everything() {
        let mut ledger = Ledger::new(room(8));
        ledger.update(ME, [upstream(1, 0)].iter());
        assert_eq!(ledger.grants(), vec![(InstanceId(1), room(8))]);
    }

    #[test]
    fn a_second_upstream_waits_until_the_first_has_given_up_its_half() {
        let mut ledger = Ledger::new(room(8));
        ledger.update(ME, [upstream(1, 0)].iter());
        ledger.update(ME, [upstream(1, 8), upstream(2, 0)].iter());
        assert_eq!(ledger.grants(), vec![(InstanceId(1), room(4)), (InstanceId(2), room(0))]);
        ledger.update(ME, [upstream(1, 5), upstream(2, 0)].iter());
        assert_eq!(ledger.grants(), vec![(InstanceId(1), room(4)), (InstanceId(2), room(3))]);
        ledger.update(ME, [upstream(1, 4), upstream(2, 3)].iter());
        assert_eq!(ledger.grants(), vec![(InstanceId(1), room(4)), (InstanceId(2), room(4))]);
    }

    #[test]
    fn the_share_of_the_dead_is_free_at_once() {
        let mut ledger = Ledger::new(room(8));
        ledger.update(ME, [upstream(1, 4), upstream(2, 4)].iter());
        ledger.update(ME, [upstream(2, 4)].iter());
        assert_eq!(ledger.grants(), vec![(InstanceId(2), room(8))]);
    }
}
