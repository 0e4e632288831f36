//! Mixtral: every layer has experts in place of its MLP. Source: arXiv:2401.04088.

use super::{Architecture, Defaults, ExpertFields, read_experts, window_in_all_layers};
use crate::config::{Activation, DecoderConfig, ExpertNames};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "mixtral",
    class: "MixtralForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 131_072,
        rope_theta: 1_000_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
        num_key_value_heads: Some(8),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

const EXPERTS: ExpertFields = ExpertFields {
    count: ("num_local_experts", 8),
    per_token: 2,
    intermediate_size: ("intermediate_size", 14_336),
    names: ExpertNames {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        gate: "w1",
        up: "w3",
        down: "w2",
    },
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    config.experts = Some(read_experts(fields, &EXPERTS)?);
    config.layers.iter_mut().for_each(|layer| layer.experts = true);
    window_in_all_layers(fields, config, None)
}
