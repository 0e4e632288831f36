//! The vocabulary of a GGUF file, as its metadata keys `tokenizer.ggml.…` give it.
//!
//! Keys and their meaning: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; what is assumed where a
//! key is absent: `src/llama-vocab.cpp` of llama.cpp.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::tokenizer::PreTokenizer;

/// Why a vocabulary cannot be used. Each names the metadata key and the value.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A kind of vocabulary that is not read here, such as `bert`, `t5` or `rwkv`.
    #[error("`tokenizer.ggml.model` = `{model}` is not supported, only `llama` and `gpt2` are")]
    Model {
        /// The kind.
        model: String,
    },
    /// Text is cut into words in a way that is not known here.
    #[error("`tokenizer.ggml.pre` = `{pre}` is not known")]
    Pre {
        /// The name.
        pre: String,
    },
    /// An array has not one entry for each token, or there are no tokens.
    #[error("`{key}` has {len} entries for {tokens} tokens")]
    Length {
        /// The metadata key.
        key: &'static str,
        /// Its entries.
        len: usize,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// Two ids have one text.
    #[error("`tokenizer.ggml.tokens`: {first} and {second} are both `{token}`")]
    Duplicate {
        /// The text.
        token: String,
        /// The lower id.
        first: usize,
        /// The higher id.
        second: usize,
    },
    /// A type that GGUF does not have.
    #[error("`tokenizer.ggml.token_type`: token {id} has the unknown type {value}")]
    Type {
        /// The token.
        id: usize,
        /// The type.
        value: i32,
    },
    /// A score that cannot be compared.
    #[error("`tokenizer.ggml.scores`: the score of token {id} is not a number")]
    Score {
        /// The token.
        id: usize,
    },
    /// A special token that the vocabulary does not have.
    #[error("`{key}` = {id} is outside of the vocabulary of {tokens} tokens")]
    Id {
        /// The metadata key.
        key: &'static str,
        /// Its value.
        id: u32,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// A token is to be added to every text, and is not named.
    #[error("`{flag}` is true and `{id}` is absent")]
    Added {
        /// The key that wants the token.
        flag: &'static str,
        /// The key that would name it.
        id: &'static str,
    },
    /// A merge that is not two tokens whose texts, joined, are a token.
    #[error("`tokenizer.ggml.merges`: entry {index}, `{merge}`, does not join two tokens to a third")]
    Merge {
        /// Its place in the array.
        index: usize,
        /// The entry.
        merge: String,
    },
    /// Finding the merges among tokens this long would take too long.
    #[error("`tokenizer.ggml.tokens`: the tokens up to {id} are too long to derive merges from")]
    TooLong {
        /// The token at which the limit was passed.
        id: usize,
    },
    /// The tokenizers library does not take the vocabulary.
    #[error("no tokenizer can be made of the vocabulary")]
    Tokenizer {
        /// What the library said.
        source: tokenizers::Error,
    },
}

/// The values of the metadata keys, unchecked. A key that is absent is `None` or empty.
#[derive(Debug, Clone, Default)]
pub struct VocabularyFields {
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`, by id.
    pub types: Vec<i32>,
    /// `tokenizer.ggml.merges`, best first: two tokens with a space between them.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

/// What a token is. Source: `llama_token_type` of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Steers the model; no text.
    Control,
    /// A piece of text that is found before anything else is.
    UserDefined,
    /// Never trained.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

/// How text becomes tokens.
#[derive(Debug, Clone)]
pub(super) enum Model {
    /// SentencePiece's BPE: pieces with scores, spaces written `▁`.
    SentencePiece {
        /// By id.
        scores: Vec<f32>,
    },
    /// Byte-level BPE: merges, bytes written as printable characters.
    ByteLevel {
        /// Best first.
        merges: Vec<(String, String)>,
        /// How text is cut into words.
        pre: &'static PreTokenizer,
    },
}

/// A vocabulary whose parts agree: as many types and scores as tokens, no text twice, ids and merges inside.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    pub(super) model: Model,
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<TokenType>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unk: Option<u32>,
    pad: Option<u32>,
    eot: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) add_space_prefix: bool,
    /// Special tokens swallow the spaces after them.
    pub(super) strips_right: bool,
}

impl Vocabulary {
    /// Checks `fields` and fills in what is absent, as llama.cpp does; it, too, refuses a text that two ids have.
    pub fn new(fields: VocabularyFields) -> Result<Self, VocabularyError> {
        let tokens = named(fields.tokens);
        let types = types(&fields.types, tokens.len())?;
        let ids = ids_by_text(&tokens)?;
        let (model, adds_bos, known) = match fields.model.as_str() {
            "llama" => (Model::SentencePiece { scores: scores(fields.scores, tokens.len())? }, true, true),
            "gpt2" => {
                let pre = PreTokenizer::named(fields.pre.as_deref())?;
                let merges = merges(&fields.merges, &ids)?;
                (Model::ByteLevel { merges, pre }, pre.adds_bos(), false)
            }
            _ => return Err(VocabularyError::Model { model: fields.model }),
        };
        // The ids of Llama's own vocabulary; byte-level vocabularies have no such custom.
        let assumed = |id: u32| known.then_some(id).filter(|id| (*id as usize) < tokens.len());
        let inside = |key, id: Option<u32>| match id {
            Some(id) if id as usize >= tokens.len() => {
                Err(VocabularyError::Id { key, id, tokens: tokens.len() })
            }
            id => Ok(id),
        };
        let vocabulary = Self {
            bos: inside("tokenizer.ggml.bos_token_id", fields.bos)?.or(assumed(1)),
            eos: inside("tokenizer.ggml.eos_token_id", fields.eos)?.or(assumed(2)),
            unk: inside("tokenizer.ggml.unknown_token_id", fields.unk)?.or(assumed(0)),
            pad: inside("tokenizer.ggml.padding_token_id", fields.pad)?,
            eot: inside("tokenizer.ggml.eot_token_id", fields.eot)?,
            add_bos: fields.add_bos.unwrap_or(adds_bos),
            add_eos: fields.add_eos.unwrap_or(false),
            add_space_prefix: fields.add_space_prefix.unwrap_or(known),
            // GGUF does not keep this of Phi-3's tokens; of all models with pieces only that family has it.
            strips_right: known && fields.architecture.as_deref() == Some("phi3"),
            model,
            tokens,
            types,
        };
        vocabulary.check_added()?;
        Ok(vocabulary)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: a vocabulary without tokens is refused.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token that starts a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that ends a turn of a chat.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// The variables of chat templates: `bos_token`, `eos_token`, `unk_token` and `pad_token`, those there are.
    pub fn special_tokens(&self) -> Map<String, Value> {
        let named = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unk),
            ("pad_token", self.pad),
        ];
        let texts =
            named.into_iter().filter_map(|(name, id)| Some((name.to_owned(), self.text(id?)?.into())));
        texts.collect()
    }

    /// The text of a token, as it stands in the vocabulary.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    fn check_added(&self) -> Result<(), VocabularyError> {
        if self.add_bos && self.bos.is_none() {
            let flag = "tokenizer.ggml.add_bos_token";
            return Err(VocabularyError::Added { flag, id: "tokenizer.ggml.bos_token_id" });
        }
        if self.add_eos && self.eos.is_none() {
            let flag = "tokenizer.ggml.add_eos_token";
            return Err(VocabularyError::Added { flag, id: "tokenizer.ggml.eos_token_id" });
        }
        Ok(())
    }
}

/// Tokens without text get one, the same as in llama.cpp.
fn named(mut tokens: Vec<String>) -> Vec<String> {
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        *token = format!("[EMPTY_{id}]");
    }
    tokens
}

fn ids_by_text(tokens: &[String]) -> Result<HashMap<&str, usize>, VocabularyError> {
    if tokens.is_empty() {
        return Err(VocabularyError::Length { key: "tokenizer.ggml.tokens", len: 0, tokens: 0 });
    }
    let mut ids = HashMap::with_capacity(tokens.len());
    for (second, token) in tokens.iter().enumerate() {
        if let Some(first) = ids.insert(token.as_str(), second) {
            return Err(VocabularyError::Duplicate { token: token.clone(), first, second });
        }
    }
    Ok(ids)
}

/// Without the key every token is a piece of text.
fn types(values: &[i32], tokens: usize) -> Result<Vec<TokenType>, VocabularyError> {
    if values.is_empty() {
        return Ok(vec![TokenType::Normal; tokens]);
    }
    if values.len() != tokens {
        return Err(VocabularyError::Length { key: "tokenizer.ggml.token_type", len: values.len(), tokens });
    }
    let known = |(id, &value)| match value {
        0 | 1 => Ok(TokenType::Normal), // 0 is "undefined", which llama.cpp treats as text
        2 => Ok(TokenType::Unknown),
        3 => Ok(TokenType::Control),
        4 => Ok(TokenType::UserDefined),
        5 => Ok(TokenType::Unused),
        6 => Ok(TokenType::Byte),
        _ => Err(VocabularyError::Type { id, value }),
    };
    values.iter().enumerate().map(known).collect()
}

fn scores(scores: Vec<f32>, tokens: usize) -> Result<Vec<f32>, VocabularyError> {
    if scores.len() != tokens {
        return Err(VocabularyError::Length { key: "tokenizer.ggml.scores", len: scores.len(), tokens });
    }
    match scores.iter().position(|score| score.is_nan()) {
        Some(id) => Err(VocabularyError::Score { id }),
        None => Ok(scores),
    }
}

/// The tokenizers library wants both halves of a merge and the whole among the tokens.
fn merges(merges: &[String], ids: &HashMap<&str, usize>) -> Result<Vec<(String, String)>, VocabularyError> {
    let mut whole = String::new();
    let mut halves = |merge: &str| {
        // As in llama.cpp: the first character belongs to the left half, even if it is a space.
        let at = merge.char_indices().skip(1).find(|(_, character)| *character == ' ')?.0;
        let (left, right) = (&merge[..at], &merge[at + 1..]);
        whole.clear();
        whole.extend([left, right]);
        let there = [left, right, &whole].iter().all(|token| ids.contains_key(token));
        there.then(|| (left.to_owned(), right.to_owned()))
    };
    let entries = merges.iter().enumerate();
    let refused = |index, merge: &String| VocabularyError::Merge { index, merge: merge.clone() };
    entries.map(|(index, merge)| halves(merge).ok_or_else(|| refused(index, merge))).collect()
}
