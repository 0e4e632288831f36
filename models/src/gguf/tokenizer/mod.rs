//! From the vocabulary of a GGUF file to the `tokenizer.json` that it was made from, as near as can be told.

mod added_tokens;
mod byte_level;
mod pre_tokenizer;
mod score_merges;
mod sentence_piece;

use serde_json::{Value, json};

use super::vocabulary::{Model, Vocabulary, VocabularyError};

pub(super) use pre_tokenizer::PreTokenizer;

impl Vocabulary {
    /// The content of a `tokenizer.json`, for [`Tokenizer::from_json`](crate::Tokenizer::from_json).
    pub fn tokenizer_json(&self) -> Result<Value, VocabularyError> {
        let mut json = match &self.model {
            Model::SentencePiece { scores } => sentence_piece::json(self, scores)?,
            Model::ByteLevel { merges, pre } => byte_level::json(self, merges, pre),
        };
        json["version"] = json!("1.0");
        json["added_tokens"] = added_tokens::added_tokens(self);
        json["post_processor"] = added_tokens::post_processor(self);
        Ok(json)
    }

    /// Each token's id by its text.
    fn ids(&self) -> Value {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id))).collect()
    }
}

/// The name of the chat template that a metadata key holds: `default` for `tokenizer.chat_template`, `tool_use`
/// for `tokenizer.chat_template.tool_use`, `None` for any other key.
pub fn template_name(key: &str) -> Option<&str> {
    match key.strip_prefix("tokenizer.chat_template")? {
        "" => Some(crate::template_source::DEFAULT),
        name => name.strip_prefix('.').filter(|name| !name.is_empty()),
    }
}
