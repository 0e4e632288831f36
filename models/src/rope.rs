//! Rotary embedding parameters of `config.json`, in the three forms that have been written.

use serde_json::json;

use crate::config::{POSITIONS_MAX, RopeConfig};
use crate::config_fields::{ConfigError, ConfigFields};

/// How rotary frequencies are stretched beyond the length that a model was first trained on.
#[derive(Debug, Clone, PartialEq)]
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
    /// Pairs that turn seldom within the first training's length are divided by `factor`, those that turn often are kept, those
    /// between interpolated. Source: YaRN, arXiv:2309.00071.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns above which a pair is kept.
        beta_fast: f64,
        /// Turns below which a pair is divided.
        beta_slow: f64,
        /// Whether the first and last pair between are rounded outwards to whole pairs.
        truncate: bool,
        /// Length in tokens of the first training.
        original_max_position_embeddings: u32,
        /// Cosines and sines are multiplied by this.
        attention_factor: f64,
    },
    /// Each frequency is divided by a factor of its own. A GGUF has the factors of Llama 3.1 in this form.
    /// Source: LongRoPE, arXiv:2402.13753.
    LongRope {
        /// Divisors: `[rotary_dim / 2]`.
        short_factor: Vec<f64>,
        /// What holds for longer sequences; none where all have the same divisors.
        long: Option<LongFactor>,
        /// Cosines and sines are multiplied by this.
        attention_factor: f64,
    },
}

/// The divisors of sequences that are longer than the first training, from their first token on.
#[derive(Debug, Clone, PartialEq)]
pub struct LongFactor {
    /// Length in tokens of the first training.
    pub original_max_position_embeddings: u32,
    /// Divisors: `[rotary_dim / 2]`.
    pub long_factor: Vec<f64>,
}

/// The rotary embedding of a model.
pub(crate) struct Rope {
    pub(crate) config: RopeConfig,
    /// Elements of a head that are turned.
    pub(crate) rotary_dim: usize,
    /// Longest sequence.
    pub(crate) positions: usize,
}

/// How an architecture's rotary embedding may differ from a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotary {
    /// All of a head is turned, and alike in all layers.
    Whole,
    /// A part of each head is turned where `partial_rotary_factor` says so.
    Partial,
    /// `rope_parameters` may have one for each type of layer.
    ByLayerType,
    /// All of a head is turned, its pairs by one of three axes each.
    Axes,
}

/// Reads the rotary embedding, of layers of full attention where they are told apart; absent fields are those of `usual`, whose
/// `rotary_dim` is a whole head.
///
/// Up to transformers 4, `rope_theta` stands beside `rope_scaling`, whose kind is `rope_type` or `type`; from
/// 5 on all of it is in `rope_parameters`. As there, `rope_scaling` wins when both are given.
pub(crate) fn read_rope(fields: &ConfigFields, usual: &Rope, rotary: Rotary) -> Result<Rope, ConfigError> {
    let rope = Rope {
        config: RopeConfig {
            theta: fields.positive("rope_theta")?.unwrap_or(usual.config.theta),
            scaling: None,
            sections: None,
        },
        rotary_dim: read_rotary_dim(fields, usual.rotary_dim, rotary)?.unwrap_or(usual.rotary_dim),
        positions: usual.positions,
    };
    let legacy = fields.object("rope_scaling")?.filter(|table| !table.is_empty());
    let table = legacy.map_or_else(|| fields.object("rope_parameters"), |table| Ok(Some(table)))?;
    if rotary == Rotary::Axes {
        return read_axes(fields, table, rope);
    }
    let Some(table) = table else { return Ok(rope) };
    match table.objects().next() {
        None => read_table(fields, &table, rope, (usual.rotary_dim, rotary)),
        Some(_) if rotary == Rotary::ByLayerType => match table.object("full_attention")? {
            Some(table) => read_table(fields, &table, rope, (usual.rotary_dim, rotary)),
            None => Ok(rope),
        },
        Some((layer_type, parameters)) => Err(table.unsupported(layer_type, parameters)),
    }
}

/// Reads the rotary embedding of layers of type `sliding_attention`, of an architecture that has one of their own.
pub(crate) fn read_local_rope(fields: &ConfigFields, theta: f64) -> Result<RopeConfig, ConfigError> {
    let theta = fields.positive("rope_local_base_freq")?.unwrap_or(theta);
    let mut local = RopeConfig { theta, scaling: None, sections: None };
    let Some(table) = fields.object("rope_parameters")? else { return Ok(local) };
    let Some(table) = table.object("sliding_attention")? else { return Ok(local) };
    table.only("rope_type", &[json!("default")])?;
    local.theta = table.positive("rope_theta")?.unwrap_or(local.theta);
    Ok(local)
}

/// `rope` with the pairs of each axis. Stretched frequencies are refused. Source of the default: `Qwen2_5_VLRotaryEmbedding` of
/// transformers.
fn read_axes(
    fields: &ConfigFields,
    table: Option<ConfigFields>,
    mut rope: Rope,
) -> Result<Rope, ConfigError> {
    let pairs = rope.rotary_dim / 2;
    let mut sections = None;
    if let Some(table) = table {
        for kind_field in ["rope_type", "type"] {
            table.only(kind_field, &[json!("default"), json!("mrope")])?;
        }
        read_rotary_dim(&table, rope.rotary_dim, Rotary::Axes)?;
        rope.config.theta = table.positive("rope_theta")?.unwrap_or(rope.config.theta);
        sections = table.three_parts("mrope_section", pairs)?;
    }
    const USUAL: [usize; 3] = [16, 24, 24];
    if sections.is_none() && pairs != USUAL.iter().sum::<usize>() {
        return Err(fields.missing("rope_scaling.mrope_section"));
    }
    rope.config.sections = Some(sections.unwrap_or(USUAL));
    Ok(rope)
}

/// `rope` as `table` changes it.
fn read_table(
    fields: &ConfigFields,
    table: &ConfigFields,
    mut rope: Rope,
    (head_dim, rotary): (usize, Rotary),
) -> Result<Rope, ConfigError> {
    rope.config.theta = table.positive("rope_theta")?.unwrap_or(rope.config.theta);
    if let Some(rotary_dim) = read_rotary_dim(table, head_dim, rotary)? {
        rope.rotary_dim = rotary_dim;
    }
    let own = table.whole("original_max_position_embeddings", 1..=POSITIONS_MAX)?;
    let original = fields.whole("original_max_position_embeddings", 1..=POSITIONS_MAX)?.or(own);
    let original = original.unwrap_or(rope.positions);
    rope.config.scaling = read_scaling(table, &rope, original)?;
    if let Some(RopeScaling::Yarn { factor, .. }) = &rope.config.scaling {
        let stretched = (factor * original as f64).min(POSITIONS_MAX as f64) as usize;
        rope.positions = rope.positions.max(stretched);
    }
    Ok(rope)
}

/// The share of a head that is turned, as elements; none where it is not given.
fn read_rotary_dim(
    fields: &ConfigFields,
    head_dim: usize,
    rotary: Rotary,
) -> Result<Option<usize>, ConfigError> {
    if rotary != Rotary::Partial {
        fields.only("partial_rotary_factor", &[json!(1), json!(1.0)])?;
    }
    let Some(share) = fields.positive("partial_rotary_factor")? else { return Ok(None) };
    let rotary_dim = (head_dim as f64 * share) as usize;
    if share <= 1.0 && rotary_dim > 0 && rotary_dim.is_multiple_of(2) {
        return Ok(Some(rotary_dim));
    }
    let expected = format!("a share of heads of {head_dim} elements that is an even number of them");
    Err(fields.invalid("partial_rotary_factor", &json!(share), &expected))
}

/// `rope` is without scaling, `original` the length of the first training.
fn read_scaling(
    table: &ConfigFields,
    rope: &Rope,
    original: usize,
) -> Result<Option<RopeScaling>, ConfigError> {
    let required = |field: &str| table.positive(field)?.ok_or_else(|| table.missing(field));
    let kind_field = if table.get("rope_type").is_some() { "rope_type" } else { "type" };
    match table.string(kind_field)? {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: required("factor")? })),
        // Up to `max_position_embeddings`, beyond which no sequence goes, the frequencies are those without scaling.
        Some("dynamic") => required("factor").map(|_| None),
        Some("llama3") => {
            let low_freq_factor = required("low_freq_factor")?;
            let high_freq_factor = required("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("more than the low_freq_factor of {low_freq_factor}");
                return Err(table.invalid("high_freq_factor", &json!(high_freq_factor), &expected));
            }
            Ok(Some(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original as u32,
            }))
        }
        Some("yarn") => read_yarn(table, rope, original).map(Some),
        Some("longrope" | "su") => read_longrope(table, rope, original).map(Some),
        Some(other) => Err(table.unsupported(kind_field, &json!(other))),
    }
}

/// Source of the defaults: `_compute_yarn_parameters` of transformers.
fn read_yarn(table: &ConfigFields, rope: &Rope, original: usize) -> Result<RopeScaling, ConfigError> {
    let factor = table.positive("factor")?.unwrap_or(rope.positions as f64 / original as f64);
    if rope.config.theta <= 1.0 {
        return Err(table.invalid("rope_theta", &json!(rope.config.theta), "more than 1"));
    }
    let beta_fast = table.positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = table.positive("beta_slow")?.unwrap_or(1.0);
    if beta_fast <= beta_slow {
        return Err(table.invalid(
            "beta_fast",
            &json!(beta_fast),
            &format!("more than the beta_slow of {beta_slow}"),
        ));
    }
    let growth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let scales = (table.not_negative("mscale")?, table.not_negative("mscale_all_dim")?);
    let usual = match scales {
        (Some(scale), Some(all)) if scale > 0.0 && all > 0.0 => growth(scale) / growth(all),
        _ => growth(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        truncate: table.bool("truncate")?.unwrap_or(true),
        original_max_position_embeddings: original as u32,
        attention_factor: table.positive("attention_factor")?.unwrap_or(usual),
    })
}

/// Source of the defaults: `_compute_longrope_parameters` of transformers.
fn read_longrope(table: &ConfigFields, rope: &Rope, original: usize) -> Result<RopeScaling, ConfigError> {
    if original < 2 {
        return Err(table.invalid("original_max_position_embeddings", &json!(original), "2 or more"));
    }
    let divisors =
        |field: &str| table.positives(field, rope.rotary_dim / 2)?.ok_or_else(|| table.missing(field));
    let short_factor = divisors("short_factor")?;
    let long = (rope.positions > original).then(|| divisors("long_factor")).transpose()?;
    let long =
        long.map(|long_factor| LongFactor { original_max_position_embeddings: original as u32, long_factor });
    let factor = table.positive("factor")?.unwrap_or(rope.positions as f64 / original as f64);
    let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    Ok(RopeScaling::LongRope {
        short_factor,
        long,
        attention_factor: table.positive("attention_factor")?.unwrap_or(usual),
    })
}
