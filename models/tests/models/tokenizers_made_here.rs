//! Small tokenizers of the two kinds that Llama models have.

use std::sync::Arc;

use models::Tokenizer;
use serde_json::{Value, json};

/// First id of the special tokens `<|bos|>` and `<|eos|>` and of the ordinary added token `<tool>`.
pub const BOS: u32 = 260;
pub const EOS: u32 = 261;
pub const TOOL: u32 = 262;

/// Byte-level: ids 0 to 255 are the bytes, then the merges `Ġt`, `he`, `Ġthe` and `é`.
pub fn byte_level() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_json(byte_level_json().to_string().as_bytes()).unwrap())
}

pub fn byte_level_json() -> Value {
    let merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ã", "©")];
    let mut vocab: serde_json::Map<String, Value> =
        (0..=255).map(|byte| (character_of(byte), json!(byte))).collect();
    for (index, (left, right)) in merges.iter().enumerate() {
        vocab.insert(format!("{left}{right}"), json!(256 + index));
    }
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [added(BOS, "<|bos|>", true), added(EOS, "<|eos|>", true), added(TOOL, "<tool>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": starts_with(BOS, "<|bos|>"),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": bpe(vocab, json!(merges.map(|(left, right)| format!("{left} {right}"))), false),
    })
}

/// Special tokens `<s>` and `</s>` of [`byte_fallback`], its first byte token, and its pieces.
pub const S: u32 = 1;
pub const END_OF_S: u32 = 2;
pub const FIRST_BYTE: u32 = 3;
pub const PIECES: [&str; 10] = ["▁", "a", "b", "n", "▁a", "an", "▁b", "é", "🦊", "▁▁"];
pub const FIRST_PIECE: u32 = FIRST_BYTE + 256;

/// As Llama 2 has it: `▁` for a space, `<0x..>` for the bytes of other characters, and a decoder that drops
/// the first space.
pub fn byte_fallback() -> Arc<Tokenizer> {
    let mut vocab = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for piece in PIECES {
        vocab.insert(piece.to_owned(), json!(vocab.len()));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(S, "<s>", true), added(END_OF_S, "</s>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": starts_with(S, "<s>"),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": bpe(vocab, json!(["▁ a", "a n", "▁ b", "▁ ▁"]), true),
    });
    Arc::new(Tokenizer::from_json(json.to_string().as_bytes()).unwrap())
}

/// A token for each word, decoded by Metaspace.
pub fn words() -> Arc<Tokenizer> {
    let vocab = json!({"<unk>": 0, "▁the": 1, "▁fox": 2, "es": 3, "▁": 4, "é": 5});
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(0, "<unk>", true)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    Arc::new(Tokenizer::from_json(json.to_string().as_bytes()).unwrap())
}

/// The character of the byte-level alphabet for a byte.
fn character_of(byte: u8) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let substitute = 0x100 + (0..byte).filter(|&byte| !printable(byte)).count() as u32;
    let code = if printable(byte) { u32::from(byte) } else { substitute };
    char::from_u32(code).unwrap().to_string()
}

fn bpe(vocab: serde_json::Map<String, Value>, merges: Value, byte_fallback: bool) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": byte_fallback.then_some("<unk>"), "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": byte_fallback, "byte_fallback": byte_fallback, "ignore_merges": false,
        "vocab": vocab, "merges": merges,
    })
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

fn starts_with(id: u32, token: &str) -> Value {
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A")],
        "pair": [special, sequence("A"), sequence("B")],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
