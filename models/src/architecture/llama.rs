//! Llama 2, 3 and what is built like them. Source: arXiv:2302.13971, arXiv:2407.21783.

use super::{Architecture, Defaults, read_layer_types};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;
use crate::ternary::TernaryConfig;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "llama",
    class: "LlamaForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 2048,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        num_key_value_heads: None,
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    fields.only("pretraining_tp", &[1.into()])?;
    fields.only("sliding_window", &[])?;
    if let (Some(types), Some(given)) =
        (read_layer_types(fields, config.layers.len())?, fields.get("layer_types"))
        && types.contains(&true)
    {
        return Err(fields.unsupported("layer_types", given));
    }
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    config.mlp_bias = fields.bool("mlp_bias")?.unwrap_or(false);
    config.ternary = TernaryConfig::read(fields)?;
    Ok(())
}
