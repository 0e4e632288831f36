//! The open sessions of a door, and what the bus says of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::admission::{Event, Notice, Route};
use schemas::chunk::{Chunk, Chunks};
use schemas::control::Say;
use schemas::{Failure, FailureKind, InstanceId, Role, RouteId, SessionId};
use tokio::sync::mpsc;

use super::feedback::Feedbacks;
use crate::peers::Peers;
use crate::presence::SILENCE_MAX;

/// Deliveries that may wait for a client: above the flow-control window of shard-forward.0, so that a full queue is a
/// broken invariant and not a slow client.
pub(super) const DELIVERIES_MAX: usize = 4096;

/// How long after somebody of its route has died an answer may still arrive. Of one that drained everything is on its way, and
/// may take its time.
const LAST_CHUNKS_WITHIN: Duration = Duration::from_millis(100);

/// What a session gets to hear.
#[derive(Debug)]
pub(super) enum Delivery {
    Admitted { route: Route, prompt_tokens: u32 },
    Chunk(Chunk),
    Failed(Failure),
}

struct Entry {
    attempt: u32,
    route: Option<Route>,
    /// When somebody of the route was first missed.
    missed: Option<Instant>,
    /// Whether everybody of the route was there once.
    met: bool,
    /// How often those of the route had made their connections anew, when they were met.
    reconnects: u64,
    /// Tokens of the answer that were passed on, so that repeats are dropped and gaps are seen.
    next: u32,
    deliveries: mpsc::Sender<Delivery>,
}

/// All open sessions of one door.
#[derive(Default)]
pub(super) struct Roster {
    open: Mutex<HashMap<SessionId, Entry>>,
    /// Who was there when last looked.
    latest: Mutex<Peers>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        // Entries are replaced whole: a panic elsewhere cannot have left one half written.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, before its request is published.
    pub(super) fn open(&self, session: SessionId) -> mpsc::Receiver<Delivery> {
        let (deliveries, receiver) = mpsc::channel(DELIVERIES_MAX);
        self.lock().insert(
            session,
            Entry { attempt: 0, route: None, missed: None, met: false, reconnects: 0, next: 0, deliveries },
        );
        receiver
    }

    /// Begins the next attempt of a session that has `delivered` tokens and no route; returns its number. What earlier
    /// attempts still say is ignored from here on.
    pub(super) fn resume(&self, session: SessionId, delivered: u32) -> Option<u32> {
        let mut open = self.lock();
        let entry = open.get_mut(&session)?;
        (entry.route, entry.missed, entry.met, entry.next) = (None, None, false, delivered);
        entry.attempt += 1;
        Some(entry.attempt)
    }

    /// Closes a session; returns the route that must be told when the answer has not ended.
    pub(super) fn close(&self, session: SessionId) -> Option<Route> {
        self.lock().remove(&session).and_then(|entry| entry.route)
    }

    /// Takes in a word from a stage.
    pub(super) fn notice(&self, notice: Notice, feedbacks: &Feedbacks) {
        let mut open = self.lock();
        let entry = open.get_mut(&notice.session).filter(|entry| entry.attempt == notice.attempt);
        match (notice.event, entry) {
            (Event::Admitted { route, prompt_tokens }, Some(entry)) if entry.route.is_none() => {
                entry.route = Some(route.clone());
                entry.meet(&self.latest.lock().unwrap_or_else(PoisonError::into_inner));
                entry.deliver(Delivery::Admitted { route, prompt_tokens }, feedbacks);
            }
            // Nobody waits for it, or another admission came first.
            (Event::Admitted { route, .. }, entry) => {
                if entry.and_then(|entry| entry.route.as_ref()).is_none_or(|bound| bound.id != route.id) {
                    feedbacks.say(&route, Say::Cancel);
                }
            }
            (Event::Failed { route, failure }, Some(entry)) if entry.is_on(route) => {
                entry.route = None;
                entry.deliver(Delivery::Failed(failure), feedbacks);
            }
            (Event::Failed { .. }, _) => {}
        }
    }

    /// Takes in the chunks of one step.
    pub(super) fn chunks(&self, chunks: Chunks, feedbacks: &Feedbacks) {
        let mut open = self.lock();
        for chunk in chunks.chunks {
            if let Some(entry) = open.get_mut(&chunk.session) {
                entry.chunk(chunk, feedbacks);
            }
        }
    }

    /// Ends the sessions of whose route the scheduling shard has gone, or somebody behind it, who may have had their last tokens
    /// when that shard had let go of them already. The later shards are watched by it.
    ///
    /// What they did before they went may still be on its way: an instance that drained may have left when its last chunk arrives.
    /// Of one that had lost its connection for a moment something may be lost, so its sessions go on from what has arrived.
    pub(super) fn peers(&self, peers: &Peers, now: Instant, feedbacks: &Feedbacks) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = peers.clone();
        for entry in self.lock().values_mut() {
            let before = entry.met.then_some(entry.reconnects);
            let Some((role, instance)) = entry.meet(peers) else {
                if entry.route.is_some() && before.is_some_and(|before| before != entry.reconnects) {
                    entry.end(Failure::bus_away(), feedbacks);
                }
                continue;
            };
            let missed = *entry.missed.get_or_insert(now);
            // A door that has just started may not have heard of everybody yet.
            let died = entry.met && !peers.has_drained(instance);
            let wait = if died { LAST_CHUNKS_WITHIN } else { SILENCE_MAX };
            if now.duration_since(missed) >= wait {
                entry.end(Failure::instance_lost(role), feedbacks);
            }
        }
    }

    /// The bus was away: what was said to any session may be lost, and so may be its request.
    pub(super) fn reconnected(&self, feedbacks: &Feedbacks) {
        for entry in self.lock().values_mut() {
            entry.end(Failure::bus_away(), feedbacks);
        }
    }

    /// Sessions open now.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Those of a route that a door watches.
fn watched(route: &Route) -> impl Iterator<Item = (Role, InstanceId)> {
    let first = route.shards.first().map(|shard| (Role::ShardForward(0), *shard));
    let behind = [(Role::Sample, route.sample), (Role::Detokenize, route.detokenize)];
    first.into_iter().chain(behind)
}

impl Entry {
    /// Whether `route` is the admission this session is bound to; a failure before admission names none.
    fn is_on(&self, route: Option<RouteId>) -> bool {
        self.route.as_ref().map(|bound| bound.id) == route
    }

    /// Notes that everybody of its route is there; returns one who is not.
    fn meet(&mut self, peers: &Peers) -> Option<(Role, InstanceId)> {
        let route = self.route.as_ref()?;
        if let Some(missing) = watched(route).find(|(_, it)| !peers.is_alive(*it)) {
            return Some(missing);
        }
        let reconnects = watched(route).filter_map(|(_, it)| peers.get(it)).map(|it| it.reconnects);
        (self.missed, self.met, self.reconnects) = (None, true, reconnects.sum());
        None
    }

    fn chunk(&mut self, mut chunk: Chunk, feedbacks: &Feedbacks) {
        if chunk.attempt != self.attempt || !self.is_on(Some(chunk.route)) {
            return;
        }
        if chunk.first < self.next && chunk.finish.is_none() {
            return;
        }
        if chunk.first > self.next {
            let lost = format!("tokens {} to {} of the answer were lost on the bus", self.next, chunk.first);
            self.end(Failure::new(FailureKind::Unavailable, lost), feedbacks);
            return;
        }
        self.next = chunk.first + chunk.ids.len() as u32;
        if chunk.finish.is_some() {
            // The answer has ended by itself: nothing is left to cancel.
            self.route = None;
            chunk.ids.shrink_to_fit();
        }
        self.deliver(Delivery::Chunk(chunk), feedbacks);
    }

    fn end(&mut self, failure: Failure, feedbacks: &Feedbacks) {
        if let Some(route) = self.route.take() {
            feedbacks.say(&route, Say::Cancel);
        }
        self.deliver(Delivery::Failed(failure), feedbacks);
    }

    fn deliver(&mut self, delivery: Delivery, feedbacks: &Feedbacks) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.deliveries.try_send(delivery) {
            metrics::counter!("tokenway_session_overrun_total").increment(1);
            tracing::error!("a session's deliveries overran its window");
            if let Some(route) = self.route.take() {
                feedbacks.say(&route, Say::Cancel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::Fingerprint;
    use schemas::presence::{Presence, State};

    use super::*;

    const FP: Fingerprint = Fingerprint(1);
    const SESSION: SessionId = SessionId(2);

    fn route() -> Route {
        Route {
            fp: FP,
            id: RouteId(3),
            shards: vec![InstanceId(10), InstanceId(11)],
            sample: InstanceId(12),
            detokenize: InstanceId(13),
        }
    }

    fn alive_but(gone: u64) -> Peers {
        let alive = (10..=13).filter(|id| *id != gone).map(InstanceId);
        let presence = |id| Presence::bare(id, Role::Sample, Some(FP), State::Ready);
        Peers::new(alive.map(|id| (id, presence(id))).collect())
    }

    #[test]
    fn an_answer_ends_with_whoever_may_have_its_last_tokens() {
        for (gone, ends) in [(10, true), (11, false), (12, true), (13, true)] {
            let (roster, feedbacks) = (Roster::default(), Feedbacks::default());
            let mut deliveries = roster.open(SESSION);
            let event = Event::Admitted { route: route(), prompt_tokens: 1 };
            roster.notice(Notice { session: SESSION, attempt: 0, event }, &feedbacks);
            assert!(matches!(deliveries.try_recv(), Ok(Delivery::Admitted { .. })));
            let now = Instant::now();
            roster.peers(&alive_but(0), now, &feedbacks);
            for later in [Duration::ZERO, LAST_CHUNKS_WITHIN / 2] {
                roster.peers(&alive_but(gone), now + later, &feedbacks);
                assert!(deliveries.try_recv().is_err(), "its last chunks may be on their way");
            }
            roster.peers(&alive_but(gone), now + LAST_CHUNKS_WITHIN, &feedbacks);
            let failed =
                matches!(deliveries.try_recv(), Ok(Delivery::Failed(failure)) if failure.is_instance_lost());
            assert_eq!(failed, ends, "{gone}");
        }
    }

    #[test]
    fn an_answer_goes_on_elsewhere_when_somebody_of_its_route_has_reconnected() {
        for (shaken, ends) in [(10, true), (11, false), (12, true), (13, true)] {
            let (roster, feedbacks) = (Roster::default(), Feedbacks::default());
            let mut deliveries = roster.open(SESSION);
            let event = Event::Admitted { route: route(), prompt_tokens: 1 };
            roster.notice(Notice { session: SESSION, attempt: 0, event }, &feedbacks);
            assert!(deliveries.try_recv().is_ok());
            let now = Instant::now();
            roster.peers(&alive_but(0), now, &feedbacks);
            assert!(deliveries.try_recv().is_err());
            let all = alive_but(0);
            let again = all.all().cloned().map(|mut peer| {
                peer.reconnects = u64::from(peer.instance == InstanceId(shaken));
                (peer.instance, peer)
            });
            roster.peers(&Peers::new(again.collect()), now, &feedbacks);
            let failed =
                matches!(deliveries.try_recv(), Ok(Delivery::Failed(failure)) if failure.is_bus_away());
            assert_eq!(failed, ends, "{shaken}");
        }
    }

    #[test]
    fn whom_a_door_has_never_met_it_does_not_miss_at_once() {
        let (roster, feedbacks) = (Roster::default(), Feedbacks::default());
        let mut deliveries = roster.open(SESSION);
        let event = Event::Admitted { route: route(), prompt_tokens: 1 };
        roster.notice(Notice { session: SESSION, attempt: 0, event }, &feedbacks);
        assert!(deliveries.try_recv().is_ok());
        let now = Instant::now();
        roster.peers(&alive_but(12), now, &feedbacks);
        roster.peers(&alive_but(12), now + SILENCE_MAX / 2, &feedbacks);
        assert!(deliveries.try_recv().is_err(), "it may not have announced itself since the door started");
        roster.peers(&alive_but(12), now + SILENCE_MAX, &feedbacks);
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::Failed(_))));
    }

    #[test]
    fn the_last_chunks_of_one_that_drained_may_take_their_time() {
        let (roster, feedbacks) = (Roster::default(), Feedbacks::default());
        let mut deliveries = roster.open(SESSION);
        let event = Event::Admitted { route: route(), prompt_tokens: 1 };
        roster.notice(Notice { session: SESSION, attempt: 0, event }, &feedbacks);
        assert!(deliveries.try_recv().is_ok());
        let now = Instant::now();
        roster.peers(&alive_but(0), now, &feedbacks);
        let drained = alive_but(13).with_drained([InstanceId(13)].into());
        roster.peers(&drained, now, &feedbacks);
        roster.peers(&drained, now + SILENCE_MAX / 2, &feedbacks);
        assert!(deliveries.try_recv().is_err());
        roster.peers(&drained, now + SILENCE_MAX, &feedbacks);
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::Failed(_))), "not for ever");
    }
}
