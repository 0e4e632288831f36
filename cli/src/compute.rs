//! The commands that compute with a model, which shard-forward carries out: it is linked to libtorch, this program is not.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use pipelines::tools::ARGUMENT;
use schemas::Role;

use crate::exit::misuse;
use crate::locate;

/// Becomes shard-forward, with the command line that this program was given. Returns only if that is not possible.
pub fn hand_over(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let program = program()?;
    let error = Command::new(&program).arg(ARGUMENT).args(arguments).exec();
    Err(misuse(format!("`{}`: {error}", program.display())))
}

/// Where shard-forward is.
pub fn program() -> anyhow::Result<PathBuf> {
    let name = Role::ShardForward(0).binary();
    locate::program(name).ok_or_else(|| {
        misuse(format!("`{name}`, which computes, is neither beside this program nor on `PATH`"))
    })
}
