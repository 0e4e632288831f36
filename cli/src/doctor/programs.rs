//! Executables: found, able to start, of one release.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::Check;
use crate::bus::VERSION;
use crate::locate;

const PROGRAMS: [&str; 6] = ["gateway", "tokenize", "vision-encode", "shard-forward", "sample", "detokenize"];
const START_DEADLINE: Duration = Duration::from_secs(20);
const NATS_VERSION_MIN: (u32, u32) = (2, 10);

/// Looks at every program that `tokenway up` starts.
pub async fn check() -> Vec<Check> {
    let mut checks = Vec::new();
    for name in PROGRAMS {
        checks.push(stage(name).await);
    }
    checks.push(nats_server().await);
    checks
}

async fn stage(name: &str) -> Check {
    let Some(path) = locate::program(name) else {
        return Check::fail(name, "not beside `tokenway` and not on PATH", "build it with `make build`");
    };
    // shard-forward needs libtorch to say even this.
    match version(&path).await {
        Ok(version) if version.ends_with(VERSION) => Check::ok(name, path.display().to_string()),
        Ok(version) => {
            let found = format!("{}: {version}, not {VERSION}", path.display());
            Check::warn(name, found, "build all programs together with `make build`")
        }
        Err(reason) if name == "shard-forward" && reason.contains("shared libraries") => {
            Check::fail(name, reason, "libtorch is not where it was at build time: run `make setup build`")
        }
        Err(reason) => Check::fail(name, reason, "build it anew with `make build`"),
    }
}

async fn nats_server() -> Check {
    let name = "nats-server";
    let advice = "install it with `make setup`, or use a running one with `tokenway up --nats URL`";
    let Some(path) = locate::nats_server() else {
        return Check::fail(name, "not under .deps/bin and not on PATH", advice);
    };
    match version(&path).await {
        Ok(text) if release(&text).is_some_and(|release| release >= NATS_VERSION_MIN) => {
            Check::ok(name, format!("{} ({text})", path.display()))
        }
        Ok(text) => {
            let (major, minor) = NATS_VERSION_MIN;
            Check::fail(name, format!("{text}, needs {major}.{minor} or later"), advice)
        }
        Err(reason) => Check::fail(name, reason, advice),
    }
}

/// What the program at `path` prints for `--version`, or why it does not.
async fn version(path: &Path) -> Result<String, String> {
    let run = Command::new(path).arg("--version").kill_on_drop(true).output();
    let output = match tokio::time::timeout(START_DEADLINE, run).await {
        Err(_) => return Err(format!("{}: no answer after {START_DEADLINE:?}", path.display())),
        Ok(Err(error)) => return Err(format!("{}: {error}", path.display())),
        Ok(Ok(output)) => output,
    };
    let first_line =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    if output.status.success() {
        Ok(first_line(&output.stdout))
    } else {
        Err(format!("{} ({})", first_line(&output.stderr), output.status))
    }
}

/// Major and minor release in a text such as `nats-server: v2.15.1`.
pub fn release(text: &str) -> Option<(u32, u32)> {
    let number = text.rsplit([' ', 'v']).next()?;
    let mut parts = number.split(['.', '-']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(release("nats-server: v2.15.1"), Some((2, 15)));
        assert_eq!(release("2.9.0-beta"), Some((2, 9)));
        assert!(release("nats-server: v2.9.0") < Some(NATS_VERSION_MIN));
        assert_eq!(release("nonsense"), None);
    }
}
