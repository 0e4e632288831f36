//! Keys of the tokenizer that are missing.
//! Source: `llama-vocab.cpp` of llama.cpp.

use std::path::Path;

use super::error::RepairError;
use super::fix::{Fix, Origin};
use super::keys::{get, unknown};
use crate::gguf::value::{Array, Value};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";

/// Keys of special tokens, and the texts that these have in vocabularies of pieces: Llama's and Gemma's.
const SPECIAL: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.bos_token_id", &["<s>", "<bos>"]),
    ("tokenizer.ggml.eos_token_id", &["</s>", "<eos>"]),
    ("tokenizer.ggml.unknown_token_id", &["<unk>"]),
];

/// Adds the kind of the vocabulary, and the special tokens of one of pieces: those are known by their texts. Readers take Llama's
/// ids without the keys, which are wrong for other models.
pub(super) fn fill(
    file: &Path,
    entries: &mut Vec<(String, Value)>,
    fixes: &mut Vec<Fix>,
) -> Result<(), RepairError> {
    let Some(Value::Array(Array::String(tokens))) = get(entries, TOKENS) else { return Ok(()) };
    let mut added = Vec::new();
    let model = match get(entries, MODEL) {
        Some(Value::String(model)) => model.clone(),
        Some(_) => return Ok(()),
        None => {
            let model = match (get(entries, MERGES), get(entries, SCORES)) {
                (Some(_), None) => "gpt2",
                (None, Some(_)) => "llama",
                _ => return Err(unknown(file, MODEL)),
            };
            added.push((MODEL, Value::String(model.to_owned()), Origin::Keys));
            model.to_owned()
        }
    };
    let absent = SPECIAL.iter().filter(|(key, _)| model == "llama" && get(entries, key).is_none());
    for (key, texts) in absent {
        let mut ids = (0_u32..).zip(tokens).filter(|(_, token)| texts.contains(&token.as_str()));
        if let (Some((id, _)), None) = (ids.next(), ids.next()) {
            added.push((*key, Value::U32(id), Origin::Tokens));
        }
    }
    for (key, value, origin) in added {
        fixes.push(Fix::Key { key: key.to_owned(), value: value.clone(), origin });
        entries.push((key.to_owned(), value));
    }
    Ok(())
}
