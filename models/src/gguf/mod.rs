//! GGUF: one file, or one split over several, that holds a model's metadata, vocabulary and weights.
//! Source: `docs/gguf.md` of ggml; where it is silent, `gguf.cpp` of ggml.
//!
//! Start at [`Gguf`].

mod error;
mod file;
mod metadata;
mod tensor_type;
mod value;

mod cursor;
mod header;
mod tensors;

mod writer;

mod config;
mod config_error;
mod config_rope;
mod known_keys;
mod names;
mod weights;

mod read_vocabulary;
mod vocabulary;

mod tokenizer;

pub mod convert;
pub mod repair;

pub use config::read_config;
pub use config_error::GgufConfigError;
pub use error::GgufError;
pub use file::{Gguf, SharedTensor};
pub use metadata::Metadata;
pub use names::{TensorName, tensor_name};
pub use read_vocabulary::GgufVocabularyError;
pub use tensor_type::{Block, TensorType};
pub use tensors::TensorInfo;
pub use tokenizer::template_name;
pub use value::{Array, Value};
pub use vocabulary::{TokenType, Vocabulary, VocabularyError, VocabularyFields};
pub(crate) use weights::GgufWeights;
pub use writer::{GgufWriter, TensorWriter};
