//! How the threads of a shard wait for each other.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context as _;
use pipelines::settings::OPENMP_ENVIRONMENT;

/// Starts this process over with [`OPENMP_ENVIRONMENT`], which libgomp reads when it is loaded, before `main`; unless the
/// environment says already how threads wait.
pub fn settle() -> anyhow::Result<()> {
    if OPENMP_ENVIRONMENT.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let program = std::env::current_exe().context("own executable")?;
    let arguments = std::env::args_os().skip(1);
    let error = Command::new(program).args(arguments).envs(OPENMP_ENVIRONMENT).exec();
    Err(error).context("start over")
}
