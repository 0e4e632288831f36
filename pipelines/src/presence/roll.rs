//! Everyone heard of lately, and who has fallen silent.

use std::collections::BTreeMap;
use std::time::Instant;

use schemas::InstanceId;
use schemas::presence::{Presence, State};

use super::{BEAT_EVERY, BUSY_MS_MAX, SILENCE_MAX, SILENCE_SUSPECT};
use crate::peers::Peers;

/// Everyone heard of lately.
#[derive(Default)]
pub(super) struct Roll {
    alive: BTreeMap<InstanceId, (Presence, Instant)>,
    /// When those that are silent were last asked for a word.
    asked: BTreeMap<InstanceId, Instant>,
    /// Instances that have gone, so that an announcement still on its way does not revive them.
    gone: BTreeMap<InstanceId, Leave>,
    /// Whether load figures have changed since the last snapshot.
    stale: bool,
    snapshot_at: Option<Instant>,
    /// When anybody was last heard: one's own announcements come back too, so silence of all means that the bus is away.
    latest: Option<Instant>,
}

/// How an instance left.
struct Leave {
    at: Instant,
    /// Whether it had finished what it held.
    drained: bool,
}

impl Roll {
    /// Takes in an announcement; true when others must know at once.
    pub(super) fn hear(&mut self, presence: Presence, now: Instant) -> bool {
        let instance = presence.instance;
        self.forgive_outage(now);
        match presence.state {
            State::Drained => {
                let known = self.gone.insert(instance, Leave { at: now, drained: true });
                self.lose(instance);
                return !known.is_some_and(|leave| leave.drained);
            }
            State::Gone => {
                self.gone.entry(instance).or_insert(Leave { at: now, drained: false });
                return self.lose(instance).is_some();
            }
            State::Unreachable => return self.lose(instance).is_some(),
            State::Ready | State::Draining => {}
        }
        if self.gone.contains_key(&instance) {
            return false;
        }
        self.stale = true;
        match self.alive.insert(instance, (presence, now)) {
            None => true,
            Some((before, _)) => {
                let (after, _) = &self.alive[&instance];
                before.state != after.state
                    || before.reconnects != after.reconnects
                    || before.grants != after.grants
                    || before.held.len() != after.held.len()
            }
        }
    }

    /// After a time in which nobody was heard, everybody gets the full time to be heard again.
    fn forgive_outage(&mut self, now: Instant) {
        let outage = self.latest.is_some_and(|latest| now.duration_since(latest) > SILENCE_MAX / 2);
        if outage {
            self.alive.values_mut().for_each(|(_, heard)| *heard = now);
        }
        self.latest = Some(now);
    }

    /// Drops an instance that cannot be reached, until it announces itself again.
    pub(super) fn lose(&mut self, instance: InstanceId) -> Option<Presence> {
        self.alive.remove(&instance).map(|(presence, _)| presence)
    }

    /// Drops those that were silent or stuck for too long.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.alive.len();
        let heard_all = self.latest.unwrap_or(now);
        self.alive.retain(|_, (presence, heard)| {
            heard_all.duration_since(*heard) <= SILENCE_MAX && presence.busy_ms <= BUSY_MS_MAX
        });
        self.gone.retain(|_, leave| now.duration_since(leave.at) <= 10 * SILENCE_MAX);
        before != self.alive.len()
    }

    /// Those that should have said something by now, each once a beat: to be asked for a word.
    pub(super) fn suspects(&mut self, now: Instant) -> Vec<InstanceId> {
        let heard_all = self.latest.unwrap_or(now);
        let is_silent = |heard: Instant| heard_all.duration_since(heard) > SILENCE_SUSPECT;
        self.asked.retain(|_, asked| now.duration_since(*asked) < BEAT_EVERY);
        let silent = self.alive.iter().filter(|(_, (_, heard))| is_silent(*heard)).map(|(id, _)| *id);
        let suspects: Vec<InstanceId> = silent.filter(|id| !self.asked.contains_key(id)).collect();
        self.asked.extend(suspects.iter().map(|id| (*id, now)));
        suspects
    }

    /// Whether load figures have changed and the last snapshot is a beat old.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.stale && self.snapshot_at.is_none_or(|at| now.duration_since(at) >= BEAT_EVERY)
    }

    /// Who is alive, for others.
    pub(super) fn snapshot(&mut self, now: Instant) -> Peers {
        (self.stale, self.snapshot_at) = (false, Some(now));
        let drained = self.gone.iter().filter(|(_, leave)| leave.drained).map(|(id, _)| *id);
        Peers::new(self.alive.iter().map(|(id, (presence, _))| (*id, presence.clone())).collect())
            .with_drained(drained.collect())
    }
}

#[cfg(test)]
mod tests {
    use schemas::Role;

    use super::*;
    use crate::presence::{Identity, Pulse};
    use crate::stage::Status;

    fn presence(state: State) -> Presence {
        let identity = Identity {
            instance: InstanceId(1),
            role: Role::Sample,
            fp: None,
            compute: String::new(),
            admin: None,
        };
        let pulse = Pulse::default();
        pulse.set_state(state);
        pulse.leave(Status::default());
        pulse.announcement(&identity, 1).unwrap()
    }

    fn other(mut presence: Presence) -> Presence {
        presence.instance = InstanceId(2);
        presence
    }

    #[test]
    fn silence_of_one_among_others_ends_it() {
        let mut roll = Roll::default();
        let start = Instant::now();
        assert!(roll.hear(presence(State::Ready), start));
        let mut now = start;
        while now < start + SILENCE_MAX {
            now += BEAT_EVERY;
            roll.hear(other(presence(State::Ready)), now);
            assert!(!roll.expire(now));
        }
        now += BEAT_EVERY;
        roll.hear(other(presence(State::Ready)), now);
        assert!(roll.expire(now));
        assert!(!roll.snapshot(Instant::now()).is_alive(InstanceId(1)));
    }

    #[test]
    fn an_outage_of_the_bus_ends_nobody() {
        let mut roll = Roll::default();
        let start = Instant::now();
        roll.hear(presence(State::Ready), start);
        roll.hear(other(presence(State::Ready)), start);
        let later = start + 5 * SILENCE_MAX;
        assert!(!roll.expire(later));
        roll.hear(other(presence(State::Ready)), later);
        assert!(!roll.expire(later));
    }

    #[test]
    fn who_drained_before_it_left_is_told_from_who_died() {
        let now = Instant::now();
        for (last, drained) in [(State::Drained, true), (State::Gone, false)] {
            let mut roll = Roll::default();
            roll.hear(presence(State::Draining), now);
            assert!(!roll.snapshot(now).has_drained(InstanceId(1)), "it is still there");
            // Whoever sent to it in between finds its connection closed.
            roll.hear(presence(State::Unreachable), now);
            assert!(!roll.snapshot(now).has_drained(InstanceId(1)), "it may have died");
            // Its own word, then its supervisor's.
            roll.hear(presence(last), now);
            roll.hear(presence(State::Gone), now);
            assert_eq!(roll.snapshot(now).has_drained(InstanceId(1)), drained);
            assert!(!roll.hear(presence(State::Draining), now), "a late word");
        }
    }

    #[test]
    fn whom_another_cannot_reach_is_back_with_its_next_word() {
        let mut roll = Roll::default();
        let now = Instant::now();
        roll.hear(presence(State::Ready), now);
        assert!(roll.hear(presence(State::Unreachable), now));
        assert!(!roll.hear(presence(State::Unreachable), now), "known");
        assert!(!roll.snapshot(Instant::now()).is_alive(InstanceId(1)));
        assert!(roll.hear(presence(State::Ready), now));
        assert!(roll.snapshot(Instant::now()).is_alive(InstanceId(1)));
    }

    #[test]
    fn a_late_announcement_does_not_revive_the_gone() {
        let mut roll = Roll::default();
        let now = Instant::now();
        roll.hear(presence(State::Ready), now);
        assert!(roll.hear(presence(State::Gone), now));
        assert!(!roll.hear(presence(State::Ready), now));
        assert!(!roll.snapshot(Instant::now()).is_alive(InstanceId(1)));
    }

    #[test]
    fn the_silent_are_asked_for_a_word_once_a_beat() {
        let mut roll = Roll::default();
        let start = Instant::now();
        roll.hear(presence(State::Ready), start);
        assert!(roll.suspects(start + SILENCE_MAX).is_empty(), "all are silent: the bus is away");
        let later = start + SILENCE_SUSPECT + BEAT_EVERY;
        roll.hear(other(presence(State::Ready)), later);
        assert_eq!(roll.suspects(later), [InstanceId(1)]);
        assert!(roll.suspects(later + BEAT_EVERY / 2).is_empty(), "asked just now");
        assert_eq!(roll.suspects(later + BEAT_EVERY), [InstanceId(1)]);
        roll.hear(presence(State::Ready), later + BEAT_EVERY);
        assert!(roll.suspects(later + 2 * BEAT_EVERY).is_empty());
    }
}
