//! Gemma 3, its language models: queries and keys are normed, and layers with a window are turned by a rotary embedding of their own.
//! Source: arXiv:2503.19786.

use super::gemma2::{gemma, softcap, windows};
use super::{Architecture, Defaults, read_layer_types};
use crate::config::{Activation, DecoderConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::{Rotary, read_local_rope};

const LOCAL_THETA: f64 = 10_000.0;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    defaults: Defaults {
        max_position_embeddings: 131_072,
        rope_theta: 1_000_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        num_key_value_heads: Some(4),
        head_dim: Some(256),
    },
    rotary: Rotary::ByLayerType,
    activation: Activation::GeluTanh,
    adapt,
};

fn adapt(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ConfigError> {
    gemma(fields, config)?;
    config.qk_norm = true;
    config.attention_softcap = softcap(fields, "attn_logit_softcapping", None)?;
    config.logit_softcap = softcap(fields, "final_logit_softcapping", None)?;
    let pattern = fields.whole("sliding_window_pattern", 1..=usize::MAX)?.unwrap_or(6);
    let is_local = |i: usize| !(i + 1).is_multiple_of(pattern);
    windows(fields, config, is_local)?;
    config.ropes.push(read_local_rope(fields, LOCAL_THETA)?);
    let types = read_layer_types(fields, config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        // By its type, not its window, which is none when it is longer than any sequence.
        if types.as_ref().map_or_else(|| is_local(i), |types| types[i]) {
            layer.rope = Some(1);
        }
    }
    Ok(())
}
