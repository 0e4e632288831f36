//! Vocabularies of GGUF files: the ids of the original tokenizers, and what is refused.

use std::time::{Duration, Instant};

use models::Tokenizer;
use models::gguf::{
    Array, Gguf, GgufError, GgufVocabularyError, GgufWriter, Value as GgufValue, Vocabulary, VocabularyError,
    VocabularyFields, template_name,
};
use serde_json::{Value, json};

const GOLDENS: &str = include_str!("../../goldens/gguf_vocabularies.json");

/// The fields as a GGUF file's metadata names them.
pub fn fields(metadata: &Value) -> VocabularyFields {
    let value = |name: &str| &metadata[format!("tokenizer.ggml.{name}")];
    let id = |name: &str| value(name).as_u64().map(|id| u32::try_from(id).unwrap());
    let array = |name: &str| value(name).as_array().cloned().unwrap_or_default();
    let texts = |name: &str| array(name).iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    VocabularyFields {
        architecture: None,
        model: value("model").as_str().unwrap().to_owned(),
        pre: value("pre").as_str().map(str::to_owned),
        tokens: texts("tokens"),
        scores: array("scores").iter().map(|score| score.as_f64().unwrap() as f32).collect(),
        types: array("token_type").iter().map(|kind| kind.as_i64().unwrap() as i32).collect(),
        merges: texts("merges"),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        eot: id("eot_token_id"),
        add_bos: value("add_bos_token").as_bool(),
        add_eos: value("add_eos_token").as_bool(),
        add_space_prefix: value("add_space_prefix").as_bool(),
    }
}

fn tokenizer(fields: VocabularyFields) -> Tokenizer {
    let json = Vocabulary::new(fields).unwrap().tokenizer_json().unwrap();
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn golden(name: &str) -> VocabularyFields {
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    fields(&goldens["vocabularies"][name]["fields"])
}

/// `<unk>`, `<s>`, `</s>`, `a`, `b` and `ab`, with scores.
fn pieces() -> VocabularyFields {
    VocabularyFields {
        model: "llama".to_owned(),
        tokens: ["<unk>", "<s>", "</s>", "a", "b", "ab"].map(str::to_owned).to_vec(),
        scores: vec![0.0, 0.0, 0.0, -2.0, -3.0, -1.0],
        types: vec![2, 3, 3, 1, 1, 1],
        ..VocabularyFields::default()
    }
}

/// `a`, `b`, `ab` and `<end>`, with a merge.
fn merged() -> VocabularyFields {
    VocabularyFields {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens: ["a", "b", "ab", "<end>"].map(str::to_owned).to_vec(),
        types: vec![1, 1, 1, 3],
        merges: vec!["a b".to_owned()],
        ..VocabularyFields::default()
    }
}

#[test]
fn texts_have_the_ids_of_the_original_tokenizer() {
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    let texts = goldens["texts"].as_array().unwrap();
    for (name, golden) in goldens["vocabularies"].as_object().unwrap() {
        let tokenizer = tokenizer(fields(&golden["fields"]));
        for (text, ids) in texts.iter().zip(golden["ids"].as_array().unwrap()) {
            let got = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
            assert_eq!(json!(got), *ids, "{name}: {text}");
        }
    }
}

#[test]
fn ids_read_as_the_text_they_were_made_of() {
    let text = "Once  upon 日本 🙂 naïve\n\n 12";
    for name in ["llama 2", "gemma", "gpt-2", "qwen2", "llama 3"] {
        let tokenizer = tokenizer(golden(name));
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{name}");
    }
}

#[test]
fn byte_tokens_are_bytes_and_pieces_have_spaces() {
    let fields = golden("llama 2");
    let id =
        |text: &str| u32::try_from(fields.tokens.iter().position(|token| token == text).unwrap()).unwrap();
    let (byte, space) = (id("<0xE2>"), id("▁"));
    let tokenizer = tokenizer(fields);
    assert_eq!(tokenizer.token_bytes(byte).unwrap(), [0xE2]);
    assert_eq!(tokenizer.token_bytes(space).unwrap(), b" ");
    assert_eq!(tokenizer.decode(&[byte], true).unwrap(), "\u{FFFD}");
}

#[test]
fn control_tokens_are_special_and_those_of_users_are_not() {
    let tokenizer = tokenizer(VocabularyFields { types: vec![2, 3, 3, 4, 1, 5], ..pieces() });
    let special: Vec<bool> = (0..6).map(|id| tokenizer.is_special(id)).collect();
    assert_eq!(special, [true, true, true, false, false, false]);
}

#[test]
fn the_special_tokens_of_phi_3_swallow_the_spaces_after_them() {
    let tokens = ["<unk>", "<s>", "<|end|>", "a", "▁", "▁a"].map(str::to_owned).to_vec();
    let fields = VocabularyFields { tokens, add_bos: Some(false), ..pieces() };
    let phi_3 = VocabularyFields { architecture: Some("phi3".to_owned()), ..fields.clone() };
    let text = "<s> a<|end|> a";
    assert_eq!(tokenizer(fields).encode(text, true).unwrap(), [1, 4, 5, 2, 4, 5]);
    assert_eq!(tokenizer(phi_3).encode(text, true).unwrap(), [1, 4, 5, 2, 5]);
}

#[test]
fn the_beginning_and_end_are_added_as_the_file_says() {
    let ids = |fields| tokenizer(fields).encode("ab", true).unwrap();
    let no_space = VocabularyFields { add_space_prefix: Some(false), ..pieces() };
    assert_eq!(ids(no_space.clone()), [1, 5], "Llama's default");
    assert_eq!(ids(VocabularyFields { add_bos: Some(false), ..no_space.clone() }), [5]);
    assert_eq!(ids(VocabularyFields { add_eos: Some(true), ..no_space }), [1, 5, 2]);
    assert_eq!(ids(merged()), [2], "byte-level vocabularies add nothing");
    assert_eq!(ids(VocabularyFields { add_bos: Some(true), bos: Some(3), ..merged() }), [3, 2]);
    assert_eq!(ids(VocabularyFields { pre: Some("llama-bpe".to_owned()), bos: Some(3), ..merged() }), [3, 2]);
}

#[test]
fn a_beginning_that_is_not_named_is_refused() {
    let added = Vocabulary::new(VocabularyFields { add_bos: Some(true), ..merged() });
    assert!(matches!(added, Err(VocabularyError::Added { flag: "tokenizer.ggml.add_bos_token", .. })));
    let added = Vocabulary::new(VocabularyFields { add_eos: Some(true), ..merged() });
    assert!(matches!(added, Err(VocabularyError::Added { flag: "tokenizer.ggml.add_eos_token", .. })));
}

#[test]
fn other_kinds_of_vocabulary_are_refused_by_name() {
    for model in ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", ""] {
        let refused = Vocabulary::new(VocabularyFields { model: model.to_owned(), ..pieces() });
        assert!(matches!(refused, Err(VocabularyError::Model { model: named }) if named == model));
    }
    let refused = Vocabulary::new(VocabularyFields { pre: Some("superbpe".to_owned()), ..merged() });
    assert!(matches!(refused, Err(VocabularyError::Pre { pre }) if pre == "superbpe"));
}

#[test]
fn parts_that_do_not_agree_are_refused() {
    let refused = |fields| Vocabulary::new(fields).unwrap_err();
    let none = VocabularyFields { tokens: vec![], scores: vec![], types: vec![], ..pieces() };
    assert!(matches!(refused(none), VocabularyError::Length { key: "tokenizer.ggml.tokens", .. }));
    let few = VocabularyFields { scores: vec![0.0; 5], ..pieces() };
    assert!(matches!(
        refused(few),
        VocabularyError::Length { key: "tokenizer.ggml.scores", len: 5, tokens: 6 }
    ));
    let many = VocabularyFields { types: vec![1; 7], ..pieces() };
    assert!(matches!(refused(many), VocabularyError::Length { key: "tokenizer.ggml.token_type", .. }));
    let unknown = VocabularyFields { types: vec![1, 1, 7, 1], ..merged() };
    assert!(matches!(refused(unknown), VocabularyError::Type { id: 2, value: 7 }));
    let nan = VocabularyFields { scores: vec![0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0], ..pieces() };
    assert!(matches!(refused(nan), VocabularyError::Score { id: 1 }));
    let outside = VocabularyFields { eos: Some(4), ..merged() };
    assert!(matches!(
        refused(outside),
        VocabularyError::Id { key: "tokenizer.ggml.eos_token_id", id: 4, .. }
    ));
    let twice = VocabularyFields { tokens: ["a", "b", "ab", "a"].map(str::to_owned).to_vec(), ..merged() };
    assert!(matches!(refused(twice), VocabularyError::Duplicate { first: 0, second: 3, .. }));
}

#[test]
fn merges_that_join_no_two_tokens_to_a_third_are_refused() {
    for merge in ["", " ", "a", "ab", "a b b", "b a", "a c", "a  b", " a b", "ab ab", "é b"] {
        let merges = vec!["a b".to_owned(), merge.to_owned()];
        let refused = Vocabulary::new(VocabularyFields { merges, ..merged() });
        assert!(matches!(refused, Err(VocabularyError::Merge { index: 1, .. })), "`{merge}`");
    }
}

#[test]
fn a_token_without_text_has_a_name() {
    let tokens = ["a", "b", "ab", ""].map(str::to_owned).to_vec();
    assert_eq!(tokenizer(VocabularyFields { tokens, ..merged() }).token(3).unwrap(), "[EMPTY_3]");
}

#[test]
fn a_quarter_of_a_million_pieces_are_converted_in_seconds() {
    let numbers = (0..256_000 - 42).map(|number| format!("▁{number:x}piece"));
    let letters = "▁abcdefghijklmnopqrstuvwxyz0123456789ABCDE".chars().map(String::from);
    let tokens: Vec<String> = letters.chain(numbers).collect();
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    let fields = VocabularyFields { tokens, scores, types: vec![], ..pieces() };
    let start = Instant::now();
    Vocabulary::new(fields).unwrap().tokenizer_json().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn pieces_too_long_to_find_merges_in_are_refused() {
    let tokens = (0..6).map(|id| format!("{id}{}", "x".repeat(30_000))).collect();
    let vocabulary = Vocabulary::new(VocabularyFields { tokens, ..pieces() }).unwrap();
    assert!(matches!(vocabulary.tokenizer_json(), Err(VocabularyError::TooLong { id: 2 })));
}

#[test]
fn chat_templates_get_the_special_tokens_there_are() {
    let vocabulary = Vocabulary::new(VocabularyFields { eos: Some(3), ..merged() }).unwrap();
    assert_eq!(Value::from(vocabulary.special_tokens()), json!({"eos_token": "<end>"}));
    let vocabulary = Vocabulary::new(pieces()).unwrap();
    let named = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    assert_eq!(Value::from(vocabulary.special_tokens()), named);
}

#[test]
fn keys_of_chat_templates_have_names() {
    assert_eq!(template_name("tokenizer.chat_template"), Some("default"));
    assert_eq!(template_name("tokenizer.chat_template.tool_use"), Some("tool_use"));
    for key in ["tokenizer.chat_templates", "tokenizer.chat_template.", "general.name"] {
        assert_eq!(template_name(key), None, "{key}");
    }
}

/// A GGUF of these metadata and no tensor, opened.
fn gguf(metadata: &[(&str, GgufValue)]) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    let mut writer = GgufWriter::default();
    metadata.iter().for_each(|(key, value)| {
        writer.key(*key, value.clone());
    });
    writer.create(&path).unwrap().finish().unwrap();
    // The file stays readable once opened.
    Gguf::open(&path).unwrap()
}

fn strings(texts: &[&str]) -> GgufValue {
    GgufValue::Array(Array::String(texts.iter().map(|text| (*text).to_owned()).collect()))
}

/// The metadata of [`merged`].
fn merged_metadata() -> Vec<(&'static str, GgufValue)> {
    vec![
        ("tokenizer.ggml.model", GgufValue::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", GgufValue::String("gpt-2".to_owned())),
        ("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "<end>"])),
        ("tokenizer.ggml.token_type", GgufValue::Array(Array::I32(vec![1, 1, 1, 3]))),
        ("tokenizer.ggml.merges", strings(&["a b"])),
        ("tokenizer.ggml.eos_token_id", GgufValue::U32(3)),
    ]
}

#[test]
fn a_file_has_the_tokenizer_of_its_metadata() {
    let vocabulary = Vocabulary::read(&gguf(&merged_metadata())).unwrap();
    assert_eq!((vocabulary.len(), vocabulary.eos(), vocabulary.bos()), (4, Some(3), None));
    assert_eq!(vocabulary.tokenizer().unwrap().encode("abba<end>", true).unwrap(), [2, 1, 0, 3]);
}

#[test]
fn a_file_without_a_vocabulary_or_its_merges_is_refused_by_key() {
    for missing in ["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        let metadata: Vec<_> = merged_metadata().into_iter().filter(|(key, _)| *key != missing).collect();
        let error = Vocabulary::read(&gguf(&metadata)).unwrap_err();
        let GgufVocabularyError::Gguf(GgufError::MissingKey { key, .. }) = error else { panic!("{error}") };
        assert_eq!(key, missing);
    }
}

#[test]
fn a_value_of_a_file_that_cannot_be_used_is_refused_with_the_file() {
    let with = |key: &'static str, value: GgufValue| {
        let mut metadata = merged_metadata();
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, value));
        Vocabulary::read(&gguf(&metadata)).unwrap_err()
    };
    let error = with("tokenizer.ggml.model", GgufValue::String("bert".to_owned()));
    assert!(matches!(error, GgufVocabularyError::Refused { source: VocabularyError::Model { .. }, .. }));
    assert!(error.to_string().contains("vocabulary.gguf"), "{error}");
    let huge = GgufValue::Array(Array::I64(vec![1, 1, 1, i64::MAX]));
    for (key, value) in [
        ("tokenizer.ggml.token_type", huge),
        ("tokenizer.ggml.eos_token_id", GgufValue::I32(-1)),
        ("tokenizer.ggml.tokens", GgufValue::U32(4)),
    ] {
        let error = with(key, value);
        let GgufVocabularyError::Gguf(GgufError::Value { key: refused, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(refused, key);
    }
}
