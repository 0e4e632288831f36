//! Why a model did not come.

use std::io;
use std::path::PathBuf;

use crate::exit::misuse;
use crate::memory::human_bytes;

/// Why a model did not come. Trying again later changes nothing about the first half.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Not the name of a repository.
    #[error("`{0}` is not ORG/NAME or ORG/NAME:FILE")]
    Reference(String),
    /// An environment variable is not what it should be.
    #[error("{name}: {reason}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// Why; never the value of a secret.
        reason: String,
    },
    /// The Hub does not have it.
    #[error("{endpoint} has no {what}")]
    NotFound {
        /// The Hub.
        endpoint: String,
        /// Which repository, revision or file.
        what: String,
    },
    /// The Hub refuses it.
    #[error("{endpoint} refuses {what} ({status}): {}", hint(*.has_token))]
    Denied {
        /// The Hub.
        endpoint: String,
        /// Which repository, revision or file.
        what: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// What the Hub lists is not what can be pulled.
    #[error("`{repository}`: {reason}")]
    Listing {
        /// `ORG/NAME`.
        repository: String,
        /// Why.
        reason: String,
    },
    /// HF_HUB_OFFLINE is set.
    #[error("HF_HUB_OFFLINE is set, and not all of `{0}` is in the cache")]
    Offline(String),
    /// No answer.
    #[error("no answer from {endpoint}")]
    Unreachable {
        /// The Hub.
        endpoint: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The connection broke.
    #[error("the connection broke during {what}")]
    Broken {
        /// Which repository, revision or file.
        what: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// An answer that is none.
    #[error("{endpoint} answers {status} to a request for {what}")]
    Status {
        /// The Hub.
        endpoint: String,
        /// The status.
        status: u16,
        /// Which repository, revision or file.
        what: String,
    },
    /// The connection ended before the file did.
    #[error("`{file}` ended after {} of {}", human_bytes(*.got), human_bytes(*.size))]
    Cut {
        /// Path in the repository.
        file: String,
        /// Bytes that are here.
        got: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// Nothing came for too long.
    #[error("{what}: nothing came for {seconds} s")]
    Stalled {
        /// Which repository, revision or file.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// Not the rest that was asked for.
    #[error("`{file}`: the answer is not the rest of the file")]
    Range {
        /// Path in the repository.
        file: String,
    },
    /// More than the listing says.
    #[error("`{file}` is longer than the {} that the Hub lists", human_bytes(*.size))]
    TooLong {
        /// Path in the repository.
        file: String,
        /// Bytes as listed.
        size: u64,
    },
    /// The content is not what the Hub has the hash of.
    #[error("`{file}` has the wrong {algorithm} checksum: expected {expected}, got {got}; it was deleted")]
    Checksum {
        /// Path in the repository.
        file: String,
        /// Which kind of hash.
        algorithm: &'static str,
        /// The Hub's.
        expected: String,
        /// The content's.
        got: String,
    },
    /// It does not fit onto the disk.
    #[error("{} are to be downloaded, and {} are free in `{folder}`", human_bytes(*.needed), human_bytes(*.free))]
    Space {
        /// The cache.
        folder: PathBuf,
        /// Bytes to download.
        needed: u64,
        /// Bytes that a user may write.
        free: u64,
    },
    /// Another process downloads the same file.
    #[error("`{file}` is being downloaded by another process")]
    Busy {
        /// Path in the repository.
        file: String,
    },
    /// The cache could not be read or written.
    #[error("`{path}`")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PullError {
    /// Whether the next try may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Cut { .. } | Self::Range { .. } => true,
            // Asked too often, and errors of the server's side.
            Self::Status { status, .. } => *status == 408 || *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// Whether there was no connection at all.
    pub fn is_no_connection(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.is_connect())
    }

    fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::Reference(_)
                | Self::Setting { .. }
                | Self::NotFound { .. }
                | Self::Denied { .. }
                | Self::Listing { .. }
        )
    }

    /// As the error of a command, with its exit code.
    pub fn into_command_error(self) -> anyhow::Error {
        if self.is_misuse() { misuse(self.to_string()) } else { self.into() }
    }
}

fn hint(has_token: bool) -> &'static str {
    if has_token {
        "the token may not read it, or its terms are not accepted yet on the model's page"
    } else {
        "it is not there, or not for everyone: set HF_TOKEN to a token that may read it"
    }
}
