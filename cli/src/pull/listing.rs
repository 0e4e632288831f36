//! What a repository holds, as the Hub says it: a commit, and every file with its size and hash.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::PullError;

/// Bytes of a listing. One file takes about 300.
pub const LISTING_BYTES_MAX: usize = 16 << 20;

/// Of an index, which is read into memory. One weight takes about 100.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Files of one commit.
#[derive(Debug)]
pub struct Listing {
    /// `ORG/NAME`.
    pub repository: String,
    /// Hash of the commit: 40 hexadecimal digits.
    pub commit: String,
    /// All files by their paths in the repository, with `/`.
    pub files: BTreeMap<String, ListedFile>,
}

/// A file as it is listed.
#[derive(Debug, Clone)]
pub struct ListedFile {
    size: Option<u64>,
    digest: Option<Digest>,
}

/// A file that can be pulled: its size and hash are known.
#[derive(Debug, Clone, Serialize)]
pub struct RemoteFile {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Length in bytes.
    #[serde(rename = "bytes")]
    pub size: u64,
    /// What its content is checked against; its name in the cache.
    #[serde(flatten)]
    pub digest: Digest,
}

/// The answer of `/api/models/ORG/NAME/revision/REVISION?blobs=true`.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the Hub's answer. A file outside of the repository makes all of it suspicious: it is refused.
    pub fn read(repository: &str, json: &[u8]) -> Result<Self, PullError> {
        let refused = |reason: String| PullError::Listing { repository: repository.to_owned(), reason };
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|error| refused(format!("the Hub's answer is no listing: {error}")))?;
        if !is_hexadecimal(&answer.sha, 40) {
            return Err(refused("the Hub names no commit".to_owned()));
        }
        let outside = answer.siblings.iter().find(|file| !is_inside(&file.rfilename));
        if let Some(file) = outside {
            let name = crate::printable::shortened(&file.rfilename, 80);
            return Err(refused(format!("it lists `{name}`, which is not inside the repository")));
        }
        let files = answer.siblings.into_iter().map(listed).collect();
        Ok(Self { repository: repository.to_owned(), commit: answer.sha, files })
    }

    /// The file of this path, whose size and hash must be known.
    pub fn hashed(&self, path: &str) -> Result<RemoteFile, PullError> {
        let refused = |reason| PullError::Listing { repository: self.repository.clone(), reason };
        let file = self.files.get(path).ok_or_else(|| refused(format!("it has no `{path}`")))?;
        match (file.size, &file.digest) {
            (Some(size), Some(digest)) => {
                Ok(RemoteFile { path: path.to_owned(), size, digest: digest.clone() })
            }
            _ => Err(refused(format!("the Hub does not say size and hash of `{path}`"))),
        }
    }

    /// The index of the weights, which is short enough to be read.
    pub fn of_index(&self, path: &str) -> Result<RemoteFile, PullError> {
        let file = self.hashed(path)?;
        if file.size > INDEX_BYTES_MAX {
            let reason = format!("`{path}` of {} bytes is no index", file.size);
            return Err(PullError::Listing { repository: self.repository.clone(), reason });
        }
        Ok(file)
    }
}

/// A file of the large file storage has a pointer in git: the hash of that says nothing about the file.
fn listed(sibling: Sibling) -> (String, ListedFile) {
    let (size, digest) = match sibling.lfs {
        Some(lfs) => (Some(lfs.size), Digest::sha256(lfs.sha256)),
        None => (sibling.size, sibling.blob_id.and_then(Digest::git_blob)),
    };
    (sibling.rfilename, ListedFile { size, digest })
}

/// Whether this is a plain path downwards, of which nothing is left out or doubled.
pub fn is_inside(path: &str) -> bool {
    let is_plain = !path.is_empty() && !path.contains('\\') && !path.contains(char::is_control);
    let mut components = Path::new(path).components();
    is_plain
        && components.all(|component| matches!(component, Component::Normal(_)))
        && path.split('/').all(|name| !name.is_empty() && name != ".")
}

/// Whether this is so many lower-case hexadecimal digits, so also a harmless file name.
pub fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_downwards_are_inside() {
        assert!(["a", "a/b.gguf", "a b", "…", ".gitattributes"].into_iter().all(is_inside));
        let outside = ["", "/", "/a", "../a", "a/..", "a/../b", "./a", "a/./b", "a//b", "a/", "a\\b", "a\0"];
        assert!(!outside.into_iter().any(is_inside));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let sha = "0".repeat(40);
        let read = |text: &str| Listing::read("a/b", text.replace("SHA", &sha).as_bytes());
        assert!(read(r#"{"sha": "SHA", "siblings": [{"rfilename": "a"}]}"#).is_ok());
        for wrong in [
            "",
            "[]",
            r#"{"sha": "../x", "siblings": []}"#,
            r#"{"sha": "SHA", "siblings": [{"rfilename": "../a"}]}"#,
            r#"{"sha": "SHA", "siblings": [{"rfilename": "/etc/passwd"}]}"#,
            r#"{"sha": "SHA", "siblings": [{"rfilename": "a", "size": -1}]}"#,
        ] {
            assert!(matches!(read(wrong), Err(PullError::Listing { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_hash_that_is_none_is_not_known() {
        let text = format!(
            r#"{{"sha": "{}", "siblings": [{{"rfilename": "a", "size": 1, "blobId": "../../x"}}]}}"#,
            "0".repeat(40)
        );
        assert!(Listing::read("a/b", text.as_bytes()).unwrap().hashed("a").is_err());
    }
}
