//! Snapshots in the cache: links to the files of one commit, under their names.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::REVISION;
use super::choice::{Choice, INDEX, choose};
use super::error::PullError;
use super::hub::{Hub, repo};
use super::listing::{Listing, RemoteFile, is_hexadecimal, is_inside};
use super::part::disk_error;
use super::reference::Reference;

/// How deep below a snapshot a GGUF may be, and how many files are looked at.
const DEPTH_MAX: usize = 3;
const FILES_MAX: usize = 10_000;

impl Hub {
    /// Gives whole files their names in the snapshot of their commit, and the revision its commit. Returns the snapshot's folder.
    pub fn link(
        &self,
        listing: &Listing,
        files: &[RemoteFile],
        revision: &str,
    ) -> Result<PathBuf, PullError> {
        let cache = self.cache.repo(repo(&listing.repository, revision));
        let snapshot = cache.pointer_path(&listing.commit);
        // By the order of `Choice`, all else is there when `config.json` comes.
        let (last, first): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.path == "config.json");
        for file in first.into_iter().chain(last) {
            let up = "../".repeat(file.path.matches('/').count());
            let target = PathBuf::from(format!("{up}../../blobs/{}", file.digest.digits()));
            link(&snapshot.join(&file.path), &target)?;
        }
        if revision != listing.commit {
            cache.create_ref(&listing.commit).map_err(|source| disk_error(&snapshot, source))?;
        }
        Ok(snapshot)
    }
}

/// Links in one step, over what may be there.
fn link(path: &Path, target: &Path) -> Result<(), PullError> {
    if fs::read_link(path).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| symlink(target, &temporary))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| disk_error(path, source))
}

/// The model in the cache at `hub`, with all its files: a snapshot's folder, or a GGUF in it. The network is not asked.
pub fn cached(hub: &Path, model: &Reference) -> Option<PathBuf> {
    let cache = hf_hub::Cache::new(hub.to_owned());
    let here = repo(model.repository(), REVISION);
    let commit = fs::read_to_string(hub.join(here.folder_name()).join("refs").join(REVISION)).ok()?;
    let commit = commit.trim();
    if !is_hexadecimal(commit, 40) {
        return None;
    }
    let snapshot = cache.repo(here).pointer_path(commit);
    let files = files_below(&snapshot);
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    match choose(&names, model.file()).ok()? {
        Choice::Gguf { parts } => Some(snapshot.join(parts.first()?)),
        Choice::Folder { index: None, .. } => Some(snapshot),
        Choice::Folder { index: Some(_), .. } => {
            let weights = weights_of_index(&snapshot.join(INDEX)).ok()?;
            weights.is_subset(&files).then_some(snapshot)
        }
    }
}

/// The files that an index of weights names.
pub fn weights_of_index(path: &Path) -> Result<BTreeSet<String>, PullError> {
    let refused =
        |reason: &str| PullError::Listing { repository: INDEX.to_owned(), reason: reason.to_owned() };
    let content = fs::read(path).map_err(|source| disk_error(path, source))?;
    let json: Json = serde_json::from_slice(&content).map_err(|error| refused(&error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| refused("there is no `weight_map`"))?;
    let files: Option<BTreeSet<String>> = map.values().map(|file| file.as_str().map(str::to_owned)).collect();
    match files {
        Some(files) if files.iter().all(|file| is_inside(file)) => Ok(files),
        _ => Err(refused("`weight_map` names what is no file of the repository")),
    }
}

/// Paths of the files that are whole, from `folder` on: a link to what is gone is none.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            if path.is_file() && files.len() < FILES_MAX {
                files.insert(name);
            } else if path.is_dir() && depth < DEPTH_MAX {
                folders.push((path, format!("{name}/"), depth + 1));
            }
        }
    }
    files
}
