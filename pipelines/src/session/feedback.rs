//! What a door has to say to shard-forward.0 instances, collected so that one message carries many words.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::admission::Route;
use schemas::control::{Feedback, Say};
use schemas::{Fingerprint, InstanceId, Role, RouteId, Subject, wire};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;

/// How long words are collected: far below the time in which a flow-control window is used up.
const COLLECT: Duration = Duration::from_millis(2);

/// Words not yet sent. Later words on a route replace earlier ones, so there is at most one a route.
#[derive(Default)]
pub(super) struct Feedbacks {
    waiting: Mutex<HashMap<(Fingerprint, InstanceId), HashMap<RouteId, Say>>>,
    some: Notify,
}

impl Feedbacks {
    /// Leaves `word` for the scheduling shard of `route`. One that has been given up gets it too: it may only be stopped, and
    /// must not go on when it wakes.
    pub(super) fn say(&self, route: &Route, word: Say) {
        let Some(shard) = route.shards.first() else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let words = waiting.entry((route.fp, *shard)).or_default();
        let before = words.insert(route.id, word);
        if before == Some(Say::Cancel) {
            words.insert(route.id, Say::Cancel);
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// Sends what collects until `stop`.
    pub(super) async fn send_all(&self, bus: Bus, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.some.notified() => tokio::time::sleep(COLLECT).await,
                () = stop.cancelled() => {
                    self.send(&bus).await;
                    return;
                }
            }
            self.send(&bus).await;
        }
    }

    async fn send(&self, bus: &Bus) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for ((fp, shard), words) in waiting {
            let subject = Subject::step(fp, Role::ShardForward(0), shard);
            let message = wire::encode(&Feedback { entries: words.into_iter().collect() });
            if let Err(error) = bus.client().publish(subject.to_string(), message).await {
                tracing::warn!(%error, %subject, "feedback not sent");
            }
        }
    }
}
