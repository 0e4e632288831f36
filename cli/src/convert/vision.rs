//! The vision encoder, as ONNX.
//!
//! The vision encoder of a checkpoint is Python code in transformers, so it is exported by Python: the script travels in this
//! program, its packages are those of `scripts/python-env`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::process::Command;

use crate::exit::misuse;
use crate::locate;

const SCRIPT: &str = include_str!("../../../scripts/convert_vision.py");
const PYTHON: &str = ".deps/python/bin/python";

/// Runs the command; its exit code is the script's.
pub async fn run(folder: &Path, output: Option<&Path>, python: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let python = match python {
        Some(python) => python,
        None => locate::in_repository(Path::new(PYTHON)).ok_or_else(|| {
            misuse(format!(
                "no `{PYTHON}` here: make it with scripts/python-env, or name a Python with `--python`"
            ))
        })?,
    };
    let temporary = tempfile::tempdir().context("temporary folder")?;
    let script = temporary.path().join("convert_vision.py");
    std::fs::write(&script, SCRIPT).context("temporary file")?;
    let mut command = Command::new(&python);
    command.arg(&script).arg(folder).kill_on_drop(true);
    if let Some(output) = output {
        command.arg("--output").arg(output);
    }
    let status =
        command.status().await.map_err(|error| misuse(format!("`{}`: {error}", python.display())))?;
    // Without a code it was ended by a signal.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
