//! What is held for each shard-forward.0 instance, until that instance has disappeared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use schemas::InstanceId;

use crate::peers::Peers;

/// How long an instance that sends steps may stay unannounced before what is held for it is freed.
const UNANNOUNCED_MAX: Duration = Duration::from_secs(10);

/// One `T` for each instance.
#[derive(Debug)]
pub struct Origins<T>(BTreeMap<InstanceId, Held<T>>);

#[derive(Debug)]
struct Held<T> {
    since: Instant,
    announced: bool,
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
        let held = || Held { since: now, announced: false, content: T::default() };
        &mut self.0.entry(origin).or_insert_with(held).content
    }

    /// Frees what is held for those who were announced and are so no more, or who have not been for too long: a step of an
    /// instance that has died can arrive after the news of its death.
    pub fn free_vanished(&mut self, peers: &Peers, now: Instant) {
        self.0.retain(|origin, held| {
            let alive = peers.is_alive(*origin);
            held.announced |= alive;
            alive || !(held.announced || now.duration_since(held.since) > UNANNOUNCED_MAX)
        });
    }

    /// Everything held.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|held| &held.content)
    }
}
