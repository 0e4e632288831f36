//! Gemma 2: every other layer sees a window, scores and logits are bent, and there are norms behind attention and MLP.
//! Source: arXiv:2408.00118.

use super::{Architecture, Defaults, read_layer_types, read_window};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 8192,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        num_key_value_heads: Some(4),
        head_dim: Some(256),
    },
    rotary: Rotary::Whole,
    activation: Activation::GeluTanh,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    gemma(fields, config)?;
    config.attention_softcap = softcap(fields, "attn_logit_softcapping", Some(50.0))?;
    config.logit_softcap = softcap(fields, "final_logit_softcapping", Some(30.0))?;
    windows(fields, config, |i| i.is_multiple_of(2))
}

/// What all Gemmas have in common.
pub(super) fn gemma(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    fields.only("use_bidirectional_attention", &[false.into()])?;
    let attention_bias = fields.bool("attention_bias")?.unwrap_or(false);
    (config.qkv_bias, config.o_bias) = (attention_bias, attention_bias);
    (config.sandwich_norms, config.norm_offset) = (true, true);
    config.embedding_scale = Some((config.hidden_size as f64).sqrt());
    config.attention_scale = 1.0 / fields.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    Ok(())
}

/// Gives the layers of type `sliding_attention` their window; without `layer_types`, those that `is_sliding` names.
pub(super) fn windows(
    fields: &ConfigFields,
    config: &mut DecoderConfig,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<(), ConfigError> {
    let window = read_window(fields, config, Some(4096))?;
    let types = read_layer_types(fields, config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let sliding = types.as_ref().map_or_else(|| is_sliding(i), |types| types[i]);
        layer.window = window.filter(|_| sliding);
    }
    Ok(())
}

/// Null, unlike absence, stands for none.
pub(super) fn softcap(
    fields: &ConfigFields,
    field: &str,
    default: Option<f64>,
) -> Result<Option<f64>, ConfigError> {
    if fields.names(field) { fields.positive(field) } else { Ok(default) }
}
