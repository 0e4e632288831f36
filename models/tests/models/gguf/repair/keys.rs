//! Keys that are missing.

use models::gguf::repair::{Fix, Origin, RepairError};
use models::gguf::{Array, Gguf, Value, read_config};

use super::super::convert::{checkpoint, refused};
use super::{Draft, assert_repaired, demo, folder, golden, of_folder, repair};

const CHECKPOINTS: [&str; 11] = [
    "gqa",
    "biases",
    "tied-wide-heads",
    "mistral",
    "llama3-rope",
    "phi3",
    "gemma2",
    "gemma3",
    "qwen2",
    "qwen3",
    "smollm3",
];

/// Keys that follow from tensors, without the architecture's name before them.
const OF_TENSORS: [&str; 5] = [
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
];

/// A checkpoint of shard-forward as GGUF.
fn whole(name: &str) -> Draft {
    let other = refused().into_iter().find(|(refused, ..)| *refused == name);
    let fields = other.map_or(serde_json::json!({}), |(.., fields)| fields);
    let draft = of_folder(checkpoint(name, &fields).path());
    assert_repaired(&draft, &draft.bytes(), &[]);
    draft
}

fn architecture(draft: &Draft) -> String {
    match draft.get("general.architecture") {
        Some(Value::String(architecture)) => architecture.clone(),
        other => panic!("{other:?}"),
    }
}

fn config(draft: &Draft) -> models::DecoderConfig {
    let folder = folder();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, draft.bytes()).unwrap();
    read_config(&Gguf::open(&path).unwrap()).unwrap()
}

#[test]
fn sizes_that_the_tensors_have_are_restored_to_their_values() {
    for name in CHECKPOINTS {
        let original = whole(name);
        let architecture = architecture(&original);
        for key in OF_TENSORS.map(|key| format!("{architecture}.{key}")) {
            let damaged = original.clone().without(&key);
            let (fixes, found) = repair(&damaged.bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(
                matches!(&fixes[..], [Fix::Key { key: added, .. }] if *added == key),
                "{name}: {fixes:?}"
            );
            found.assert_is(&original);
        }
        for key in ["context_length", "attention.layer_norm_rms_epsilon"] {
            let key = format!("{architecture}.{key}");
            let refused = repair(&original.clone().without(&key).bytes());
            assert!(matches!(refused, Err(RepairError::Unknown { key: named, .. }) if named == key));
        }
    }
}

#[test]
fn the_demo_model_gets_its_keys_back() {
    let original = demo();
    for key in ["llama.block_count", "llama.attention.head_count", "llama.attention.head_count_kv"] {
        assert_repaired(&original, &original.clone().without(key).bytes(), &["missing_key"]);
    }
    for key in ["general.architecture", "tokenizer.ggml.model"] {
        assert_repaired(&original, &original.clone().without(key).bytes(), &["missing_key"]);
    }
}

#[test]
fn heads_are_not_guessed_where_nothing_has_the_size_of_one() {
    let key = "qwen2.attention.head_count";
    let damaged = whole("qwen2").without(key).without("qwen2.attention.key_length");
    let refused = repair(&damaged.without("qwen2.rope.dimension_count").bytes());
    assert!(matches!(refused, Err(RepairError::Unknown { key: named, .. }) if named == key));
}

#[test]
fn the_size_of_a_head_is_added_where_dividing_gives_another() {
    for name in ["tied-wide-heads", "gemma3", "qwen3"] {
        let original = whole(name);
        let architecture = architecture(&original);
        let [key, value] = ["key", "value"].map(|which| format!("{architecture}.attention.{which}_length"));
        let damaged = original.clone().without(&key).without(&value);
        let (_, found) = repair(&damaged.bytes()).unwrap();
        assert_eq!(config(&found), config(&original), "{name}");
    }
}

#[test]
fn an_architecture_is_named_by_its_keys_if_there_is_one() {
    for name in CHECKPOINTS {
        let original = golden(name);
        let damaged = original.clone().without("general.architecture");
        assert_repaired(&original, &damaged.bytes(), &["missing_key"]);
    }
    let mut two = golden("gqa").without("general.architecture");
    two.entries.push(("qwen2.block_count".to_owned(), Value::U32(1)));
    let refused = repair(&two.bytes());
    assert!(matches!(refused, Err(RepairError::Unknown { key, .. }) if key == "general.architecture"));
}

#[test]
fn the_base_of_the_rotary_embedding_is_llama_cpps_and_said_to_be() {
    let (fixes, found) = repair(&golden("gqa").without("llama.rope.freq_base").bytes()).unwrap();
    assert!(matches!(&fixes[..], [Fix::Key { origin: Origin::Default, .. }]), "{fixes:?}");
    assert_eq!(found.get("llama.rope.freq_base"), Some(&Value::F32(10_000.0)));
}

#[test]
fn rows_of_the_embedding_are_added_where_the_tokens_are_others() {
    let original = golden("gqa");
    let mut damaged = original.clone().without("llama.vocab_size").without("tokenizer.ggml.tokens");
    damaged = damaged.without("tokenizer.ggml.token_type");
    let (_, found) = repair(&damaged.bytes()).unwrap();
    assert_eq!(found.get("llama.vocab_size"), original.get("llama.vocab_size"));
}

/// A vocabulary of pieces, without a model.
fn pieces(tokens: &[&str], ids: &[(&str, u32)]) -> Draft {
    let text = |text: &str| Value::String(text.to_owned());
    let strings = tokens.iter().map(|token| (*token).to_owned()).collect();
    let mut entries = vec![
        ("general.architecture".to_owned(), text("other")),
        ("tokenizer.ggml.model".to_owned(), text("llama")),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(Array::String(strings))),
        ("tokenizer.ggml.scores".to_owned(), Value::Array(Array::F32(vec![0.0; tokens.len()]))),
    ];
    entries.extend(ids.iter().map(|(key, id)| (format!("tokenizer.ggml.{key}_token_id"), Value::U32(*id))));
    Draft { entries, ..Draft::default() }
}

#[test]
fn special_tokens_of_pieces_are_known_by_their_texts() {
    let llama = pieces(&["<unk>", "<s>", "</s>", "a"], &[("bos", 1), ("eos", 2), ("unknown", 0)]);
    let gemma = pieces(&["<pad>", "<eos>", "<bos>", "<unk>"], &[("bos", 2), ("eos", 1), ("unknown", 3)]);
    for original in [llama, gemma] {
        assert_repaired(&original, &original.bytes(), &[]);
        for key in ["bos", "eos", "unknown"] {
            let damaged = original.clone().without(&format!("tokenizer.ggml.{key}_token_id"));
            assert_repaired(&original, &damaged.bytes(), &["missing_key"]);
        }
        let damaged = original.clone().without("tokenizer.ggml.model");
        assert_repaired(&original, &damaged.bytes(), &["missing_key"]);
    }
    // Neither has such a text.
    let other = pieces(&["a", "b", "c"], &[]);
    assert_repaired(&other, &other.bytes(), &[]);
    let unknown = other.without("tokenizer.ggml.model").without("tokenizer.ggml.scores");
    let refused = repair(&unknown.bytes());
    assert!(matches!(refused, Err(RepairError::Unknown { key, .. }) if key == "tokenizer.ggml.model"));
}
