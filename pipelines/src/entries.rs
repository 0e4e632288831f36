//! Entries of the work queues on their way to the stage: new ones as they come, those that were delivered before one by one,
//! while the stage holds nothing else. So whoever dies of one takes no other with it, and the next one knows.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::Message;
use bytes::Bytes;

use crate::claims::{Claim, EntryName};
use crate::output::Output;
use crate::peers::Peers;
use crate::stage::{Job, Stage, Ticket};

/// When to look again whether somebody still works on an entry.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// An entry that this instance has and has not acknowledged.
pub(crate) struct Entry {
    pub(crate) ticket: Ticket,
    pub(crate) payload: Bytes,
    /// None when the broker does not say, which it does of everything in a stream.
    pub(crate) origin: Option<Origin>,
}

/// What the broker says of an entry.
pub(crate) struct Origin {
    pub(crate) name: EntryName,
    /// How often it was delivered, 1 at first.
    pub(crate) delivered: i64,
    /// When it was put into the queue.
    pub(crate) published: std::time::SystemTime,
}

impl Entry {
    /// How long it has been in the queue, by the broker's clock and ours; zero when they disagree.
    pub(crate) fn age(&self) -> Duration {
        let published = self.origin.as_ref().map(|origin| origin.published);
        published.and_then(|at| at.elapsed().ok()).unwrap_or_default()
    }

    fn was_delivered_before(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.delivered > 1)
    }
}

/// What waits for the stage.
#[derive(Default)]
pub(crate) struct Entries {
    fresh: Vec<Entry>,
    again: VecDeque<Entry>,
    /// What the stage works on while it gets nothing else.
    alone: Option<Ticket>,
}

impl Entries {
    /// How many more may be taken from the queues, where the stage has room for `room`.
    pub(crate) fn room(&self, room: usize, output: &Output) -> usize {
        if self.again.is_empty() && !self.is_alone(output) { room } else { 0 }
    }

    /// Whether the stage works on an entry that gets no company.
    fn is_alone(&self, output: &Output) -> bool {
        self.alone.is_some_and(|ticket| output.holds(ticket))
    }

    /// Takes in what was delivered.
    pub(crate) fn take(&mut self, deliveries: Vec<Message>, output: &mut Output, stage: &dyn Stage) {
        for delivery in deliveries {
            let entry = output.hold(delivery);
            match entry.was_delivered_before() && stage.isolates_entries() {
                true => self.again.push_back(entry),
                false => self.fresh.push(entry),
            }
        }
    }

    /// Whether [`Entries::next`] has something.
    pub(crate) fn is_ready(&self, output: &Output) -> bool {
        let nothing_else = output.held() == self.again.len();
        !self.is_alone(output) && (!self.fresh.is_empty() || (!self.again.is_empty() && nothing_else))
    }

    /// What the stage may work on now.
    pub(crate) async fn next(
        &mut self,
        output: &mut Output,
        stage: &dyn Stage,
        peers: &Peers,
    ) -> anyhow::Result<Vec<Job>> {
        if !self.is_ready(output) {
            return Ok(Vec::new());
        }
        self.alone = None;
        let mut jobs = Vec::with_capacity(self.fresh.len().max(1));
        for entry in self.fresh.drain(..) {
            jobs.push(output.job(entry, stage, false).await);
        }
        if jobs.is_empty()
            && let Some(entry) = self.again.pop_front()
        {
            match output.claim(&entry, peers).await {
                Claim::Others => output.give_back_for(entry.ticket, LOOK_AGAIN_AFTER).await?,
                claim => {
                    self.alone = Some(entry.ticket);
                    jobs.push(output.job(entry, stage, claim == Claim::Poison).await);
                }
            }
        }
        Ok(jobs)
    }

    /// Gives back what the stage has not begun.
    pub(crate) async fn give_back(&mut self, output: &mut Output) -> anyhow::Result<()> {
        for entry in self.fresh.drain(..).chain(self.again.drain(..)) {
            output.give_back(entry.ticket).await?;
        }
        Ok(())
    }
}
