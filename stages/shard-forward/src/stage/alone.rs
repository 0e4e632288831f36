//! A request that may have ended its instances before is served while nothing else is: if it does so again, no other is hit, and
//! it is known to be the one.

use std::time::{Duration, Instant};

use schemas::SequenceId;

use super::first::First;
use super::sequence::Sequence;

/// Longest time that the others wait: if its client has heard nothing by then, it is slow and not poison.
const ALONE_FOR_MAX: Duration = Duration::from_secs(30);

/// The sequence that is served alone, until its client has heard something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alone {
    sequence: SequenceId,
    pub(super) until: Instant,
}

impl First {
    /// From here on nothing else is computed.
    pub(super) fn serve_alone(&mut self, sequence: SequenceId, now: Instant) {
        metrics::counter!("tokenway_served_alone_total").increment(1);
        self.alone = Some(Alone { sequence, until: now + ALONE_FOR_MAX });
    }

    /// The others go on, if it is this one that they wait for.
    pub(super) fn others_go_on_after(&mut self, sequence: SequenceId) {
        self.alone = self.alone.filter(|alone| alone.sequence != sequence);
    }

    /// A sequence has another number.
    pub(super) fn alone_goes_on_as(&mut self, before: SequenceId, sequence: SequenceId) {
        if let Some(alone) = self.alone.as_mut().filter(|alone| alone.sequence == before) {
            alone.sequence = sequence;
        }
    }

    /// Whether a sequence may have rows in the next step.
    pub(super) fn may_run(&self, it: &Sequence) -> bool {
        self.alone.is_none_or(|alone| alone.sequence == it.id)
    }

    /// Whether a step may be sent: one that is served alone waits until all others have come back.
    pub(super) fn others_are_back(&self) -> bool {
        self.alone.is_none() || !self.lanes.has_steps()
    }
}
