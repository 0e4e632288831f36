//! Qwen2 and Qwen2.5: queries, keys and values have biases; later layers may see a window. Source: arXiv:2407.10671.

use super::{Architecture, Defaults, window_in_some_layers};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 32_768,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        num_key_value_heads: Some(32),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    config.qkv_bias = true;
    windows(fields, config)
}

/// From layer `max_window_layers` on, where `layer_types` does not say it.
pub(super) fn windows(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    let first = fields.whole("max_window_layers", 0..=usize::MAX)?.unwrap_or(28);
    window_in_some_layers(fields, config, Some(4096), |i, _| i >= first)
}
