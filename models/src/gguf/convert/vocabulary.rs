//! From `tokenizer.json` to the keys `tokenizer.ggml.…`.
//! Source: `get_vocab_base` of `conversion/base.py` and `SpecialVocab` of `gguf/vocab.py`.

mod pieces;
mod special;

use std::collections::HashMap;

use serde_json::Value as Json;

use super::error::ConvertError;
use super::from_folder::Source;
use super::pre;
use crate::gguf::tokenizer::PreTokenizer;
use crate::gguf::{Array, Value};
use crate::template_source::TemplateSource;

/// Source: `llama_token_type` of llama.cpp.
mod token_type {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// Tokens and types by id, as many as the embedding has rows.
struct Tokens {
    texts: Vec<String>,
    types: Vec<i32>,
}

impl Tokens {
    fn read(tokenizer: &Json, rows: usize) -> Result<Self, ConvertError> {
        let part = "model.vocab";
        let vocab = tokenizer["model"]["vocab"].as_object();
        let vocab = vocab.ok_or_else(|| refused(part, "is missing, or no object"))?;
        let mut tokens = Self {
            texts: (0..rows).map(|id| format!("[PAD{id}]")).collect(),
            types: vec![token_type::UNUSED; rows],
        };
        for (text, id) in vocab {
            tokens.put(part, id, text, token_type::NORMAL)?;
        }
        for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let (part, text) = ("added_tokens", token["content"].as_str().unwrap_or_default());
            let special = token["special"].as_bool().unwrap_or(false);
            let kind = if special { token_type::CONTROL } else { token_type::USER_DEFINED };
            tokens.put(part, &token["id"], text, kind)?;
        }
        Ok(tokens)
    }

    fn put(&mut self, part: &'static str, id: &Json, text: &str, kind: i32) -> Result<(), ConvertError> {
        let rows = self.texts.len();
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < rows);
        let Some(place) = place else {
            return Err(refused(
                part,
                format!("the id {id} of `{text}` is none of the {rows} rows of the embedding"),
            ));
        };
        text.clone_into(&mut self.texts[place]);
        self.types[place] = kind;
        Ok(())
    }

    fn ids(&self) -> HashMap<&str, u32> {
        (0..).zip(&self.texts).map(|(id, text)| (text.as_str(), id)).collect()
    }
}

/// All keys of the vocabulary.
pub(super) fn keys(
    source: &Source<'_>,
    template: &TemplateSource,
    pre: Option<&str>,
) -> Result<Vec<(String, Value)>, ConvertError> {
    let path = source.path_of("tokenizer.json");
    let json = std::fs::read(&path).map_err(|source| ConvertError::Io { path, source })?;
    let tokenizer: Json = serde_json::from_slice(&json).map_err(ConvertError::TokenizerJson)?;
    if tokenizer["model"]["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return Err(refused(
            "model.type",
            format!("{} is none that is written, only BPE is", tokenizer["model"]["type"]),
        ));
    }
    let mut tokens = Tokens::read(&tokenizer, source.config().vocab_size)?;
    let mut keys = Vec::new();
    let mut key = |name: &str, value: Value| keys.push((format!("tokenizer.ggml.{name}"), value));
    let text = |text: &str| Value::String(text.to_owned());
    if pre::is_byte_level(&tokenizer) {
        let merges = merges(&tokenizer)?.into_iter().map(|(left, right)| format!("{left} {right}"));
        let merges: Vec<String> = merges.collect();
        key("model", text("gpt2"));
        key("pre", text(pre_name(&tokenizer, merges.is_empty(), pre)?));
        // There even when empty: llama.cpp wants the key.
        key("merges", Value::Array(Array::String(merges)));
    } else if tokenizer["model"]["byte_fallback"] == true {
        key("model", text("llama"));
        key("pre", text("default"));
        key("add_space_prefix", Value::Bool(pieces::prefixes_space(&tokenizer)?));
        pieces::mark(&tokenizer, &mut tokens);
        key("scores", Value::Array(Array::F32(pieces::scores(&tokens.texts, &merges(&tokenizer)?))));
    } else {
        return Err(refused("pre_tokenizer", "has no `ByteLevel`, and the model no byte fallback"));
    }
    for (name, value) in special::keys(source, &tokenizer, template, &tokens.ids())? {
        key(name, value);
    }
    key("tokens", Value::Array(Array::String(tokens.texts)));
    key("token_type", Value::Array(Array::I32(tokens.types)));
    Ok(keys)
}

fn refused(part: &'static str, problem: impl Into<String>) -> ConvertError {
    ConvertError::Tokenizer { part, problem: problem.into() }
}

fn pre_name<'a>(tokenizer: &Json, no_merges: bool, pre: Option<&'a str>) -> Result<&'a str, ConvertError> {
    if let Some(name) = pre {
        let known = PreTokenizer::named(Some(name)).is_ok();
        return if known { Ok(name) } else { Err(ConvertError::PreName { name: name.to_owned() }) };
    }
    match pre::find(tokenizer) {
        Some(name) => Ok(name),
        // Each byte is a token, however words are cut.
        None if no_merges => Ok("default"),
        None => Err(ConvertError::Pre),
    }
}

/// Pairs of tokens that become one, best first. Written as `"a b"` before transformers 4.45, as `["a", "b"]` since.
fn merges(tokenizer: &Json) -> Result<Vec<(&str, &str)>, ConvertError> {
    let entries = tokenizer["model"]["merges"].as_array();
    let entries = entries.ok_or_else(|| refused("model.merges", "is missing, or no array"))?;
    let merge = |entry| {
        halves(entry)
            .ok_or_else(|| refused("model.merges", format!("{entry} is no pair of tokens without spaces")))
    };
    entries.iter().map(merge).collect()
}

fn halves(merge: &Json) -> Option<(&str, &str)> {
    let (left, right) = match merge.as_array().map(Vec::as_slice) {
        Some([left, right]) => (left.as_str()?, right.as_str()?),
        Some(_) => return None,
        None => merge.as_str()?.split_once(' ')?,
    };
    (!left.contains(' ') && !right.contains(' ')).then_some((left, right))
}
