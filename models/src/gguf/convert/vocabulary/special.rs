//! Which tokens start, end and fill texts.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{ConvertError, Source, TemplateSource, refused};
use crate::gguf::Value;
use crate::gguf::config::ENDS;
use crate::gguf::convert::pre::flat;

/// Names of the keys, of `tokenizer_config.json`'s fields and of `config.json`'s.
const NAMED: [(&str, &str, &str); 4] = [
    ("bos_token_id", "bos_token", "bos_token_id"),
    ("eos_token_id", "eos_token", "eos_token_id"),
    ("unknown_token_id", "unk_token", "unk_token_id"),
    ("padding_token_id", "pad_token", "pad_token_id"),
];

/// Ids of special tokens, and whether texts start and end with one.
pub(super) fn keys(
    source: &Source<'_>,
    tokenizer: &Json,
    template: &TemplateSource,
    ids: &HashMap<&str, u32>,
) -> Result<Vec<(&'static str, Value)>, ConvertError> {
    let (first, last) = around(tokenizer)?;
    let id_of = |text: &str| ids.get(text).copied();
    let find = |token: &str, field: &str| {
        let own = template.special_tokens.get(token).and_then(Json::as_str).and_then(id_of);
        own.or_else(|| first_id(source.fields.get(field)?).filter(|id| (*id as usize) < ids.len()))
    };
    let mut found = NAMED.map(|(_, token, field)| find(token, field));
    let model_unknown = tokenizer["model"]["unk_token"].as_str().and_then(id_of);
    found[2] = model_unknown.or(found[2]);
    for (place, added) in [(0, first), (1, last)] {
        let added = added.map(|text| id_of(text).ok_or_else(|| not_that(text))).transpose()?;
        // llama.cpp adds the one token that the key names.
        if added.is_some() && found[place].is_some() && added != found[place] {
            return Err(not_that(if place == 0 { first } else { last }.unwrap_or_default()));
        }
        found[place] = found[place].or(added);
    }
    let mut keys: Vec<(&'static str, Value)> = Vec::new();
    keys.extend(NAMED.iter().zip(found).filter_map(|((key, ..), id)| Some((*key, Value::U32(id?)))));
    keys.extend(other_ends(source, ids, found[1]));
    keys.push(("add_bos_token", Value::Bool(first.is_some())));
    keys.push(("add_eos_token", Value::Bool(last.is_some())));
    Ok(keys)
}

fn not_that(text: &str) -> ConvertError {
    refused("post_processor", format!("`{text}` is not the token that starts or ends texts"))
}

/// An id, or the first of a list.
fn first_id(value: &Json) -> Option<u32> {
    let value = value.as_array().map_or(Some(value), |ids| ids.first())?;
    u32::try_from(value.as_u64()?).ok()
}

/// Other tokens that end an answer, where llama.cpp does not know them by their text; there are keys for two.
fn other_ends(source: &Source<'_>, ids: &HashMap<&str, u32>, eos: Option<u32>) -> Vec<(&'static str, Value)> {
    let known: Vec<u32> = ENDS.iter().filter_map(|end| ids.get(end).copied()).chain(eos).collect();
    let others = source.folder.eos_ids().into_iter().filter(|id| !known.contains(id));
    let inside = others.filter(|id| (*id as usize) < ids.len());
    ["eot_token_id", "eom_token_id"].into_iter().zip(inside.map(Value::U32)).collect()
}

/// The tokens that start and end a text.
fn around(tokenizer: &Json) -> Result<(Option<&str>, Option<&str>), ConvertError> {
    let mut around = (None, None);
    for step in flat(&tokenizer["post_processor"], "processors") {
        match step["type"].as_str() {
            Some("ByteLevel") => {}
            Some("TemplateProcessing") => around = of_template(&step["single"])?,
            _ => return Err(refused("post_processor", format!("{} is none that is known", step["type"]))),
        }
    }
    Ok(around)
}

fn of_template(single: &Json) -> Result<(Option<&str>, Option<&str>), ConvertError> {
    let pieces: Vec<Option<&str>> = single.as_array().into_iter().flatten().map(special).collect();
    match pieces.as_slice() {
        [None] => Ok((None, None)),
        [first @ Some(_), None] => Ok((*first, None)),
        [None, last @ Some(_)] => Ok((None, *last)),
        [first @ Some(_), None, last @ Some(_)] => Ok((*first, *last)),
        _ => Err(refused("post_processor", "puts more around a text than one token at each end")),
    }
}

/// The text of a special token; none for the text itself.
fn special(piece: &Json) -> Option<&str> {
    piece["SpecialToken"]["id"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_each_end_of_a_text_there_is_one_token_or_none() {
        let (text, start) = (json!({"Sequence": {"id": "A"}}), json!({"SpecialToken": {"id": "<s>"}}));
        let of = |single: Json| {
            let tokenizer = json!({"post_processor": {"type": "TemplateProcessing", "single": single}});
            around(&tokenizer).ok().map(|(first, last)| (first.is_some(), last.is_some()))
        };
        assert_eq!(of(json!([text])), Some((false, false)));
        assert_eq!(of(json!([start, text])), Some((true, false)));
        assert_eq!(of(json!([start, text, start])), Some((true, true)));
        assert_eq!(of(json!([start, start, text])), None);
        assert!(around(&json!({"post_processor": {"type": "RobertaProcessing"}})).is_err());
        assert_eq!(around(&json!({"post_processor": null})).unwrap(), (None, None));
    }
}
