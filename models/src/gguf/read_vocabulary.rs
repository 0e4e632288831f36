//! From the metadata of a GGUF to its vocabulary, and from that to a tokenizer.

use std::path::PathBuf;

use super::error::GgufError;
use super::file::Gguf;
use super::metadata::Metadata;
use super::vocabulary::{Vocabulary, VocabularyError, VocabularyFields};
use crate::tokenizer::Tokenizer;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Why there is no vocabulary in a GGUF. Each names the file and the key.
#[derive(Debug, thiserror::Error)]
pub enum GgufVocabularyError {
    /// The file itself, an absent key, or the type of a value.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The values are not those of a vocabulary that can be used.
    #[error("vocabulary of `{file}`")]
    Refused {
        /// The file.
        file: PathBuf,
        /// Which key, and why.
        source: VocabularyError,
    },
}

impl Vocabulary {
    /// Reads and checks the keys `tokenizer.ggml.…` of a GGUF.
    pub fn read(gguf: &Gguf) -> Result<Self, GgufVocabularyError> {
        let metadata = gguf.metadata();
        Self::new(fields(metadata)?)
            .map_err(|source| GgufVocabularyError::Refused { file: metadata.file().to_owned(), source })
    }

    /// The tokenizer of this vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, VocabularyError> {
        let json = self.tokenizer_json()?.to_string();
        Tokenizer::from_json(json.as_bytes()).map_err(|source| VocabularyError::Tokenizer { source })
    }
}

fn fields(metadata: &Metadata) -> Result<VocabularyFields, GgufError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let id = |name: &str| metadata.u32(&key(&format!("{name}_token_id")));
    let flag = |name: &str| metadata.bool(&key(name));
    let model = metadata.required(MODEL, metadata.string(MODEL))?.to_owned();
    let merges = metadata.strings(MERGES);
    // Without them every word would fall apart into single characters.
    let merges = if model == "gpt2" { Some(metadata.required(MERGES, merges)?) } else { merges? };
    Ok(VocabularyFields {
        architecture: metadata.string("general.architecture")?.map(str::to_owned),
        model,
        pre: metadata.string(&key("pre"))?.map(str::to_owned),
        tokens: metadata.required(TOKENS, metadata.strings(TOKENS))?.to_vec(),
        scores: metadata.floats(&key("scores"))?.unwrap_or_default().to_vec(),
        types: types(metadata)?,
        merges: merges.unwrap_or_default().to_vec(),
        bos: id("bos")?,
        eos: id("eos")?,
        unk: id("unknown")?,
        pad: id("padding")?,
        eot: id("eot")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
    })
}

fn types(metadata: &Metadata) -> Result<Vec<i32>, GgufError> {
    let types = metadata.integers(TYPES)?.unwrap_or_default();
    let types: Result<Vec<i32>, _> = types.into_iter().map(i32::try_from).collect();
    types.map_err(|_| metadata.refused(TYPES, "whole numbers of 32 bits"))
}
