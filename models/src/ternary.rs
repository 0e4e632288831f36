//! Ternary linear layers, as `quantization_config` asks for them.
//! Source: `BitNetQuantConfig` and `integrations/bitnet.py` of transformers.

use serde_json::json;

use crate::config_fields::{ConfigError, ConfigFields};

/// Linear layers of weights of -1, 0 and 1 and activations of eight bits: all within the decoder's layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TernaryConfig {
    /// What they are.
    pub linears: TernaryLinears,
    /// Where each norms its input before it rounds it, by an `rms_norm` of its own: what is added to the mean square.
    pub norm_eps: Option<f64>,
}

/// How a checkpoint has ternary weights, and what is done with their scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TernaryLinears {
    /// `BitLinear`: packed; products are divided by `weight_scale` before a bias is added.
    Divided,
    /// `AutoBitLinear`, offline: packed; products, a bias included, are multiplied by `weight_scale`.
    Multiplied,
    /// `AutoBitLinear`, online: as they were trained; they become ternary when they are used.
    Trained,
}

impl TernaryConfig {
    /// Reads `quantization_config`; none where there is none. Another method is refused, and so is a choice of modules other than
    /// transformers' own, which leaves `lm_head` as it is.
    pub(crate) fn read(fields: &ConfigFields) -> Result<Option<Self>, ConfigError> {
        let Some(table) = fields.object("quantization_config")? else { return Ok(None) };
        if table.get("quant_method") != Some(&json!("bitnet")) {
            let value = fields.get("quantization_config").cloned().unwrap_or_default();
            return Err(fields.unsupported("quantization_config", &value));
        }
        table.only("modules_to_not_convert", &[json!(["lm_head"])])?;
        table.only("linear_class", &[json!("bitlinear"), json!("autobitlinear")])?;
        table.only("quantization_mode", &[json!("offline"), json!("online")])?;
        let is = |field: &str, value: &str| table.get(field) == Some(&json!(value));
        // A `BitLinear` does not ask for the mode.
        let linears = match (is("linear_class", "autobitlinear"), is("quantization_mode", "online")) {
            (false, _) => TernaryLinears::Divided,
            (true, false) => TernaryLinears::Multiplied,
            (true, true) => TernaryLinears::Trained,
        };
        let norm_eps = match table.bool("use_rms_norm")?.unwrap_or(false) {
            true => Some(table.positive("rms_norm_eps")?.unwrap_or(1e-6)),
            false => None,
        };
        Ok(Some(Self { linears, norm_eps }))
    }
}
