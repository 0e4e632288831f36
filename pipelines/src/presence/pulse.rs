//! What an instance says of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role};
use tokio::sync::Notify;

use crate::stage::Status;

/// What an instance says of itself that does not change.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub instance: InstanceId,
    /// What it does.
    pub role: Role,
    /// For which pipeline.
    pub fp: Option<Fingerprint>,
    /// Host and processors or device it computes on.
    pub compute: String,
    /// Address of health and metrics.
    pub admin: Option<String>,
}

/// What the working thread shows to the announcing one.
#[derive(Clone)]
pub struct Pulse(Arc<PulseState>);

struct PulseState {
    started: Instant,
    /// Milliseconds after `started` when the current batch began, plus one; 0 between batches.
    batch_since_ms: AtomicU64,
    reconnects: AtomicU64,
    shown: Mutex<Shown>,
    changed: Notify,
}

#[derive(Clone)]
struct Shown {
    state: State,
    /// None until the stage is ready to receive: only then does it announce itself.
    status: Option<Status>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(PulseState {
            started: Instant::now(),
            batch_since_ms: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            shown: Mutex::new(Shown { state: State::Ready, status: None }),
            changed: Notify::new(),
        }))
    }
}

impl Pulse {
    /// A batch begins.
    pub fn enter(&self) {
        let elapsed = self.0.started.elapsed().as_millis() as u64;
        self.0.batch_since_ms.store(elapsed + 1, Ordering::Relaxed);
    }

    /// The batch has ended and left the stage as `status` says. New grants are announced at once.
    pub fn leave(&self, status: Status) {
        self.0.batch_since_ms.store(0, Ordering::Relaxed);
        let mut shown = self.lock();
        let urgent = match &shown.status {
            None => true,
            Some(before) => before.grants != status.grants || before.held.len() != status.held.len(),
        };
        shown.status = Some(status);
        drop(shown);
        if urgent {
            self.0.changed.notify_one();
        }
    }

    /// Changes the announced state, at once.
    pub fn set_state(&self, state: State) {
        self.lock().state = state;
        self.0.changed.notify_one();
    }

    /// The connection for work was made anew: announced at once.
    pub fn reconnected(&self) {
        self.0.reconnects.fetch_add(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }

    /// How the instance leaves if it does now.
    pub(super) fn farewell(&self) -> State {
        match self.lock().state {
            State::Drained => State::Drained,
            _ => State::Gone,
        }
    }

    /// Waits until something must be announced at once.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        // Plain values: a panic elsewhere cannot have left them half written.
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy_ms(&self) -> u64 {
        match self.0.batch_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since => (self.0.started.elapsed().as_millis() as u64 + 1).saturating_sub(since),
        }
    }

    /// The next announcement; none before the stage is ready.
    pub(super) fn announcement(&self, identity: &Identity, beat: u64) -> Option<Presence> {
        let Shown { state, status } = self.lock().clone();
        let status = status?;
        Some(Presence {
            instance: identity.instance,
            role: identity.role,
            fp: identity.fp,
            state,
            beat,
            reconnects: self.0.reconnects.load(Ordering::Relaxed),
            busy_ms: self.busy_ms(),
            done: status.done,
            used: status.used,
            capacity: status.capacity,
            grants: status.grants,
            held: status.held,
            compute: identity.compute.clone(),
            pid: std::process::id(),
            admin: identity.admin.clone(),
            version: crate::service::VERSION.to_owned(),
        })
    }
}
