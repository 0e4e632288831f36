//! `tokenway convert`: brings a model's files into the form that is served.
//!
//! The vision encoder of a checkpoint is Python code in transformers, so it is exported by Python: the script travels in this
//! program, its packages are those of `scripts/python-env`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::process::Command;

use crate::exit::misuse;
use crate::locate;

const SCRIPT: &str = include_str!("../../scripts/convert_vision.py");
const PYTHON: &str = ".deps/python/bin/python";

const EXAMPLES: &str = "\
Examples:
  tokenway convert --vision ~/models/llava-1.5-7b-hf      writes vision.onnx beside the weights
  tokenway convert --vision ~/models/SmolVLM --output /tmp/vision.onnx

Knows the layouts llava (CLIP or SigLIP towers), idefics3 and smolvlm. Needs Python with torch and transformers: scripts/python-env
makes one, --python names another.";

/// Bring a model's files into the form that is served
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Export the vision encoder and projector of this model folder to ONNX
    #[arg(long, value_name = "MODEL_DIR", required = true)]
    vision: PathBuf,
    /// Where to write [default: vision.onnx in the model folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Python with torch, transformers, onnx, onnxscript and onnxruntime [default: .deps/python of the repository]
    #[arg(long, value_name = "PROGRAM", env = "TOKENWAY_PYTHON")]
    python: Option<PathBuf>,
}

/// Runs the command; its exit code is the script's.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let python = match arguments.python {
        Some(python) => python,
        None => locate::in_repository(Path::new(PYTHON)).ok_or_else(|| {
            misuse(format!(
                "no `{PYTHON}` here: make it with scripts/python-env, or name a Python with `--python`"
            ))
        })?,
    };
    let folder = tempfile::tempdir().context("temporary folder")?;
    let script = folder.path().join("convert_vision.py");
    std::fs::write(&script, SCRIPT).context("temporary file")?;
    let mut command = Command::new(&python);
    command.arg(&script).arg(&arguments.vision).kill_on_drop(true);
    if let Some(output) = &arguments.output {
        command.arg("--output").arg(output);
    }
    let status =
        command.status().await.map_err(|error| misuse(format!("`{}`: {error}", python.display())))?;
    // Without a code it was ended by a signal.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
