//! The name of the way in which a byte-level tokenizer cuts text into words.

use serde_json::{Value, json};

use crate::gguf::tokenizer::PreTokenizer;

/// The name whose steps are those of a `tokenizer.json`; none when it has other steps, normalises text in another way, or treats
/// words that are tokens differently.
pub(super) fn find(tokenizer: &Value) -> Option<&'static str> {
    let steps = steps(&tokenizer["pre_tokenizer"])?;
    let normalizers = normalizers(&tokenizer["normalizer"]);
    let ignores_merges = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let same = |pre: &&PreTokenizer| {
        self::steps(&pre.json()).as_ref() == Some(&steps)
            && self::normalizers(&pre.normalizer()) == normalizers
            && pre.ignores_merges() == ignores_merges
    };
    PreTokenizer::all().iter().find(same).map(PreTokenizer::name)
}

/// Whether bytes are written as characters before words become tokens.
pub(super) fn is_byte_level(tokenizer: &Value) -> bool {
    flat(&tokenizer["pre_tokenizer"], "pretokenizers").iter().any(|step| step["type"] == "ByteLevel")
}

/// The entries of a sequence, however deep; of what is none, itself; of null, none.
pub(super) fn flat<'a>(step: &'a Value, entries: &str) -> Vec<&'a Value> {
    match step[entries].as_array() {
        // As deep as the JSON, which the parser limits.
        Some(steps) => steps.iter().flat_map(|step| flat(step, entries)).collect(),
        None if step.is_null() => Vec::new(),
        None => vec![step],
    }
}

fn normalizers(normalizer: &Value) -> Vec<&Value> {
    flat(normalizer, "normalizers").iter().map(|step| &step["type"]).collect()
}

/// What a `pre_tokenizer` does, in one form; none where it does something that no name means.
fn steps(pre_tokenizer: &Value) -> Option<Vec<Value>> {
    let mut steps = Vec::new();
    for step in flat(pre_tokenizer, "pretokenizers") {
        match step["type"].as_str()? {
            "ByteLevel" if step["add_prefix_space"].as_bool().unwrap_or(true) => return None,
            "ByteLevel" if step["use_regex"].as_bool().unwrap_or(true) => steps.push(json!("words")),
            "ByteLevel" => {}
            "Split" => {
                let inverted = step["invert"].as_bool().unwrap_or(false);
                match (step["behavior"].as_str()?, inverted) {
                    // What does not match is dropped there; the regexes match everything.
                    ("Isolated", false) | ("Removed", true) => {
                        steps.push(json!({"split": step["pattern"]["Regex"]}))
                    }
                    _ => return None,
                }
            }
            "Digits" => steps.push(json!({"digits": step["individual_digits"].as_bool().unwrap_or(false)})),
            "Punctuation" => steps.push(json!({"punctuation": step["behavior"]})),
            _ => return None,
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pre_tokenizer_is_found_by_its_steps() {
        for pre in PreTokenizer::all() {
            let tokenizer = json!({
                "normalizer": pre.normalizer(),
                "pre_tokenizer": pre.json(),
                "model": {"ignore_merges": pre.ignores_merges()},
            });
            // Names that differ only in whether texts start with a token are one here: a key of its own says that.
            let found = PreTokenizer::named(find(&tokenizer)).unwrap();
            assert_eq!(found.json(), pre.json());
        }
    }

    #[test]
    fn forms_of_the_same_steps_have_one_name() {
        let words = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        assert_eq!(find(&json!({"pre_tokenizer": words})), Some("gpt-2"));
        let other = json!({"type": "ByteLevel", "add_prefix_space": true});
        assert_eq!(find(&json!({"pre_tokenizer": other})), None);
        let nfc = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}]});
        assert_eq!(find(&json!({"pre_tokenizer": words, "normalizer": nfc})), Some("mpt"));
        let lower = json!({"type": "Lowercase"});
        assert_eq!(find(&json!({"pre_tokenizer": words, "normalizer": lower})), None);
    }
}
