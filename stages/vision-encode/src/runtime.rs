//! Where ONNX Runtime is.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use ort::environment::Environment;

/// Names the library to load, before all other places.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// Where the build found it.
const BUILT_WITH: Option<&str> = option_env!("TOKENWAY_ONNXRUNTIME");

/// The library's environment, loaded once a process.
pub fn environment() -> anyhow::Result<&'static Environment> {
    static LOADED: OnceLock<Environment> = OnceLock::new();
    if let Some(environment) = LOADED.get() {
        return Ok(environment);
    }
    let library =
        library().with_context(|| format!("no ONNX Runtime: run scripts/setup, or set `{VARIABLE}`"))?;
    let environment = ort::init_from(&library)
        .with_context(|| format!("ONNX Runtime `{}`", library.display()))?
        .with_telemetry(false)
        .build()
        .with_context(|| format!("ONNX Runtime `{}`", library.display()))?;
    Ok(LOADED.get_or_init(|| environment))
}

/// As the variable says; else beside this program; else where the build found it.
fn library() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let program = std::env::current_exe().ok();
    let beside = program.map(|program| program.with_file_name("libonnxruntime.so"));
    beside.into_iter().chain(BUILT_WITH.map(PathBuf::from)).find(|library| library.is_file())
}
