//! The decoder architectures that are computed, a file each: what a `config.json` leaves unsaid, and which features it asks for.

mod bitnet;
mod gemma2;
mod gemma3;
mod llama;
mod mistral;
mod mixtral;
mod phi3;
mod qwen2;
mod qwen2_5_vl;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use serde_json::{Value, json};

use crate::config::{Activation, DecoderConfig, ExpertNames, ExpertsConfig, HIDDEN_MAX, LayerConfig};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::Rotary;

const ALL: [&Architecture; 12] = [
    &bitnet::ARCHITECTURE,
    &gemma2::ARCHITECTURE,
    &gemma3::ARCHITECTURE,
    &llama::ARCHITECTURE,
    &mistral::ARCHITECTURE,
    &mixtral::ARCHITECTURE,
    &phi3::ARCHITECTURE,
    &qwen2::ARCHITECTURE,
    &qwen2_5_vl::ARCHITECTURE,
    &qwen3::ARCHITECTURE,
    &qwen3_moe::ARCHITECTURE,
    &smollm3::ARCHITECTURE,
];

/// One architecture as transformers knows it.
pub(crate) struct Architecture {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// The name in `architectures`.
    pub(crate) class: &'static str,
    /// What absent fields stand for.
    pub(crate) defaults: Defaults,
    /// How its rotary embedding may differ from a plain one; what else the fields say is refused.
    pub(crate) rotary: Rotary,
    /// What gates go through; another is refused.
    pub(crate) activation: Activation,
    /// Sets what differs from a plain decoder, and refuses what is not computed.
    pub(crate) adapt: fn(&ConfigFields, &mut DecoderConfig) -> Result<(), ConfigError>,
}

/// What absent fields of a `config.json` stand for. Sizes of the model must be given.
pub(crate) struct Defaults {
    pub(crate) max_position_embeddings: usize,
    pub(crate) rope_theta: f64,
    pub(crate) rms_norm_eps: f64,
    pub(crate) tie_word_embeddings: bool,
    /// As many as query heads where there is none.
    pub(crate) num_key_value_heads: Option<usize>,
    /// The hidden size over the query heads where there is none.
    pub(crate) head_dim: Option<usize>,
}

impl Architecture {
    /// `hidden_act`, or where Gemma has it, `hidden_activation`.
    pub(crate) fn refuse_other_activations(&self, fields: &ConfigFields) -> Result<(), ConfigError> {
        match self.activation {
            Activation::Silu => fields.only("hidden_act", &[json!("silu")]),
            Activation::Relu2 => fields.only("hidden_act", &[json!("relu2")]),
            // transformers does not read `hidden_act` there, which old checkpoints have as `gelu`.
            Activation::GeluTanh => fields.only("hidden_activation", &[json!("gelu_pytorch_tanh")]),
        }
    }
}

/// That of the language model within a vision-language one.
pub(crate) fn of_vision_language(fields: &ConfigFields) -> Result<&'static Architecture, ConfigError> {
    Ok(match fields.string("model_type")? {
        Some("qwen2_5_vl") => &qwen2_5_vl::ARCHITECTURE,
        _ => &llama::ARCHITECTURE,
    })
}

/// The architecture that `config.json` names.
pub(crate) fn find(fields: &ConfigFields) -> Result<&'static Architecture, ConfigError> {
    let classes = fields.get("architectures");
    let named = |class: &str| {
        classes.is_none_or(|names| names.as_array().is_some_and(|names| names.contains(&json!(class))))
    };
    let Some(model_type) = fields.string("model_type")? else {
        let classes = classes.ok_or_else(|| fields.missing("architectures"))?;
        let by_class = ALL.into_iter().find(|architecture| named(architecture.class));
        return by_class.ok_or_else(|| fields.unsupported("architectures", classes));
    };
    let Some(found) = ALL.into_iter().find(|architecture| architecture.model_type == model_type) else {
        return Err(fields.unsupported("model_type", &json!(model_type)));
    };
    match classes {
        Some(classes) if !named(found.class) => Err(fields.unsupported("architectures", classes)),
        _ => Ok(found),
    }
}

/// Gives every layer the window of `sliding_window` tokens; absent, it is `default`.
fn window_in_all_layers(
    fields: &ConfigFields,
    config: &mut DecoderConfig,
    default: Option<u32>,
) -> Result<(), ConfigError> {
    fields.only("layer_types", &[])?;
    let window = read_window(fields, config, default)?;
    config.layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(())
}

/// Gives the layers that are of type `sliding_attention` a window, in a model that says so with `use_sliding_window`; without
/// `layer_types`, those that `is_sliding` names.
fn window_in_some_layers(
    fields: &ConfigFields,
    config: &mut DecoderConfig,
    default: Option<u32>,
    is_sliding: impl Fn(usize, &LayerConfig) -> bool,
) -> Result<(), ConfigError> {
    let used = fields.bool("use_sliding_window")?.unwrap_or(false);
    let window = if used { read_window(fields, config, default)? } else { None };
    let types = read_layer_types(fields, config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let sliding = match &types {
            Some(types) => types[i],
            None => used && is_sliding(i, layer),
        };
        if sliding && !used {
            let layer_types = fields.get("layer_types").cloned().unwrap_or_default();
            let expected = "no `sliding_attention` where `use_sliding_window` is not true";
            return Err(fields.invalid("layer_types", &layer_types, expected));
        }
        layer.window = window.filter(|_| sliding);
    }
    Ok(())
}

/// Experts that there may be in a layer, far above any model.
const EXPERTS_MAX: usize = 1 << 12;

/// What a sparse architecture's fields are called, and what they stand for when absent.
struct ExpertFields {
    count: (&'static str, usize),
    per_token: usize,
    /// The field of the width inside an expert.
    intermediate_size: (&'static str, usize),
    names: ExpertNames,
}

/// Reads the experts, whose shares add up to one.
fn read_experts(fields: &ConfigFields, of: &ExpertFields) -> Result<ExpertsConfig, ConfigError> {
    let (field, default) = of.count;
    let count = fields.whole(field, 1..=EXPERTS_MAX)?.unwrap_or(default);
    let per_token = fields.whole("num_experts_per_tok", 1..=EXPERTS_MAX)?.unwrap_or(of.per_token);
    if per_token > count {
        let expected = format!("no more than {count} experts");
        return Err(fields.invalid("num_experts_per_tok", &json!(per_token), &expected));
    }
    let (field, default) = of.intermediate_size;
    let intermediate_size = fields.whole(field, 1..=HIDDEN_MAX)?.unwrap_or(default);
    Ok(ExpertsConfig { count, per_token, intermediate_size, normalised: true, names: of.names })
}

/// Tokens that a row sees, its own included; none when that is as long as any sequence.
fn read_window(
    fields: &ConfigFields,
    config: &DecoderConfig,
    default: Option<u32>,
) -> Result<Option<u32>, ConfigError> {
    let given = fields.whole("sliding_window", 1..=crate::config::POSITIONS_MAX)?.map(|window| window as u32);
    let window = if fields.names("sliding_window") { given } else { default };
    Ok(window.filter(|window| *window < config.max_position_embeddings))
}

/// For each layer whether it is a `sliding_attention`.
fn read_layer_types(fields: &ConfigFields, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let Some(given) = fields.get("layer_types") else { return Ok(None) };
    let sliding = |layer: &Value| match layer.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    };
    let types: Option<Vec<bool>> =
        given.as_array().and_then(|layers| layers.iter().map(sliding).collect::<Option<_>>());
    let types = types.ok_or_else(|| fields.unsupported("layer_types", given))?;
    if types.len() == layers {
        return Ok(Some(types));
    }
    Err(fields.invalid("layer_types", given, &format!("a type for each of {layers} layers")))
}
