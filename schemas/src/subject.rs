//! Where a message goes. Built from ids only, never from text found in a payload.

use std::fmt;

use crate::{Fingerprint, InstanceId, Role, StreamId};

/// Prefix of every subject: project and subject-layout version.
pub const ROOT: &str = "tw.v1";

/// A NATS subject of this system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    /// The JetStream work queue at the entry of `role`.
    pub fn queue(fp: Fingerprint, role: Role) -> Self {
        Self(format!("{ROOT}.{fp}.{role}.queue"))
    }

    /// The work queue at the entry of `role` for answers that have begun: a full queue of new requests cannot refuse them.
    pub fn resume(fp: Fingerprint, role: Role) -> Self {
        Self(format!("{ROOT}.{fp}.{role}.resume"))
    }

    /// Steps and feedback for the one instance that holds the sequence.
    pub fn step(fp: Fingerprint, role: Role, instance: InstanceId) -> Self {
        Self(format!("{ROOT}.{fp}.{role}.{instance}.step"))
    }

    /// Admissions and failures for a door.
    pub fn control(door: InstanceId) -> Self {
        Self(format!("{ROOT}.reply.{door}.ctl"))
    }

    /// Chunks for a door.
    pub fn chunk(door: InstanceId) -> Self {
        Self(format!("{ROOT}.reply.{door}.chunk"))
    }

    /// The openings of a stream, in the journal.
    pub fn opening(stream: StreamId) -> Self {
        Self(format!("{ROOT}.journal.opening.{stream}"))
    }

    /// What a door sends to its clients, in the journal.
    pub fn entries(door: InstanceId) -> Self {
        Self(format!("{ROOT}.journal.entries.{door}"))
    }

    /// Pattern over everything in the journal.
    pub fn journal_all() -> Self {
        Self(format!("{ROOT}.journal.>"))
    }

    /// Prompts that no door may admit.
    pub fn quarantine() -> Self {
        Self(format!("{ROOT}.quarantine"))
    }

    /// Where the broker reports that `sender`'s message to `receiver` met no subscriber.
    pub fn undelivered(sender: InstanceId, receiver: InstanceId) -> Self {
        Self(format!("{ROOT}.undelivered.{sender}.{receiver}"))
    }

    /// Pattern over every [`Subject::undelivered`] of `sender`.
    pub fn undelivered_all(sender: InstanceId) -> Self {
        Self(format!("{ROOT}.undelivered.{sender}.*"))
    }

    /// The announcements of one instance.
    pub fn presence(instance: InstanceId) -> Self {
        Self(format!("{ROOT}.presence.{instance}"))
    }

    /// Asks one instance for a word.
    pub fn probe(instance: InstanceId) -> Self {
        Self(format!("{ROOT}.probe.{instance}"))
    }

    /// Pattern over every announcement.
    pub fn presence_all() -> Self {
        Self(format!("{ROOT}.presence.*"))
    }

    /// The subject as NATS sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_name_the_fingerprint_the_role_and_the_instance() {
        let fp = Fingerprint(0xab);
        let at = InstanceId(7);
        assert_eq!(
            Subject::step(fp, Role::ShardForward(1), at).as_str(),
            "tw.v1.000000000000000000000000000000ab.shard-forward.1.0000000000000007.step"
        );
        assert_eq!(Subject::control(at).as_str(), "tw.v1.reply.0000000000000007.ctl");
    }
}
