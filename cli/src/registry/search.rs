//! Looking for models below folders.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

/// Files and folders that are looked at, all places together.
pub const ENTRIES_MAX: usize = 10_000;

/// How far below the place named a folder may be.
const DEPTH_MAX: usize = 4;

/// Of a `config.json` that is read to tell whether it is a model's.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A search over one or more places.
#[derive(Debug, Default)]
pub struct Search {
    /// Names and paths, in the order in which they were found.
    pub found: Vec<(String, PathBuf)>,
    /// Whether there was more than is looked at.
    pub incomplete: bool,
    looked_at: usize,
    /// Folders by device and number: a link may lead to one that was looked into.
    visited: HashSet<(u64, u64)>,
}

/// What a folder holds, by name.
#[derive(Debug, Default)]
struct Content {
    folders: Vec<PathBuf>,
    ggufs: Vec<PathBuf>,
    config: Option<PathBuf>,
    has_weights: bool,
}

impl Search {
    /// Looks at a file, or at a folder and what lies below it. What cannot be read is passed over.
    pub fn look_below(&mut self, place: &Path) {
        if place.is_dir() {
            self.look_into(place, 0);
        } else if is_gguf(place) {
            self.add(place);
        }
    }

    fn look_into(&mut self, folder: &Path, depth: usize) {
        let identity = fs::metadata(folder).map(|metadata| (metadata.dev(), metadata.ino()));
        if !identity.is_ok_and(|identity| self.visited.insert(identity)) {
            return;
        }
        let content = self.read(folder);
        let has_config = content.config.as_deref().is_some_and(|config| {
            // Repositories of GGUF files have the configuration of the model that they were made from.
            content.has_weights || (content.ggufs.is_empty() && is_of_a_model(config))
        });
        if has_config {
            self.add(folder);
        }
        content.ggufs.iter().for_each(|file| self.add(file));
        if depth < DEPTH_MAX {
            content.folders.iter().for_each(|folder| self.look_into(folder, depth + 1));
        }
    }

    fn read(&mut self, folder: &Path) -> Content {
        let mut content = Content::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.looked_at == ENTRIES_MAX {
                self.incomplete = true;
                break;
            }
            self.looked_at += 1;
            content.add(entry.path());
        }
        content.folders.sort();
        content.ggufs.sort();
        content
    }

    fn add(&mut self, path: &Path) {
        self.found.push((name(path), path.to_owned()));
    }
}

impl Content {
    fn add(&mut self, path: PathBuf) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        // In the Hugging Face cache, files by their hash; snapshots have links to them.
        if name.starts_with('.') || name == "blobs" {
            return;
        }
        if name == "config.json" {
            self.config = Some(path);
        } else if is_gguf(&path) {
            self.ggufs.push(path);
        } else if name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
            self.has_weights = true;
        } else if path.is_dir() {
            self.folders.push(path);
        }
    }
}

/// A GGUF file, unless it is a later part of a split one.
fn is_gguf(path: &Path) -> bool {
    let Some(stem) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".gguf")) else {
        return false;
    };
    let part = stem.rsplit_once("-of-").and_then(|(before, parts)| {
        let (_, part) = before.rsplit_once('-')?;
        (part.len() == 5 && parts.len() == 5).then(|| part.parse::<u32>().ok())?
    });
    part.is_none_or(|part| part == 1) && path.is_file()
}

fn is_of_a_model(config: &Path) -> bool {
    let mut content = Vec::new();
    let read = File::open(config).and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_end(&mut content));
    let json: Json = read.ok().and_then(|_| serde_json::from_slice(&content).ok()).unwrap_or_default();
    json.get("model_type").or_else(|| json.get("architectures")).is_some()
}

/// `ORG/NAME` in the Hugging Face cache, with the file behind a colon; else the name of the folder or file.
pub fn name(path: &Path) -> String {
    let own = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let own = own.strip_suffix(".gguf").unwrap_or(&own);
    let repository = path.components().rev().find_map(|component| {
        component.as_os_str().to_str()?.strip_prefix("models--").map(|name| name.replacen("--", "/", 1))
    });
    match repository {
        None => own.to_owned(),
        Some(repository) if path.is_dir() => repository,
        Some(repository) => format!("{repository}:{own}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, r#"{"model_type": "llama"}"#).unwrap();
    }

    fn names(root: &Path) -> Vec<String> {
        let mut search = Search::default();
        search.look_below(root);
        assert!(!search.incomplete);
        search.found.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn folders_files_and_snapshots_have_their_names() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "a/config.json");
        write(root, "a/model.safetensors");
        write(root, "b.gguf");
        write(root, "c-00001-of-00002.gguf");
        write(root, "c-00002-of-00002.gguf");
        write(root, "ggufs/config.json");
        write(root, "ggufs/d.gguf");
        write(root, ".hidden/e.gguf");
        write(root, "models--org--x--y/blobs/0123");
        let snapshot = root.join("models--org--x--y/snapshots/abc");
        fs::create_dir_all(&snapshot).unwrap();
        symlink("../../blobs/0123", snapshot.join("config.json")).unwrap();
        symlink("../../blobs/0123", snapshot.join("f.gguf")).unwrap();
        symlink("../../blobs/0123", snapshot.join("model.safetensors")).unwrap();
        assert_eq!(names(root), ["b", "c-00001-of-00002", "a", "d", "org/x--y", "org/x--y:f"]);
        assert_eq!(names(&root.join("b.gguf")), ["b"]);
        assert!(names(&root.join("absent")).is_empty());
    }

    #[test]
    fn a_config_of_something_else_is_no_model() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("config.json"), r#"{"editor": "x"}"#).unwrap();
        assert!(names(root.path()).is_empty());
        fs::write(root.path().join("config.json"), "[1").unwrap();
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn links_that_go_round_end_and_depth_has_an_end() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "1/2/3/4/a.gguf");
        write(root.path(), "1/2/3/4/5/b.gguf");
        symlink(root.path(), root.path().join("1/back")).unwrap();
        symlink(root.path().join("1"), root.path().join("1/self")).unwrap();
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_search_of_too_much_says_that_it_is_incomplete() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "1/a.gguf");
        let mut search = Search { looked_at: ENTRIES_MAX - 1, ..Search::default() };
        search.look_below(root.path());
        assert!(search.incomplete && search.found.is_empty());
    }
}
