//! SmolLM3: some layers know no positions (NoPE). Source: its `config.json` and transformers' `SmolLM3Config`; arXiv:2501.18795.

use serde_json::Value;

use super::{Architecture, Defaults, window_in_some_layers};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 32_768,
        rope_theta: 2_000_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        num_key_value_heads: Some(4),
        head_dim: None,
    },
    rotary: Rotary::Whole,
    activation: Activation::Silu,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    config.mlp_bias = fields.bool("mlp_bias")?.unwrap_or(false);
    let interval = fields.whole("no_rope_layer_interval", 1..=usize::MAX)?.unwrap_or(4);
    let given = read_no_rope_layers(fields, config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let rotates = given.as_ref().map_or(!(i + 1).is_multiple_of(interval), |rotates| rotates[i]);
        layer.rope = rotates.then_some(0);
    }
    window_in_some_layers(fields, config, None, |_, layer| layer.rope.is_none())
}

/// `no_rope_layers`: 1 for each layer that has rotary positions, in spite of its name.
fn read_no_rope_layers(fields: &ConfigFields, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let Some(given) = fields.get("no_rope_layers") else { return Ok(None) };
    let rotates = |layer: &Value| match layer.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    };
    let rotates: Option<Vec<bool>> =
        given.as_array().and_then(|layers| layers.iter().map(rotates).collect::<Option<_>>());
    match rotates.filter(|rotates| rotates.len() == layers) {
        Some(rotates) => Ok(Some(rotates)),
        None => Err(fields.invalid("no_rope_layers", given, &format!("0 or 1 for each of {layers} layers"))),
    }
}
