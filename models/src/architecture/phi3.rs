//! Phi-3 and Phi-4: the products of one input are one matrix, and a part of each head may stay unturned.
//! Source: arXiv:2404.14219.

use super::{Architecture, Defaults, window_in_all_layers};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::{RopeScaling, Rotary};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 4096,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
        num_key_value_heads: None,
        head_dim: None,
    },
    rotary: Rotary::Partial,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    let scaling = fields.get("rope_scaling").or_else(|| fields.get("rope_parameters"));
    if let (Some(scaling), Some(read)) = (scaling, &config.ropes[0].scaling)
        && !matches!(read, RopeScaling::LongRope { .. })
    {
        return Err(fields.unsupported("rope_scaling", scaling));
    }
    config.fused = true;
    window_in_all_layers(fields, config, None)
}
