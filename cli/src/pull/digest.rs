//! Hashes that the Hub has of its files.

use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::listing::is_hexadecimal;

/// The hash of a file's content, in hexadecimal digits: its name among the blobs of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Digest {
    /// Of a file in the large file storage.
    #[serde(rename = "sha256")]
    Sha256(String),
    /// Of a file in git: SHA-1 of `blob`, a space, the length, a zero byte and the content.
    #[serde(rename = "git_blob_sha1")]
    GitBlob(String),
}

impl Digest {
    /// None where this is no SHA-256.
    pub fn sha256(digits: String) -> Option<Self> {
        is_hexadecimal(&digits, 64).then_some(Self::Sha256(digits))
    }

    /// None where this is no SHA-1.
    pub fn git_blob(digits: String) -> Option<Self> {
        is_hexadecimal(&digits, 40).then_some(Self::GitBlob(digits))
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }

    /// The name of the function.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "git SHA-1",
        }
    }
}

/// A hash while the content comes.
pub enum Hasher {
    /// As [`Digest::Sha256`].
    Sha256(Sha256),
    /// As [`Digest::GitBlob`].
    GitBlob(Sha1),
}

impl Hasher {
    /// Of the same kind as `digest`, for content of `size` bytes.
    pub fn like(digest: &Digest, size: u64) -> Self {
        match digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::GitBlob(_) => Self::GitBlob(Sha1::new().chain_update(format!("blob {size}\0"))),
        }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    /// The digits of all.
    pub fn digits(&self) -> String {
        let bytes: Vec<u8> = match self {
            Self::Sha256(hasher) => hasher.clone().finalize().to_vec(),
            Self::GitBlob(hasher) => hasher.clone().finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(digest: Option<Digest>, content: &[u8]) -> String {
        let mut hasher = Hasher::like(&digest.unwrap(), content.len() as u64);
        content.chunks(2).for_each(|bytes| hasher.update(bytes));
        hasher.digits()
    }

    /// The expected digits are those of `printf hello | sha256sum` and `printf hello | git hash-object --stdin`.
    #[test]
    fn the_hashes_are_those_of_git_and_of_its_large_file_storage() {
        assert_eq!(
            digits(Digest::sha256("0".repeat(64)), b"hello"),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(
            digits(Digest::git_blob("0".repeat(40)), b"hello"),
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
        );
    }
}
