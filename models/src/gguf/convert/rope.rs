//! The rotary embedding: keys, and tensors of what frequencies are divided by.

use std::f64::consts::TAU;

use super::error::ConvertError;
use super::from_folder::Source;
use super::keys::{float, named, whole};
use super::plan::{Content, PlannedTensor};
use crate::config::RopeConfig;
use crate::config_fields::{ConfigError, ConfigFields};
use crate::gguf::Value;
use crate::rope::RopeScaling;

/// llama.cpp's, which a file need not have.
const BETAS_USUAL: (f64, f64) = (32.0, 1.0);

/// `rope.…`.
pub(super) fn keys(source: &Source<'_>) -> Result<Vec<(String, Value)>, ConvertError> {
    let config = source.config();
    let rope = &config.ropes[0];
    let mut keys = Vec::new();
    match &rope.scaling {
        Some(RopeScaling::Linear { factor }) => {
            keys.push(("rope.scaling.type", text("linear")));
            keys.push(("rope.scaling.factor", float(*factor)));
        }
        Some(RopeScaling::Yarn {
            factor, beta_fast, beta_slow, original_max_position_embeddings, ..
        }) => {
            keys.push(("rope.scaling.type", text("yarn")));
            keys.push(("rope.scaling.factor", float(*factor)));
            keys.push((
                "rope.scaling.original_context_length",
                Value::U32(*original_max_position_embeddings),
            ));
            if (*beta_fast, *beta_slow) != BETAS_USUAL {
                keys.push(("rope.scaling.yarn_beta_fast", float(*beta_fast)));
                keys.push(("rope.scaling.yarn_beta_slow", float(*beta_slow)));
            }
        }
        Some(RopeScaling::LongRope { attention_factor, long, .. }) => {
            // Phi-3's files go without the type, as does its converter.
            if source.target.architecture != "phi3" {
                keys.push(("rope.scaling.type", text("longrope")));
            }
            keys.push(("rope.scaling.attn_factor", float(*attention_factor)));
            let original = match long {
                Some(long) => long.original_max_position_embeddings,
                None => config.max_position_embeddings,
            };
            keys.push(("rope.scaling.original_context_length", Value::U32(original)));
        }
        None | Some(RopeScaling::Llama3 { .. }) => {}
    }
    if source.target.architecture != "gemma2" || rope.theta != 10_000.0 {
        keys.push(("rope.freq_base", float(rope.theta)));
    }
    if let Some(local) = config.ropes.get(1) {
        keys.push(("rope.freq_base_swa", float(local.theta)));
    }
    if matches!(source.target.architecture, "llama" | "smollm3" | "phi3") {
        keys.push(("rope.dimension_count", whole(config.rotary_dim)));
    }
    Ok(named(source, keys))
}

/// The divisors, in tensors of their own.
pub(super) fn tensors(source: &Source<'_>) -> Result<Vec<PlannedTensor>, ConvertError> {
    let config = source.config();
    let tensor = |name: &str, divisors: &[f64]| PlannedTensor {
        name: name.to_owned(),
        shape: vec![divisors.len()],
        content: Content::Numbers(divisors.iter().map(|divisor| *divisor as f32).collect()),
    };
    match &config.ropes[0].scaling {
        Some(RopeScaling::Llama3 { .. }) => {
            Ok(vec![tensor("rope_freqs.weight", &llama3_divisors(&config.ropes[0], config.rotary_dim))])
        }
        Some(RopeScaling::LongRope { short_factor, .. }) => {
            let long = long_factor(&source.fields, short_factor.len())?;
            Ok(vec![
                tensor("rope_factors_long.weight", &long),
                tensor("rope_factors_short.weight", short_factor),
            ])
        }
        _ => Ok(Vec::new()),
    }
}

/// What each pair's frequency is divided by. Source: `_compute_llama3_parameters` of transformers.
fn llama3_divisors(rope: &RopeConfig, rotary_dim: usize) -> Vec<f64> {
    let Some(RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings,
    }) = rope.scaling
    else {
        return Vec::new();
    };
    let original = f64::from(original_max_position_embeddings);
    let divisor = |i: usize| {
        let wavelength = TAU * rope.theta.powf(2.0 * i as f64 / rotary_dim as f64);
        if wavelength < original / high {
            return 1.0;
        }
        if wavelength > original / low {
            return factor;
        }
        let kept = (original / wavelength - low) / (high - low);
        1.0 / ((1.0 - kept) / factor + kept)
    };
    (0..rotary_dim / 2).map(divisor).collect()
}

/// The divisors for sequences beyond the first training, which llama.cpp wants even where none is so long.
fn long_factor(fields: &ConfigFields, pairs: usize) -> Result<Vec<f64>, ConfigError> {
    let scaling = fields.object("rope_scaling")?.filter(|table| !table.is_empty());
    let table = scaling.map_or_else(|| fields.object("rope_parameters"), |table| Ok(Some(table)))?;
    let table = table.ok_or_else(|| fields.missing("rope_scaling"))?;
    table.positives("long_factor", pairs)?.ok_or_else(|| table.missing("long_factor"))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
