//! OpenMP threads that wait must not spin: on shared cores they would take the time of the shard that computes.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context as _;

/// libgomp reads this when it is loaded, before `main`.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Starts this process over with waiting threads asleep, unless the environment says how they wait.
pub fn settle() -> anyhow::Result<()> {
    if std::env::var_os(WAIT_POLICY).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("own executable")?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(WAIT_POLICY, "passive").exec();
    Err(error).context("start over")
}
