//! Byte-level BPE, as GPT-2 has it.

use serde_json::{Value, json};

use super::pre_tokenizer::PreTokenizer;
use crate::gguf::vocabulary::Vocabulary;

/// Everything but the added tokens and the post-processor.
pub(super) fn json(vocabulary: &Vocabulary, merges: &[(String, String)], pre: &PreTokenizer) -> Value {
    json!({
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.json(),
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "unk_token": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignores_merges(),
            "vocab": vocabulary.ids(),
            "merges": merges,
        },
    })
}
