//! Qwen2.5-VL, its language model: a Qwen2 whose positions have three axes. Source: arXiv:2502.13923, arXiv:2409.12191, sec. 2.1.

use super::{Architecture, Defaults, window_in_some_layers};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen2_5_vl",
    class: "Qwen2_5_VLForConditionalGeneration",
    defaults: Defaults {
        max_position_embeddings: 32_768,
        rope_theta: 1_000_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
        num_key_value_heads: Some(8),
        head_dim: None,
    },
    rotary: Rotary::Axes,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    config.qkv_bias = true;
    let first = fields.whole("max_window_layers", 0..=usize::MAX)?.unwrap_or(80);
    window_in_some_layers(fields, config, Some(4096), |i, _| i >= first)
}
