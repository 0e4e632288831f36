//! Qwen3: the heads of queries and keys are normed. Source: arXiv:2505.09388.

use super::{Architecture, Defaults, qwen2};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 32_768,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        num_key_value_heads: Some(32),
        head_dim: Some(128),
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    config.qk_norm = true;
    qwen2::windows(fields, config)
}
