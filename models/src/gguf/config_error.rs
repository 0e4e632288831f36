//! Why the model in a GGUF is not one that tokenway computes.

use std::path::PathBuf;

use super::error::GgufError;
use crate::config_fields::ConfigError;

/// Why no configuration could be made of a GGUF's metadata. Each names the file, and the key or tensor.
#[derive(Debug, thiserror::Error)]
pub enum GgufConfigError {
    /// The file itself, or the type of a value.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The architecture, or the kind of file, is not one that is computed.
    #[error("`{key}` is `{found}` in `{file}`, which is not supported")]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What it says.
        found: String,
    },
    /// A key of the architecture is not known, so that what it changes would be left out.
    #[error("`{key}` of `{file}` is not known, and may change what the model computes")]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A tensor would not be used, so that what it changes would be left out.
    #[error("nothing is known to do with tensor `{tensor}` of `{file}`")]
    UnknownTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of numbers that belong to the configuration is not usable.
    #[error("tensor `{tensor}` of `{file}` must be F32 numbers above 0 in one dimension")]
    Divisors {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A value was refused; the source has the name that Hugging Face gives it.
    #[error("`{key}` of `{file}`")]
    Refused {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        source: Box<ConfigError>,
    },
}
