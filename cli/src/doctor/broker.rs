//! The NATS server that is in use, when there is one.

use super::Check;
use super::programs::release;
use crate::bus::{self, View};
use crate::last::Last;

/// The limit in deploy/nats.conf; NATS's own default of 1 MiB makes prefill chunks small.
const PAYLOAD_BYTES_RECOMMENDED: usize = 8 << 20;

/// Looks at the server named, else at that of the running `tokenway up`, else at none.
pub async fn check(given: Option<&str>) -> Vec<Check> {
    if given.is_none() && Last::read().is_none() {
        return Vec::new();
    }
    let url = bus::url(given);
    let view = match View::connect(&url, "tokenway doctor").await {
        Ok(view) => view,
        Err(error) => {
            return vec![Check::fail(
                "NATS",
                format!("{error:#}"),
                "start it, or name another with `--nats`",
            )];
        }
    };
    let broker = view.broker();
    let mut checks = vec![Check::ok("NATS", format!("{url}, release {}", broker.version))];
    if release(&broker.version).is_none_or(|release| release < (2, 10)) {
        checks.push(Check::fail("NATS release", broker.version, "needs 2.10 or later"));
    }
    checks.push(match broker.jetstream {
        true => Check::ok("JetStream", "enabled"),
        false => {
            Check::fail("JetStream", "not enabled", "start nats-server with `-js`, or with deploy/nats.conf")
        }
    });
    let payload = format!("{} KiB", broker.max_payload / 1024);
    checks.push(match broker.max_payload >= PAYLOAD_BYTES_RECOMMENDED {
        true => Check::ok("max_payload", payload),
        false => Check::warn("max_payload", payload, "set `max_payload: 8MiB`, as deploy/nats.conf does"),
    });
    checks
}
