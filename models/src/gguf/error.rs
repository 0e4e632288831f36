//! Why a GGUF file was refused.

use std::io;
use std::path::PathBuf;

use super::tensor_type::TensorType;

/// Why a GGUF file could not be read or written. Each names the file, and the key or tensor in it.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be opened, mapped or written.
    #[error("`{file}`")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not begin as a GGUF does.
    #[error("`{file}` is not a GGUF file")]
    NotGguf {
        /// The file.
        file: PathBuf,
    },
    /// The file is of a version that is not read.
    #[error("`{file}` is GGUF of version {version}, and only 2 and 3 are read")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file was written for a machine of the other byte order.
    #[error("`{file}` is a big-endian GGUF, and only little-endian ones are read")]
    BigEndian {
        /// The file.
        file: PathBuf,
    },
    /// The file is over before what it announces.
    #[error("`{file}` ends within {object}")]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What is not all there.
        object: String,
    },
    /// A string is not UTF-8.
    #[error("{object} of `{file}` is not UTF-8")]
    Utf8 {
        /// The file.
        file: PathBuf,
        /// Which string.
        object: String,
    },
    /// A key without a letter.
    #[error("`{file}` has a key that is empty")]
    EmptyKey {
        /// The file.
        file: PathBuf,
    },
    /// A key is there twice.
    #[error("`{file}` has the key `{key}` twice")]
    DuplicateKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is of a type that GGUF does not have.
    #[error("`{key}` of `{file}` is of type {id}, which does not exist")]
    ValueType {
        /// The file.
        file: PathBuf,
        /// Whose value it is.
        key: String,
        /// The number of the type.
        id: u32,
    },
    /// An array of arrays, which no reader takes.
    #[error("`{key}` of `{file}` is an array of arrays, which is not read")]
    NestedArray {
        /// The file.
        file: PathBuf,
        /// Whose value it is.
        key: String,
    },
    /// A boolean is neither 0 nor 1.
    #[error("`{key}` of `{file}` is a boolean of {byte}")]
    Bool {
        /// The file.
        file: PathBuf,
        /// Whose value it is.
        key: String,
        /// What stands there.
        byte: u8,
    },
    /// A key that must be there is not.
    #[error("`{key}` is missing in `{file}`")]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is not what its reader can use.
    #[error("`{key}` is {found} in `{file}`, expected {expected}")]
    Value {
        /// The file.
        file: PathBuf,
        /// Whose value it is.
        key: String,
        /// What stands there.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A tensor's name is there twice.
    #[error("`{file}` has the tensor `{tensor}` twice")]
    DuplicateTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor's shape cannot be.
    #[error("tensor `{tensor}` of `{file}` has {problem}")]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with the shape.
        problem: String,
    },
    /// A tensor is of a type that ggml does not have.
    #[error("tensor `{tensor}` of `{file}` is of type {id}, which is not known")]
    UnknownType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number of the type.
        id: u32,
    },
    /// A tensor is of a type whose bytes are not read.
    #[error("tensor `{tensor}` of `{file}` is of type {tensor_type}, which is not read")]
    UnreadType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        tensor_type: TensorType,
    },
    /// A tensor does not begin where tensors may begin.
    #[error("tensor `{tensor}` of `{file}` begins at {offset}, which is no multiple of {alignment}")]
    Misaligned {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its place after the header, in bytes.
        offset: u64,
        /// What it should be a multiple of, in bytes.
        alignment: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` of `{file}` overlap")]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The one that begins first.
        first: String,
        /// The one that begins before the first ends.
        second: String,
    },
    /// There is no tensor of this name.
    #[error("there is no tensor `{tensor}` in `{file}`")]
    NotFound {
        /// The file; of a split one, its first part.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A part of a split file that is not the first.
    #[error("`{file}` is a later part of a split file: open `{first}`")]
    NotFirst {
        /// The file.
        file: PathBuf,
        /// The first part, by its name.
        first: PathBuf,
    },
    /// A split file's name does not tell the names of the other parts.
    #[error("`{file}` is the first of {parts} parts, so its name must end in `{ending}`")]
    SplitName {
        /// The file.
        file: PathBuf,
        /// How many there are.
        parts: u64,
        /// What it must end in.
        ending: String,
    },
    /// A tensor is written other than it was announced.
    #[error("{written} bytes were written of tensor `{tensor}` of `{file}`, which has {expected}")]
    Written {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// As many as were written.
        written: u64,
        /// As many as its shape and type say.
        expected: u64,
    },
}
