//! Where the running `tokenway up` is: a small file, so that the other commands find it without flags.
//!
//! `$XDG_RUNTIME_DIR/tokenway/last.json`, or `tokenway-<uid>/last.json` in the temporary folder. The latest `up` wins.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where an `up` serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// Process id of `up`.
    pub pid: u32,
    /// URL of its NATS server.
    pub nats: String,
    /// URL of its gateway, when it has one.
    pub http: Option<String>,
}

impl Last {
    /// The `up` that runs, if one does.
    pub fn read() -> Option<Self> {
        let folder = folder();
        // In a folder that others can write to, the file may be theirs.
        let metadata = fs::symlink_metadata(&folder).ok()?;
        if !metadata.is_dir() || metadata.uid() != own_uid() || metadata.permissions().mode() & 0o022 != 0 {
            return None;
        }
        let last: Self = serde_json::from_slice(&fs::read(folder.join("last.json")).ok()?).ok()?;
        fs::exists(format!("/proc/{}", last.pid)).unwrap_or(false).then_some(last)
    }

    /// Leaves word of this `up`.
    pub fn write(&self) -> io::Result<()> {
        let folder = folder();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let unfinished = folder.join(format!("last.{}", self.pid));
        fs::write(&unfinished, serde_json::to_vec(self)?)?;
        fs::rename(unfinished, folder.join("last.json"))
    }

    /// Takes the word back, unless a later `up` has left its own.
    pub fn remove(&self) {
        if Self::read().as_ref() == Some(self) {
            // Nothing depends on it: a dead `up` is not believed anyway.
            let _ = fs::remove_file(folder().join("last.json"));
        }
    }
}

fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("tokenway"),
        _ => std::env::temp_dir().join(format!("tokenway-{}", own_uid())),
    }
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}
