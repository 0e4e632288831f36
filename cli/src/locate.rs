//! Where the other programs and the repository's files are.

use std::env;
use std::path::{Path, PathBuf};

/// How many folders above the executable may be the repository: it lies in `target/release/`.
const REPOSITORY_DEPTH_MAX: usize = 4;

/// The program `name`: beside this one, else on `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    beside(name).or_else(|| on_path(name))
}

/// The NATS server: under `.deps/` of the repository, else on `PATH`.
pub fn nats_server() -> Option<PathBuf> {
    in_repository(Path::new(".deps/bin/nats-server")).or_else(|| on_path("nats-server"))
}

/// A file or folder of the repository: under the current folder, else under one above this executable.
pub fn in_repository(relative: &Path) -> Option<PathBuf> {
    let current = env::current_dir().ok();
    let executable = env::current_exe().ok();
    let above = executable.iter().flat_map(|path| path.ancestors().skip(1).take(REPOSITORY_DEPTH_MAX));
    current.as_deref().into_iter().chain(above).map(|folder| folder.join(relative)).find(|path| path.exists())
}

fn beside(name: &str) -> Option<PathBuf> {
    let path = env::current_exe().ok()?.parent()?.join(name);
    path.is_file().then_some(path)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
