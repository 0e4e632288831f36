//! Mistral: every layer sees a window of tokens, unless `sliding_window` is null. Source: arXiv:2310.06825.

use super::{Architecture, Defaults, window_in_all_layers};
use crate::config::Activation;
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "mistral",
    class: "MistralForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 131_072,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        num_key_value_heads: Some(8),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt: |fields, config| window_in_all_layers(fields, config, Some(4096)),
};
