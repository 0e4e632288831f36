//! Tokens that are found in the text before it is cut into words, and those put around it.

use serde_json::{Value, json};

use crate::gguf::vocabulary::{TokenType, Vocabulary};

/// Tokens of Phi-3 that leave the spaces after them alone.
const STRIP_NOTHING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// `added_tokens`: control tokens and the unknown token are special, tokens of the user's are not.
///
/// GGUF does not keep whether a token swallows the spaces beside it. Which of Phi-3's do: `src/llama-vocab.cpp` of
/// llama.cpp.
pub(super) fn added_tokens(vocabulary: &Vocabulary) -> Value {
    let typed = vocabulary.tokens.iter().zip(&vocabulary.types).enumerate();
    let added = typed.filter_map(|(id, (content, kind))| {
        let special = match kind {
            TokenType::Control | TokenType::Unknown => true,
            TokenType::UserDefined => false,
            TokenType::Normal | TokenType::Unused | TokenType::Byte => return None,
        };
        Some(json!({
            "id": id,
            "content": content,
            "single_word": false,
            "lstrip": false,
            "rstrip": vocabulary.strips_right && !STRIP_NOTHING.contains(&content.as_str()),
            "normalized": false,
            "special": special,
        }))
    });
    added.collect()
}

/// `post_processor`: the tokens that start and end a text, if any.
pub(super) fn post_processor(vocabulary: &Vocabulary) -> Value {
    let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
    let eos = vocabulary.eos.filter(|_| vocabulary.add_eos);
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let special = |id: Option<u32>, type_id: u32| {
        let token = id.and_then(|id| vocabulary.text(id));
        token.map(|token| json!({"SpecialToken": {"id": token, "type_id": type_id}}))
    };
    let around = |name: &str, type_id: u32| {
        let text = json!({"Sequence": {"id": name, "type_id": type_id}});
        let pieces = [special(bos, type_id), Some(text), special(eos, type_id)];
        pieces.into_iter().flatten().collect::<Vec<Value>>()
    };
    let named = [bos, eos].into_iter().flatten().filter_map(|id| Some((id, vocabulary.text(id)?)));
    let named =
        named.map(|(id, token)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})));
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": named.collect::<Value>(),
    })
}
