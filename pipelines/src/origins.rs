//! What is held for each shard-forward.0 instance, until that instance has disappeared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use schemas::InstanceId;

use crate::peers::Peers;
use crate::presence::SILENCE_MAX;

/// How long an instance that sends steps may stay unannounced before what is held for it is freed.
const UNANNOUNCED_MAX: Duration = Duration::from_secs(10);

/// One `T` for each instance.
#[derive(Debug)]
pub struct Origins<T>(BTreeMap<InstanceId, Held<T>>);

#[derive(Debug)]
struct Held<T> {
    since: Instant,
    announced: bool,
    /// When it was first missed after it had been announced.
    missed: Option<Instant>,
    content: T,
}

impl<T> Default for Origins<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Default> Origins<T> {
    /// What is held for `origin`, which has sent a step at `now`.
    pub fn at(&mut self, origin: InstanceId, now: Instant) -> &mut T {
        let held = || Held { since: now, announced: false, missed: None, content: T::default() };
        &mut self.0.entry(origin).or_insert_with(held).content
    }

    /// Frees what is held for those who were announced and are so no more, or who have not been for too long: a step of an
    /// instance that has died can arrive after the news of its death.
    ///
    /// The last steps of one that drained may be on their way still, with the tokens that ended its answers.
    pub fn free_vanished(&mut self, peers: &Peers, now: Instant) {
        self.0.retain(|origin, held| {
            if peers.is_alive(*origin) {
                (held.announced, held.missed) = (true, None);
                return true;
            }
            if !held.announced {
                return now.duration_since(held.since) <= UNANNOUNCED_MAX;
            }
            let missed = *held.missed.get_or_insert(now);
            peers.has_drained(*origin) && now.duration_since(missed) < SILENCE_MAX
        });
    }

    /// Everything held.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|held| &held.content)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::Role;
    use schemas::presence::{Presence, State};

    use super::*;

    const ORIGIN: InstanceId = InstanceId(1);

    fn announced() -> Peers {
        let presence = Presence::bare(ORIGIN, Role::ShardForward(0), None, State::Ready);
        Peers::new([(ORIGIN, presence)].into())
    }

    #[test]
    fn what_is_held_for_the_dead_is_freed_and_for_the_drained_a_little_later() {
        for (drained, kept) in [(BTreeSet::new(), 0), (BTreeSet::from([ORIGIN]), 1)] {
            let mut origins = Origins::<u32>::default();
            let now = Instant::now();
            *origins.at(ORIGIN, now) = 7;
            origins.free_vanished(&announced(), now);
            let left = Peers::default().with_drained(drained);
            origins.free_vanished(&left, now);
            assert_eq!(origins.all().count(), kept);
            origins.free_vanished(&left, now + SILENCE_MAX);
            assert_eq!(origins.all().count(), 0, "not for ever");
        }
    }

    #[test]
    fn a_step_may_come_before_the_first_announcement() {
        let mut origins = Origins::<u32>::default();
        let now = Instant::now();
        *origins.at(ORIGIN, now) = 7;
        origins.free_vanished(&Peers::default(), now + UNANNOUNCED_MAX);
        assert_eq!(origins.all().count(), 1);
        origins.free_vanished(&Peers::default(), now + UNANNOUNCED_MAX * 2);
        assert_eq!(origins.all().count(), 0);
    }
}
