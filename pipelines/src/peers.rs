//! Who is alive: a snapshot of the latest announcement of every instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role};

/// The living instances on the bus. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<BTreeMap<InstanceId, Presence>>);

impl Peers {
    /// A snapshot of `announced`.
    pub fn new(announced: BTreeMap<InstanceId, Presence>) -> Self {
        Self(Arc::new(announced))
    }

    /// Whether `instance` is alive, draining or not.
    pub fn is_alive(&self, instance: InstanceId) -> bool {
        self.0.contains_key(&instance)
    }

    /// The latest announcement of `instance`.
    pub fn get(&self, instance: InstanceId) -> Option<&Presence> {
        self.0.get(&instance)
    }

    /// Everyone, by instance id.
    pub fn all(&self) -> impl Iterator<Item = &Presence> {
        self.0.values()
    }

    /// The instances of one role of one pipeline that take new work, by instance id.
    pub fn ready(&self, fp: Fingerprint, role: Role) -> impl Iterator<Item = &Presence> {
        self.0
            .values()
            .filter(move |peer| peer.fp == Some(fp) && peer.role == role && peer.state == State::Ready)
    }

    /// Whether two snapshots are the same one.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
