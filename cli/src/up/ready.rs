//! Waits until everything that was started can serve.

use std::sync::Arc;
use std::time::Duration;

use super::door::Door;
use super::plan::Planned;
use super::supervisor::{Slot, Supervisor};
use crate::bus::View;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const REASON_LINES: usize = 8;

/// What is missing before everything can serve.
enum Missing {
    /// Processes that have not announced themselves.
    Processes(Vec<Arc<Slot>>),
    /// A model that the gateway cannot serve yet, and its reason.
    Model(String, String),
}

/// Waits until every process has announced itself and the gateway can serve every model, at most `deadline`.
pub async fn wait(
    supervisor: &Supervisor,
    view: &View,
    planned: &[Planned],
    door: Option<&Door>,
    deadline: Duration,
) -> anyhow::Result<()> {
    let client = door.map(Door::client).transpose()?;
    // A stage that was given no process here is started elsewhere, so its model is not waited for.
    let complete = planned.iter().filter(|pipeline| pipeline.roles.iter().all(|(_, count)| *count > 0));
    let models: Vec<&str> = complete.map(|pipeline| pipeline.model.as_str()).collect();
    let mut missing = Missing::Processes(Vec::new());
    let ready = async {
        loop {
            match look(supervisor, view, &models, client.as_ref()).await {
                None => return,
                Some(now) => missing = now,
            }
            supervisor.terminal().wait_for(&missing.to_string());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let outcome = tokio::time::timeout(deadline, ready).await;
    supervisor.terminal().waited();
    outcome.map_err(|_| {
        anyhow::anyhow!("not ready after {} s: {missing}{}", deadline.as_secs(), missing.last_lines())
    })
}

async fn look(
    supervisor: &Supervisor,
    view: &View,
    models: &[&str],
    client: Option<&crate::client::Client>,
) -> Option<Missing> {
    let is_ready = |slot: &Slot| slot.instance().is_some_and(|instance| view.is_ready(instance));
    let on_the_bus = supervisor.slots().iter().filter(|slot| slot.role.is_some());
    let absent: Vec<_> = on_the_bus.filter(|slot| !is_ready(slot)).cloned().collect();
    if !absent.is_empty() {
        return Some(Missing::Processes(absent));
    }
    for model in models {
        if let Err(reason) = client?.ready(model).await {
            return Some(Missing::Model((*model).to_owned(), reason));
        }
    }
    None
}

impl Missing {
    /// The last log lines of each missing process.
    fn last_lines(&self) -> String {
        let Self::Processes(slots) = self else { return String::new() };
        let of_one =
            |slot: &Arc<Slot>| format!("\n  last lines of {}:{}", slot.label, slot.tail.last(REASON_LINES));
        slots.iter().map(of_one).collect()
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Processes(slots) => {
                let labels: Vec<_> = slots.iter().map(|slot| slot.label.as_str()).collect();
                write!(f, "waiting for {}", labels.join(", "))
            }
            Self::Model(model, reason) => write!(f, "waiting for the gateway to serve `{model}`: {reason}"),
        }
    }
}
