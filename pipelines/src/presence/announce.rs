//! Announcing oneself, and saying that another has gone.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role, Subject, wire};
use tokio_util::sync::CancellationToken;

use super::BEAT_EVERY;
use super::pulse::{Identity, Pulse};
use crate::bus::Bus;

/// How long a goodbye may take: the others notice its absence anyway.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);

/// Announces `identity` until `stop`, then says goodbye.
pub async fn announce(
    bus: &Bus,
    identity: Identity,
    pulse: Pulse,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let subject = Subject::presence(identity.instance).to_string();
    // Whoever has heard nothing for a while asks for a word.
    let mut asked = bus.client().subscribe(Subject::probe(identity.instance).to_string()).await?;
    let mut beat = 0;
    while !stop.is_cancelled() {
        if let Some(presence) = pulse.announcement(&identity, beat) {
            bus.client().publish(subject.clone(), wire::encode(&presence)).await?;
            beat += 1;
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT_EVERY) => {}
            () = pulse.changed() => {}
            Some(_) = asked.next() => {}
            () = stop.cancelled() => {}
        }
    }
    say_goodbye(bus, Presence::bare(identity.instance, identity.role, identity.fp, pulse.farewell())).await
}

/// Says that `instance` is gone: its supervisor's notice.
pub async fn announce_gone(
    bus: &Bus,
    instance: InstanceId,
    role: Role,
    fp: Option<Fingerprint>,
) -> anyhow::Result<()> {
    say_goodbye(bus, Presence::bare(instance, role, fp, State::Gone)).await
}

async fn say_goodbye(bus: &Bus, goodbye: Presence) -> anyhow::Result<()> {
    let subject = Subject::presence(goodbye.instance).to_string();
    bus.client().publish(subject, wire::encode(&goodbye)).await?;
    tokio::time::timeout(GOODBYE_DEADLINE, bus.client().flush())
        .await
        .context("no goodbye: the bus is away")??;
    Ok(())
}
