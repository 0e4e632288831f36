//! Prompts that have ended whoever served them: every door refuses them for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::quarantine::Quarantined;
use schemas::request::{Input, Payload};
use schemas::{Fingerprint, Subject, wire};

use super::images::Images;
use crate::bus::Bus;
use crate::stage::refused;

/// How long a prompt is refused: clients try again at once, operators do not find the fault sooner.
const KEPT_FOR: Duration = Duration::from_secs(900);

/// Prompts remembered at most; beyond that the oldest is forgotten.
const KEPT_MAX: usize = 1024;

/// What may not be admitted, and until when.
#[derive(Default)]
pub(super) struct Quarantine {
    kept: Mutex<HashMap<Quarantined, Instant>>,
}

/// What is recognised of a prompt, whatever else is asked of it.
pub(super) fn key(fp: Fingerprint, input: &Input, images: &Images) -> Quarantined {
    let mut hasher = blake3::Hasher::new();
    let (kind, payload) = match input {
        Input::Chat(payload) => (0u8, payload),
        Input::Text(payload) => (1, payload),
        Input::Ids(payload) => (2, payload),
    };
    hasher.update(&[kind]);
    match payload {
        // As a longer one would be named in the blob store.
        Payload::Inline(content) => hasher.update(blake3::hash(content).as_bytes()),
        Payload::Blob(blob) => hasher.update(&blob.hash),
    };
    images.hash_into(&mut hasher);
    Quarantined { fp, prompt: *hasher.finalize().as_bytes() }
}

impl Quarantine {
    /// Whether `key` may not be admitted; it is only made when anything may not.
    pub(super) fn holds(&self, key: impl FnOnce() -> Quarantined) -> bool {
        if self.lock().is_empty() {
            return false;
        }
        // Not under the lock: images are long.
        let key = key();
        self.lock().get(&key).is_some_and(|until| *until > Instant::now())
    }

    /// Refuses `key` from here on, at this door.
    pub(super) fn keep(&self, key: Quarantined) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|_, until| *until > now);
        if kept.len() >= KEPT_MAX
            && let Some(oldest) = kept.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key)
        {
            kept.remove(&oldest);
        }
        kept.insert(key, now + KEPT_FOR);
    }

    /// Takes in what a door has found.
    pub(super) fn hear(&self, payload: &bytes::Bytes) {
        match wire::decode(payload) {
            Ok(key) => self.keep(key),
            Err(error) => refused("quarantined", &error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Quarantined, Instant>> {
        // Every change is one insertion or removal: a panic elsewhere leaves nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells every other door.
pub(super) async fn announce(key: &Quarantined, bus: &Bus) {
    metrics::counter!("tokenway_poison_total").increment(1);
    if let Err(error) = bus.client().publish(Subject::quarantine().to_string(), wire::encode(key)).await {
        tracing::warn!(%error, "other doors do not hear of a poison");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Quarantined {
        Quarantined { fp: Fingerprint(number as u128), prompt: [0; 32] }
    }

    #[test]
    fn the_oldest_prompt_makes_room_for_the_next_one() {
        let quarantine = Quarantine::default();
        (0..=KEPT_MAX).for_each(|number| quarantine.keep(numbered(number)));
        assert!(!quarantine.holds(|| numbered(0)));
        assert!(quarantine.holds(|| numbered(1)) && quarantine.holds(|| numbered(KEPT_MAX)));
    }
}
