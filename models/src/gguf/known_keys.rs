//! Which keys of an architecture are read, which may be there without changing anything, and which values of others are harmless.
//! Source: `llama-arch.cpp` of llama.cpp, which names them, and its `load_hparams`.

use super::value::Value;

/// What a key may say.
enum Only {
    /// Anything: it is read, or changes nothing.
    Any,
    /// This truth value.
    Bool(bool),
    /// This number.
    Number(f64),
    /// This text.
    Text(&'static str),
}

/// Without the architecture's name before them.
const KEYS: [(&str, Only); 42] = [
    ("attention.head_count", Only::Any),
    ("attention.head_count_kv", Only::Any),
    ("attention.key_length", Only::Any),
    ("attention.layer_norm_rms_epsilon", Only::Any),
    ("attention.sliding_window", Only::Any),
    ("attention.value_length", Only::Any),
    ("block_count", Only::Any),
    ("context_length", Only::Any),
    ("embedding_length", Only::Any),
    ("expert_count", Only::Any),
    ("expert_used_count", Only::Any),
    ("feed_forward_length", Only::Any),
    ("rope.dimension_count", Only::Any),
    ("rope.freq_base", Only::Any),
    ("rope.scale_linear", Only::Any),
    ("rope.scaling.attn_factor", Only::Any),
    ("rope.scaling.factor", Only::Any),
    ("rope.scaling.original_context_length", Only::Any),
    ("rope.scaling.type", Only::Any),
    ("rope.scaling.yarn_attn_factor", Only::Any),
    ("rope.scaling.yarn_beta_fast", Only::Any),
    ("rope.scaling.yarn_beta_slow", Only::Any),
    // The rows of the embedding say it.
    ("vocab_size", Only::Any),
    // Of LayerNorm, which none of the architectures has.
    ("attention.layer_norm_epsilon", Only::Any),
    // How the scaling came about.
    ("rope.scaling.finetuned", Only::Any),
    ("attention.causal", Only::Bool(true)),
    ("expert_gating_func", Only::Number(SOFTMAX)),
    ("expert_group_count", Only::Number(0.0)),
    ("expert_group_used_count", Only::Number(0.0)),
    ("expert_shared_count", Only::Number(0.0)),
    ("expert_shared_feed_forward_length", Only::Number(0.0)),
    ("expert_weights_norm", Only::Bool(true)),
    ("expert_weights_scale", Only::Number(1.0)),
    ("leading_dense_block_count", Only::Number(0.0)),
    ("moe_every_n_layers", Only::Number(0.0)),
    ("n_deepstack_layers", Only::Number(0.0)),
    ("nextn_predict_layers", Only::Number(0.0)),
    ("pooling_type", Only::Number(0.0)),
    ("rope.scaling.yarn_ext_factor", Only::Number(1.0)),
    ("rope.scaling.yarn_log_multiplier", Only::Number(0.0)),
    ("tensor_data_layout", Only::Text("Meta AI original pth")),
    ("use_parallel_residual", Only::Bool(false)),
];

/// Keys that one architecture reads and that another would leave out.
const OF_SOME: [(&str, &[&str]); 5] = [
    ("attention.sliding_window_pattern", &["gemma2", "gemma3"]),
    ("attn_logit_softcapping", &["gemma2", "gemma3"]),
    ("final_logit_softcapping", &["gemma2", "gemma3"]),
    ("rope.freq_base_swa", &["gemma2", "gemma3"]),
    ("expert_feed_forward_length", &["qwen3moe"]),
];

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX`.
const SOFTMAX: f64 = 1.0;

/// What is to be thought of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is read, or it changes nothing.
    Fine,
    /// It says something that is not computed.
    Unsupported,
    /// Nothing is known of it.
    Unknown,
}

/// `key` is without the architecture's name before it.
pub(super) fn judge(architecture: &str, key: &str, value: &Value) -> Verdict {
    if let Some((_, architectures)) = OF_SOME.iter().find(|(name, _)| *name == key) {
        return if architectures.contains(&architecture) { Verdict::Fine } else { Verdict::Unknown };
    }
    let Some((_, only)) = KEYS.iter().find(|(name, _)| *name == key) else { return Verdict::Unknown };
    let fine = match (only, value) {
        (Only::Any, _) => true,
        (Only::Bool(only), Value::Bool(value)) => value == only,
        (Only::Text(only), Value::String(value)) => value == only,
        (Only::Number(only), value) => value.as_number() == Some(*only),
        _ => false,
    };
    if fine { Verdict::Fine } else { Verdict::Unsupported }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_fine_unsupported_or_unknown() {
        let cases = [
            ("llama", "block_count", Value::U32(1), Verdict::Fine),
            ("llama", "attention.causal", Value::Bool(true), Verdict::Fine),
            ("llama", "attention.causal", Value::Bool(false), Verdict::Unsupported),
            ("llama", "attention.causal", Value::U8(1), Verdict::Unsupported),
            ("llama", "expert_weights_scale", Value::F32(1.0), Verdict::Fine),
            ("llama", "logit_scale", Value::F32(0.5), Verdict::Unknown),
            ("llama", "expert_feed_forward_length", Value::U32(8), Verdict::Unknown),
            ("qwen3moe", "expert_feed_forward_length", Value::U32(8), Verdict::Fine),
            ("qwen2", "final_logit_softcapping", Value::F32(30.0), Verdict::Unknown),
            ("gemma2", "final_logit_softcapping", Value::F32(30.0), Verdict::Fine),
        ];
        for (architecture, key, value, verdict) in cases {
            assert_eq!(judge(architecture, key, &value), verdict, "{architecture}.{key} = {value:?}");
        }
    }
}
