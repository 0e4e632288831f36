//! What vocabularies of SentencePiece's kind need: scores, bytes, and the space in front.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{ConvertError, Tokens, refused, token_type};
use crate::gguf::convert::pre::flat;

/// How a space is written.
const SPACE: &str = "▁";

/// Scores that order tokens as the merges that make them are ordered, best first. A `tokenizer.json` has no scores, and
/// llama.cpp always joins the pair whose token has the best one. A token that no merge makes comes after all others.
pub(super) fn scores(texts: &[String], merges: &[(&str, &str)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let rank = |text: &String| ranks.get(text).copied().unwrap_or(merges.len());
    texts.iter().map(|text| -(rank(text) as f32)).collect()
}

/// Marks bytes and the unknown token, and writes spaces of the user's tokens as such, since these are found in plain text.
pub(super) fn mark(tokenizer: &Json, tokens: &mut Tokens) {
    let unknown = tokenizer["model"]["unk_token"].as_str();
    for (text, kind) in tokens.texts.iter_mut().zip(&mut tokens.types) {
        if unknown == Some(text.as_str()) {
            *kind = token_type::UNKNOWN;
        } else if *kind == token_type::NORMAL && is_byte(text) {
            *kind = token_type::BYTE;
        } else if *kind == token_type::USER_DEFINED {
            *text = text.replace(SPACE, " ");
        }
    }
}

/// Such as `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Whether texts get a space in front. What else happens to them than writing spaces as `▁` is refused.
pub(super) fn prefixes_space(tokenizer: &Json) -> Result<bool, ConvertError> {
    let mut prefixes = false;
    let mut replaces = false;
    for step in flat(&tokenizer["normalizer"], "normalizers") {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == SPACE => prefixes = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == SPACE => {
                replaces = true
            }
            _ => return Err(refused("normalizer", format!("{step} is none that is known"))),
        }
    }
    for step in flat(&tokenizer["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str() {
            Some("Metaspace") if step["replacement"] == SPACE => {
                replaces = true;
                prefixes |= match step["prepend_scheme"].as_str() {
                    Some(scheme) => scheme != "never",
                    None => step["add_prefix_space"].as_bool().unwrap_or(true),
                };
            }
            // Gemma's, which finds no space left.
            Some("Split") if step["pattern"]["String"] == " " && replaces => {}
            _ => return Err(refused("pre_tokenizer", format!("{step} is none that is known"))),
        }
    }
    if replaces { Ok(prefixes) } else { Err(refused("normalizer", "does not write spaces as `▁`")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_best_merge_of_a_token_is_its_score() {
        let texts = ["a", "b", "ab", "abb"].map(str::to_owned);
        let merges = [("ab", "b"), ("a", "b"), ("a", "bb")];
        assert_eq!(scores(&texts, &merges), [-3.0, -3.0, -1.0, 0.0]);
    }

    #[test]
    fn a_space_in_front_is_found_in_each_form() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let both = json!({"normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}});
        assert!(prefixes_space(&both).unwrap());
        assert!(!prefixes_space(&json!({"normalizer": replace})).unwrap());
        let metaspace = |scheme| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
        assert!(prefixes_space(&json!({"pre_tokenizer": metaspace("first")})).unwrap());
        assert!(!prefixes_space(&json!({"pre_tokenizer": metaspace("never")})).unwrap());
        assert!(prefixes_space(&json!({"normalizer": {"type": "NFKC"}})).is_err());
        assert!(prefixes_space(&json!({})).is_err());
    }
}
