//! SentencePiece's BPE, as Llama 2 and Gemma have it.

use serde_json::{Value, json};

use super::score_merges::score_merges;
use crate::gguf::vocabulary::{Vocabulary, VocabularyError};

/// How a space is written.
const SPACE: &str = "▁";

/// Everything but the added tokens and the post-processor.
///
/// The form is that of `LlamaConverter` and, without a space in front, `GemmaConverter` of transformers'
/// `convert_slow_tokenizer.py`: the space goes before each piece of text between special tokens, not only
/// before the first. GGUF does not keep the newer form, in which it is only the first.
pub(super) fn json(vocabulary: &Vocabulary, scores: &[f32]) -> Result<Value, VocabularyError> {
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if vocabulary.add_space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "unk_token": vocabulary.unk.and_then(|id| vocabulary.text(id)),
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary.ids(),
            "merges": score_merges(&vocabulary.tokens, scores)?,
        },
    }))
}
