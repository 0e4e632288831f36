//! Why a model cannot be written as a GGUF.

use std::path::PathBuf;

use crate::config_fields::ConfigError;
use crate::gguf::GgufError;
use crate::template::TemplateError;
use crate::weights::WeightsError;

/// Why a model cannot be written as a GGUF. Each names the file or field.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file of the folder could not be read.
    #[error("`{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A weight was refused.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The GGUF that is the source was refused.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The chat template could not be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// GGUF has no word for a feature, or llama.cpp leaves it out.
    #[error("`{field}` is `{value}` in `config.json`, which llama.cpp does not compute for `{architecture}`")]
    Inexpressible {
        /// The field.
        field: &'static str,
        /// Its value, as JSON.
        value: String,
        /// `general.architecture`.
        architecture: &'static str,
    },
    /// A weight has another shape than the configuration says.
    #[error("weight `{name}` has the shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name in the checkpoint.
        name: String,
        /// Its shape, outermost first.
        found: Vec<usize>,
        /// What `config.json` makes it.
        expected: Vec<usize>,
    },
    /// `tokenizer.json` is no JSON.
    #[error("`tokenizer.json` is not JSON")]
    TokenizerJson(#[source] serde_json::Error),
    /// A part of `tokenizer.json` is not one that a GGUF can say.
    #[error("`{part}` of `tokenizer.json`: {problem}")]
    Tokenizer {
        /// Path of the part.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Text is cut into words in a way that has no name.
    #[error(
        "`pre_tokenizer` of `tokenizer.json` is none that is known: name the one that it is (tokenizer.ggml.pre)"
    )]
    Pre,
    /// A name was given that is not known.
    #[error("`{name}` is not the name of a pre-tokenizer")]
    PreName {
        /// The name.
        name: String,
    },
}
