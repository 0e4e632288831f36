//! Rotary embedding parameters of `config.json`, in the three forms that have been written.

use serde_json::json;

use crate::config::POSITIONS_MAX;
use crate::config_fields::{ConfigError, ConfigFields};

/// How rotary frequencies are stretched beyond the length that a model was first trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Long wavelengths are divided by `factor`, short ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept; above
        /// `low_freq_factor`.
        high_freq_factor: f64,
        /// Length in tokens of the first training.
        original_max_position_embeddings: u32,
    },
    /// Every frequency is divided by `factor`.
    Linear {
        /// Divisor of all frequencies.
        factor: f64,
    },
}

/// Reads `rope_theta` and the scaling of a model with `max_position_embeddings` positions.
///
/// Up to transformers 4, `rope_theta` stands beside `rope_scaling`, whose kind is `rope_type` or `type`; from
/// 5 on all of it is in `rope_parameters`. As there, `rope_scaling` wins when both are given.
pub(crate) fn read_rope(
    fields: &ConfigFields,
    max_position_embeddings: usize,
) -> Result<(f64, Option<RopeScaling>), ConfigError> {
    let theta = fields.positive("rope_theta")?.unwrap_or(10_000.0);
    fields.only("partial_rotary_factor", &[json!(1), json!(1.0)])?;

    let legacy = fields.object("rope_scaling")?.filter(|table| !table.is_empty());
    let Some(table) = legacy.map_or_else(|| fields.object("rope_parameters"), |table| Ok(Some(table)))?
    else {
        return Ok((theta, None));
    };
    table.only("partial_rotary_factor", &[json!(1), json!(1.0)])?;
    if let Some((layer_type, parameters)) = table.objects().next() {
        return Err(table.unsupported(layer_type, parameters)); // a rotary embedding for each type of layer
    }
    let original = fields.whole("original_max_position_embeddings", 1..=POSITIONS_MAX)?;
    let scaling = read_scaling(&table, original, max_position_embeddings)?;
    Ok((table.positive("rope_theta")?.unwrap_or(theta), scaling))
}

fn read_scaling(
    table: &ConfigFields,
    original: Option<usize>,
    max_position_embeddings: usize,
) -> Result<Option<RopeScaling>, ConfigError> {
    let required = |field: &str| table.positive(field)?.ok_or_else(|| table.missing(field));
    let kind_field = if table.get("rope_type").is_some() { "rope_type" } else { "type" };
    match table.string(kind_field)? {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: required("factor")? })),
        Some("llama3") => {
            let low_freq_factor = required("low_freq_factor")?;
            let high_freq_factor = required("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("more than the low_freq_factor of {low_freq_factor}");
                return Err(table.invalid("high_freq_factor", &json!(high_freq_factor), &expected));
            }
            let own = table.whole("original_max_position_embeddings", 1..=POSITIONS_MAX)?;
            Ok(Some(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original.or(own).unwrap_or(max_position_embeddings) as u32,
            }))
        }
        Some(other) => Err(table.unsupported(kind_field, &json!(other))),
    }
}
