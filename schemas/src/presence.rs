//! What every instance announces several times a second.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{Edge, Fingerprint, InstanceId, Role};

/// Whether an instance takes new work.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes work.
    Ready,
    /// Finishes what it holds.
    Draining,
    /// Has finished what it held and leaves: what it did may still be on its way.
    Drained,
    /// Has left otherwise, by its own word or its supervisor's.
    Gone,
    /// Could not be reached by another, who says so; it is back once it announces itself.
    Unreachable,
}

/// Room, in the units that admission counts.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Sequences.
    pub sequences: u32,
    /// KV cache blocks; `u32::MAX` where there is no KV cache.
    pub kv_blocks: u32,
}

impl Room {
    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            sequences: self.sequences.min(other.sequences),
            kv_blocks: self.kv_blocks.min(other.kv_blocks),
        }
    }
}

/// An instance's word about itself.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Presence {
    /// Who.
    pub instance: InstanceId,
    /// What it does.
    pub role: Role,
    /// For which pipeline; none for doors, which serve all.
    pub fp: Option<Fingerprint>,
    /// Whether it takes work.
    pub state: State,
    /// Counts this instance's announcements.
    pub beat: u64,
    /// How often its connection for work was made anew. When it grows, what was on its way to or from it may be lost.
    pub reconnects: u64,
    /// How long the stage has been inside one batch, in milliseconds; 0 when it waits.
    pub busy_ms: u64,
    /// Jobs and batches done since it started.
    pub done: u64,
    /// What it holds now.
    pub used: Room,
    /// All it can hold.
    pub capacity: Room,
    /// How much of its capacity each upstream may use; the sum never exceeds `capacity`.
    pub grants: Vec<(InstanceId, Room)>,
    /// How much of each downstream's capacity this instance counts as its own: the larger of grant seen and room in use.
    pub held: Vec<(InstanceId, Room)>,
    /// Host and processors or device it computes on; equal texts share them.
    pub compute: String,
    /// Process id on its host.
    pub pid: u32,
    /// Address of its health and metrics, when it has one.
    pub admin: Option<String>,
    /// Release and commit.
    pub version: String,
}

impl Presence {
    /// The word of an instance that has nothing to tell but its state.
    pub fn bare(instance: InstanceId, role: Role, fp: Option<Fingerprint>, state: State) -> Self {
        Self {
            instance,
            role,
            fp,
            state,
            beat: 0,
            reconnects: 0,
            busy_ms: 0,
            done: 0,
            used: Room::default(),
            capacity: Room::default(),
            grants: Vec::new(),
            held: Vec::new(),
            compute: String::new(),
            pid: 0,
            admin: None,
            version: String::new(),
        }
    }
}

impl Edge for Presence {
    const KIND: u16 = 10;
}
