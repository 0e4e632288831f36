//! What is changed in a repair.

use std::fmt;

use crate::gguf::Value;

/// One change. As text it is a line, with names as they stand in the file: whoever prints it escapes them.
#[derive(Debug, Clone, PartialEq)]
pub enum Fix {
    /// The file is written as version 3.
    Version {
        /// The version that it has.
        found: u32,
        /// The version as which it could be read.
        read_as: u32,
    },
    /// A key that is there twice with one value is left out once.
    KeyTwice {
        /// The key.
        key: String,
    },
    /// A tensor that is there twice with one content is left out once.
    TensorTwice {
        /// The tensor.
        tensor: String,
    },
    /// Tensors are not where `general.alignment` would have them, or it is none that may be.
    Alignment {
        /// What it says, in words.
        found: String,
        /// What the tensors begin at multiples of, in bytes.
        followed: u64,
        /// What it says from now on, in bytes.
        written: u32,
    },
    /// Tensors are moved together, in the order of the header: ggml reads no others.
    Places,
    /// What stands after the tensors is left out.
    Trailing {
        /// How many bytes.
        bytes: u64,
    },
    /// Zeros are added after the last tensor, which ggml reads with it.
    Padding {
        /// How many.
        bytes: u64,
    },
    /// A key that was missing is added.
    Key {
        /// The key.
        key: String,
        /// Its value.
        value: Value,
        /// Where that comes from.
        origin: Origin,
    },
}

/// Where the value of a missing key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The names and shapes of the tensors.
    Tensors,
    /// Other keys.
    Keys,
    /// The texts of the tokens.
    Tokens,
    /// It is what llama.cpp takes without the key; the model may have been trained with another.
    Default,
}

impl Fix {
    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Version { .. } => "version",
            Self::KeyTwice { .. } => "duplicate_key",
            Self::TensorTwice { .. } => "duplicate_tensor",
            Self::Alignment { .. } => "alignment",
            Self::Places => "places",
            Self::Trailing { .. } => "trailing_bytes",
            Self::Padding { .. } => "padding",
            Self::Key { .. } => "missing_key",
        }
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found, read_as } if found == read_as => {
                write!(f, "version {found} is written as 3")
            }
            Self::Version { found, read_as } => {
                write!(f, "version {found}, which the file is not of, is written as 3 (read as {read_as})")
            }
            Self::KeyTwice { key } => write!(f, "the second `{key}`, of the same value, is left out"),
            Self::TensorTwice { tensor } => {
                write!(f, "the second tensor `{tensor}`, of the same content, is left out")
            }
            Self::Alignment { found, followed, written } => write!(
                f,
                "`general.alignment` is {found} where tensors begin at multiples of {followed}: {written} is written"
            ),
            Self::Places => f.write_str("tensors are moved together, in the order of the header"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes after the tensors are left out"),
            Self::Padding { bytes } => write!(f, "{bytes} bytes of padding after the last tensor are added"),
            Self::Key { key, value, origin } => {
                write!(f, "`{key}` is added: {}, {origin}", value.describe())
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensors => "by the tensors",
            Self::Keys => "by other keys",
            Self::Tokens => "by the tokens",
            Self::Default => "which llama.cpp takes without it",
        })
    }
}
