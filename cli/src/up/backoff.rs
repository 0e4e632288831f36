//! How long to wait before starting again what died.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// A life of this length clears the past.
const HEALTHY: Duration = Duration::from_secs(30);

/// Doubles from death to death.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// The wait after a process that lived for `life`.
    pub fn after(&mut self, life: Duration) -> Duration {
        if life >= HEALTHY {
            self.next = SHORTEST;
        }
        let wait = self.next;
        self.next = (2 * wait).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_a_healthy_life_resets_them() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(HEALTHY), SHORTEST);
        assert_eq!(backoff.after(Duration::ZERO), 2 * SHORTEST);
    }
}
