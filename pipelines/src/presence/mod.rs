//! Presence: every process announces itself from a thread of its own and listens to everybody.
//!
//! The thread has its own connection, so that an instance which computes for long is not taken for dead, and a broker
//! that cannot be reached is noticed by both sides.

mod announce;
mod pulse;
mod roll;
mod watch;

use std::time::Duration;

pub use announce::{announce, announce_gone};
pub use pulse::{Identity, Pulse};
pub use watch::Watch;

/// Time between two announcements.
pub const BEAT_EVERY: Duration = Duration::from_millis(250);

/// Silence after which an instance counts as dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Silence after which an instance is asked for a word: the broker says at once when nobody is there to hear it.
pub const SILENCE_SUSPECT: Duration = Duration::from_millis(375);

/// Time inside one batch after which an instance counts as dead although it still announces itself.
pub const BUSY_MS_MAX: u64 = 60_000;
