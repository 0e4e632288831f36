//! The rotary embedding of a GGUF's decoder.
//! Source: `load_hparams` of `llama-model.cpp` and `llama-context.cpp` of llama.cpp.

use serde_json::{Value as Json, json};

use super::config::{Fields, Source};
use super::config_error::GgufConfigError;
use super::tensor_type::TensorType;
use super::value::shortest_decimal;
use crate::config::DecoderConfig;
use crate::rope::RopeScaling;

/// What Llama 3 stretches its frequencies by, pair by pair.
const FREQUENCY_DIVISORS: &str = "rope_freqs.weight";
/// What LongRoPE does, for sequences up to the length of the first training and for longer ones.
const SHORT_DIVISORS: &str = "rope_factors_short.weight";
const LONG_DIVISORS: &str = "rope_factors_long.weight";

/// What llama.cpp takes where there is no base.
pub(super) const THETA_USUAL: f64 = 10_000.0;

/// Whether a tensor belongs to the rotary embedding.
pub(super) fn is_divisors(tensor: &str) -> bool {
    matches!(tensor, FREQUENCY_DIVISORS | SHORT_DIVISORS | LONG_DIVISORS)
}

/// Writes the fields of the rotary embedding.
pub(super) fn write(source: &Source<'_>, fields: &mut Fields) -> Result<(), GgufConfigError> {
    let theta = source.number("rope.freq_base")?.unwrap_or(THETA_USUAL);
    fields.set("rope_theta", theta, source.key("rope.freq_base"));
    let local = source.number("rope.freq_base_swa")?;
    match source.architecture() {
        "gemma3" => {
            let local = local.unwrap_or(THETA_USUAL);
            fields.set("rope_local_base_freq", local, source.key("rope.freq_base_swa"));
        }
        _ if local.is_some_and(|local| local != theta) => {
            return Err(source.unsupported("rope.freq_base_swa"));
        }
        _ => {}
    }
    let head_dim = source.head_dim()?;
    match source.whole("rope.dimension_count")?.filter(|turned| *turned != head_dim) {
        Some(turned) if source.architecture() == "phi3" => {
            let share = turned as f64 / head_dim as f64;
            fields.set("partial_rotary_factor", share, source.key("rope.dimension_count"));
        }
        Some(_) => return Err(source.unsupported("rope.dimension_count")),
        None => {}
    }
    if let Some(scaling) = scaling(source)? {
        fields.set("rope_scaling", scaling, source.key("rope.scaling.type"));
    }
    Ok(())
}

/// `rope_scaling`; none where frequencies are as they are.
fn scaling(source: &Source<'_>) -> Result<Option<Json>, GgufConfigError> {
    let kind = source.metadata().string(&source.key("rope.scaling.type"))?;
    let has_divisors = source.gguf.contains(SHORT_DIVISORS);
    let kind = kind.unwrap_or(if has_divisors { "longrope" } else { "linear" });
    let attention_factor = source.number("rope.scaling.attn_factor")?.unwrap_or(1.0);
    if has_divisors && kind != "longrope" {
        return Err(source.unknown_tensor(SHORT_DIVISORS));
    }
    if attention_factor != 1.0 && kind != "longrope" {
        return Err(source.unsupported("rope.scaling.attn_factor"));
    }
    // 0 is none.
    let factor = match source.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => source.number("rope.scale_linear")?,
    };
    let factor = factor.filter(|factor| *factor != 0.0);
    let original = source.whole("rope.scaling.original_context_length")?;
    match kind {
        "none" => Ok(None),
        "linear" => Ok(factor
            .filter(|factor| *factor != 1.0)
            .map(|factor| json!({ "rope_type": "linear", "factor": factor }))),
        "yarn" => Ok(Some(json!({
            "rope_type": "yarn",
            "factor": factor.unwrap_or(1.0),
            "original_max_position_embeddings": original,
            "attention_factor": source.number("rope.scaling.yarn_attn_factor")?,
            "beta_fast": source.number("rope.scaling.yarn_beta_fast")?,
            "beta_slow": source.number("rope.scaling.yarn_beta_slow")?,
        }))),
        "longrope" => Ok(Some(json!({
            "rope_type": "longrope",
            "short_factor": divisors(source, SHORT_DIVISORS)?,
            "long_factor": long_divisors(source)?,
            "original_max_position_embeddings": original,
            "attention_factor": attention_factor,
        }))),
        _ => Err(source.unsupported("rope.scaling.type")),
    }
}

/// What the fields could not say.
pub(super) fn adapt(source: &Source<'_>, config: &mut DecoderConfig) -> Result<(), GgufConfigError> {
    // A share is not exact.
    let turned = source.whole("rope.dimension_count")?;
    if turned.is_some_and(|turned| turned != config.rotary_dim as u64) {
        return Err(source.unsupported("rope.dimension_count"));
    }
    if !source.gguf.contains(FREQUENCY_DIVISORS) {
        return Ok(());
    }
    let plain = config.ropes.len() == 1 && config.ropes[0].scaling.is_none();
    let divisors = divisors(source, FREQUENCY_DIVISORS)?;
    if !plain || divisors.len() != config.rotary_dim / 2 {
        return Err(source.unknown_tensor(FREQUENCY_DIVISORS));
    }
    config.ropes[0].scaling =
        Some(RopeScaling::LongRope { short_factor: divisors, long: None, attention_factor: 1.0 });
    Ok(())
}

/// Those of longer sequences; none in a file without.
fn long_divisors(source: &Source<'_>) -> Result<Option<Vec<f64>>, GgufConfigError> {
    source.gguf.contains(LONG_DIVISORS).then(|| divisors(source, LONG_DIVISORS)).transpose()
}

/// The numbers of a tensor that frequencies are divided by.
fn divisors(source: &Source<'_>, name: &str) -> Result<Vec<f64>, GgufConfigError> {
    let tensor = source.gguf.get_shared(name)?;
    let (numbers, _) = tensor.bytes().as_chunks::<4>();
    let divisors: Vec<f64> =
        numbers.iter().map(|number| shortest_decimal(f32::from_le_bytes(*number))).collect();
    let sound = divisors.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0);
    if tensor.tensor_type == TensorType::F32 && tensor.shape.len() == 1 && sound {
        return Ok(divisors);
    }
    Err(GgufConfigError::Divisors { file: source.file().to_owned(), tensor: name.to_owned() })
}
