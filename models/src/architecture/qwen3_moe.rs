//! Qwen3 with experts in place of the MLP of some layers, usually all. Source: arXiv:2505.09388.

use serde_json::Value;

use super::{Architecture, Defaults, ExpertFields, read_experts, window_in_all_layers};
use crate::config::{Activation, DecoderConfig, ExpertNames};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen3_moe",
    class: "Qwen3MoeForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 32_768,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        num_key_value_heads: Some(4),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

const EXPERTS: ExpertFields = ExpertFields {
    count: ("num_experts", 128),
    per_token: 8,
    intermediate_size: ("moe_intermediate_size", 768),
    names: ExpertNames {
        router: "mlp.gate",
        experts: "mlp.experts",
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    },
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    config.qk_norm = true;
    let mut experts = read_experts(fields, &EXPERTS)?;
    experts.normalised = fields.bool("norm_topk_prob")?.unwrap_or(false);
    config.experts = Some(experts);
    let step = fields.whole("decoder_sparse_step", 1..=usize::MAX)?.unwrap_or(1);
    let dense = read_dense_layers(fields, config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.experts = !dense.contains(&i) && (i + 1).is_multiple_of(step);
    }
    match fields.bool("use_sliding_window")? {
        Some(true) => window_in_all_layers(fields, config, Some(4096)),
        _ => Ok(()),
    }
}

/// The layers that keep their MLP.
fn read_dense_layers(fields: &ConfigFields, layers: usize) -> Result<Vec<usize>, ConfigError> {
    let Some(given) = fields.get("mlp_only_layers") else { return Ok(Vec::new()) };
    let layer = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|layer| *layer < layers);
    let found = given.as_array().and_then(|values| values.iter().map(layer).collect::<Option<_>>());
    found.ok_or_else(|| fields.invalid("mlp_only_layers", given, &format!("numbers of {layers} layers")))
}
