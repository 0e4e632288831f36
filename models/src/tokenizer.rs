//! `tokenizer.json`: text to token ids and back.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::byte_alphabet::bytes_of_token;
use crate::gguf::{GgufVocabularyError, VocabularyError};

/// Why text or ids could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read or is not a tokenizer.
    #[error("tokenizer `{path}`")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library said.
        source: tokenizers::Error,
    },
    /// A GGUF has no vocabulary that can be used.
    #[error(transparent)]
    Gguf(#[from] GgufVocabularyError),
    /// The vocabulary of a GGUF makes no tokenizer.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The tokenizer cannot encode this text.
    #[error("text of {bytes} bytes has no encoding")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the tokenizers library said.
        source: tokenizers::Error,
    },
    /// The tokenizer cannot decode these ids.
    #[error("{tokens} token ids have no decoding")]
    Decode {
        /// Number of ids.
        tokens: usize,
        /// What the tokenizers library said.
        source: tokenizers::Error,
    },
}

/// A Hugging Face tokenizer. Encodes whole texts: truncation and padding that its file may ask for are off.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
}

/// How the vocabulary writes bytes and spaces.
#[derive(Debug, Clone, PartialEq)]
enum Pieces {
    /// A character of the byte-level alphabet for each byte.
    ByteLevel {
        /// Whether decoding is that alphabet and nothing more.
        alone: bool,
    },
    /// Text, in which a character may stand for a space and `<0xE2>` for a byte.
    Text { space: Option<String>, byte_fallback: bool },
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let load = |source| TokenizerError::Load { path: path.to_owned(), source };
        let json = std::fs::read(path).map_err(|source| load(source.into()))?;
        Self::from_json(&json).map_err(load)
    }

    /// Reads the content of a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, tokenizers::Error> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json)?;
        inner.with_truncation(None)?;
        inner.with_padding(None);
        let decoder = serde_json::to_value(inner.get_decoder())?;
        Ok(Self { pieces: Pieces::of_decoder(&decoder), inner })
    }

    /// The ids of `text`. `add_special_tokens` adds what the file's post-processor adds, such as a token that
    /// starts the sequence; a text rendered from a chat template has them already.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        match self.inner.encode_fast(text, add_special_tokens) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(source) => Err(TokenizerError::Encode { bytes: text.len(), source }),
        }
    }

    /// The text of `ids`. Bytes that are no UTF-8 read as U+FFFD; ids outside of the vocabulary as nothing.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        let decoded = self.inner.decode(ids, skip_special_tokens);
        decoded.map_err(|source| TokenizerError::Decode { tokens: ids.len(), source })
    }

    /// The text of a token as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token stands for, by itself; `None` when there is no such token. The decoding of a
    /// sequence can differ: some decoders drop the space at its beginning.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.id_to_token(id)?;
        if self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return Some(token.into_bytes());
        }
        Some(self.pieces.bytes(&token))
    }

    /// Number of tokens, added and special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether decoding with `skip_special_tokens` leaves this token out.
    pub fn is_special(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Whether decoding sees this token at all.
    pub(crate) fn is_decoded(&self, id: u32, skip_special_tokens: bool) -> bool {
        self.inner.id_to_token(id).is_some() && !(skip_special_tokens && self.is_special(id))
    }

    /// The bytes of a token, when decoding a sequence is nothing but joining the bytes of its tokens.
    pub(crate) fn joined_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.inner.id_to_token(id).map(|token| bytes_of_token(&token))
    }

    /// Whether decoding a sequence is nothing but joining [`Self::joined_bytes`].
    pub(crate) fn joins_bytes(&self) -> bool {
        self.pieces == Pieces::ByteLevel { alone: true }
    }
}

impl Pieces {
    /// Reads the `decoder` of a `tokenizer.json`.
    fn of_decoder(decoder: &Value) -> Self {
        let steps = match decoder["decoders"].as_array() {
            Some(steps) => steps.iter().collect(),
            None => vec![decoder],
        };
        let find = |kind: &str| steps.iter().find(|step| step["type"] == kind);
        if find("ByteLevel").is_some() {
            return Self::ByteLevel { alone: steps.len() == 1 };
        }
        let replaced = steps.iter().find(|step| step["type"] == "Replace" && step["content"] == " ");
        let space = replaced.map(|step| &step["pattern"]["String"]);
        let space = space.or_else(|| find("Metaspace").map(|step| &step["replacement"]));
        Self::Text {
            space: space.and_then(Value::as_str).map(str::to_owned),
            byte_fallback: find("ByteFallback").is_some(),
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        let Self::Text { space, byte_fallback } = self else { return bytes_of_token(token) };
        match (fallback_byte(token), space) {
            (Some(byte), _) if *byte_fallback => vec![byte],
            (_, Some(space)) => token.replace(space.as_str(), " ").into_bytes(),
            (_, None) => token.as_bytes().to_vec(),
        }
    }
}

/// The byte of a token such as `<0xE2>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}
