//! Which instances have died lately, as a door sees it: what a request cannot be to blame for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::Fingerprint;

use crate::peers::Peers;

/// How long a death counts.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Deaths remembered at most.
const KEPT_MAX: usize = 1024;

/// Deaths without a token between them for which a request is blamed whatever else has died.
const OWN_MAX: u32 = 8;

/// The deaths of the last minute.
#[derive(Default)]
pub(super) struct Deaths(Mutex<Log>);

#[derive(Default)]
struct Log {
    before: Peers,
    lately: VecDeque<(Instant, Fingerprint)>,
}

impl Deaths {
    /// Takes in who is there: who was and has not drained has died.
    pub(super) fn peers(&self, peers: &Peers, now: Instant) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.before.is_same(peers) {
            return;
        }
        let before = std::mem::replace(&mut log.before, peers.clone());
        let gone = before.all().filter(|it| !peers.is_alive(it.instance) && !peers.has_drained(it.instance));
        log.lately.extend(gone.filter_map(|it| Some((now, it.fp?))));
        let excess = log.lately.len().saturating_sub(KEPT_MAX);
        log.lately.drain(..excess);
    }

    /// Whether a request of pipeline `fp` that was served alone has ended who served it: it was on `own` instances that died, one
    /// after the other without a token between.
    ///
    /// Not when as many others have died in the same minute: then something else is killing. But at last it is, for its attempts
    /// must have an end.
    pub(super) fn blame(&self, fp: Fingerprint, own: u32, now: Instant) -> bool {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |(at, of): &&(Instant, Fingerprint)| *of == fp && now.duration_since(*at) < KEPT_FOR;
        let others = log.lately.iter().filter(is_recent).count().saturating_sub(own as usize);
        own >= OWN_MAX || own as usize > others
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::presence::{Presence, State};
    use schemas::{InstanceId, Role};

    use super::*;

    const FP: Fingerprint = Fingerprint(1);

    fn alive(ids: std::ops::Range<u64>) -> Peers {
        let presence = |id| Presence::bare(id, Role::Sample, Some(FP), State::Ready);
        Peers::new(ids.map(InstanceId).map(|id| (id, presence(id))).collect())
    }

    #[test]
    fn a_request_is_blamed_unless_as_many_others_have_died() {
        let (deaths, start) = (Deaths::default(), Instant::now());
        deaths.peers(&alive(0..10), start);
        deaths.peers(&alive(3..10), start);
        assert!(deaths.blame(FP, 3, start), "nobody but those that it was on");
        deaths.peers(&alive(5..10), start);
        assert!(deaths.blame(FP, 3, start), "two others");
        deaths.peers(&alive(6..10), start);
        assert!(!deaths.blame(FP, 3, start), "three others");
        assert!(deaths.blame(FP, OWN_MAX, start), "its attempts have an end");
        assert!(deaths.blame(Fingerprint(2), 3, start), "those were of another pipeline");
        assert!(deaths.blame(FP, 3, start + KEPT_FOR), "long ago");
    }

    #[test]
    fn who_drained_has_not_died() {
        let (deaths, start) = (Deaths::default(), Instant::now());
        deaths.peers(&alive(0..10), start);
        deaths.peers(&alive(9..10).with_drained((0..9).map(InstanceId).collect::<BTreeSet<_>>()), start);
        assert!(deaths.blame(FP, 1, start));
    }
}
