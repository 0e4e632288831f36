//! BitNet b1.58: what attention and gates give is normed before it is projected, and linear layers are ternary where the config says
//! so; without, they are plain, as in transformers. Source: arXiv:2504.12285.

use serde_json::json;

use super::{Architecture, Defaults};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;
use crate::ternary::TernaryConfig;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "bitnet",
    class: "BitNetForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 2048,
        rope_theta: 500_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
        num_key_value_heads: Some(5),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Relu2,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    // `attn_sub_norm` is as wide as the hidden state.
    if config.num_attention_heads * config.head_dim != config.hidden_size {
        let expected = format!("{} heads as wide as the hidden state", config.num_attention_heads);
        return Err(fields.invalid("head_dim", &json!(config.head_dim), &expected));
    }
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    config.sub_norms = true;
    config.ternary = TernaryConfig::read(fields)?;
    Ok(())
}
