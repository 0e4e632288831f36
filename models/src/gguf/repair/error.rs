//! Why a GGUF cannot be repaired.

use std::path::PathBuf;

use crate::gguf::GgufError;

/// Why a GGUF cannot be repaired. Each names the file, and the key or tensor in it.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// What no other part of the file makes up for, such as bytes that are missing.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The header can be read as that of two versions, and its version is neither.
    #[error("`{file}` is of version {version}, and can be read as version 1 and as version 3")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There are more tensors than the header counts.
    #[error("tensor `{tensor}` of `{file}` is beyond the number of tensors that the header gives")]
    Uncounted {
        /// The file.
        file: PathBuf,
        /// The first that is not counted.
        tensor: String,
    },
    /// Where the tensors begin is not known.
    #[error("where the tensors of `{file}` begin cannot be told: `general.alignment` is {found}")]
    Alignment {
        /// The file.
        file: PathBuf,
        /// What is said of it.
        found: String,
    },
    /// A key is there twice, with different values.
    #[error("`{file}` has the key `{key}` twice, with different values")]
    KeyTwice {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A tensor is there twice, with different content.
    #[error("`{file}` has the tensor `{tensor}` twice, with different content")]
    TensorTwice {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A key is missing that nothing else in the file says.
    #[error("`{key}` is missing in `{file}`, and nothing else in it says what it was")]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// One of several parts, whose tensors and keys belong together.
    #[error("`{file}` is one of the {parts} parts of a split file, of which each is not repaired alone")]
    Split {
        /// The file.
        file: PathBuf,
        /// How many there are.
        parts: u64,
    },
}
