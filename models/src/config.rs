//! `config.json` of a Llama-family decoder.

use serde_json::{Value, json};

use crate::WeightDtype;
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::{RopeScaling, read_rope};

/// Limits far above any model that exists; below them no product of two sizes overflows.
const HIDDEN_MAX: usize = 1 << 20;
const LAYERS_MAX: usize = 1 << 12;
const HEADS_MAX: usize = 1 << 14;
const HEAD_DIM_MAX: usize = 1 << 14;
const VOCAB_MAX: usize = 1 << 24;
pub(crate) const POSITIONS_MAX: usize = 1 << 30;

const DEFAULT_SIZES: [(&str, usize); 5] = [
    ("hidden_size", 4096),
    ("intermediate_size", 11_008),
    ("num_hidden_layers", 32),
    ("num_attention_heads", 32),
    ("vocab_size", 32_000),
];

/// Shape and constants of a Llama decoder, checked: sizes are above zero, `num_attention_heads` is a multiple
/// of `num_key_value_heads` and `head_dim` is even.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head; even. Not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Rows of the embedding; may exceed the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched; `None` is plain rotary embedding.
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence in tokens, prompt and answer together.
    pub max_position_embeddings: u32,
    /// Whether `lm_head` is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj`, `v_proj` and `o_proj` have a bias.
    pub attention_bias: bool,
    /// Whether `gate_proj`, `up_proj` and `down_proj` have a bias.
    pub mlp_bias: bool,
    /// Token that starts a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer, unless `generation_config.json` names others.
    pub eos_token_ids: Vec<u32>,
    /// The dtype that the checkpoint was trained in; the weights say for themselves what they are.
    pub dtype: Option<WeightDtype>,
}

impl LlamaConfig {
    /// Reads the content of a `config.json`. Absent fields take the defaults of transformers' `LlamaConfig`,
    /// except sizes, which must be given. A feature that tokenway does not compute is refused, by field and
    /// value.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let fields = ConfigFields::parse("config.json", json)?;
        refuse_other_architectures(&fields)?;
        Self::from_fields(&fields, None)
    }

    /// Reads `text_config`, the language model of a vision-language one. Sizes may be absent there: old checkpoints leave out
    /// what equals transformers' defaults, which are those of the Llama of 7 billion parameters.
    pub(crate) fn from_text_config(fields: &ConfigFields) -> Result<Self, ConfigError> {
        let text = fields.object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
        text.only("model_type", &[json!("llama")])?;
        let mut config = Self::from_fields(&text, Some(DEFAULT_SIZES))?;
        if text.get("tie_word_embeddings").is_none() {
            config.tie_word_embeddings = fields.bool("tie_word_embeddings")?.unwrap_or(false);
        }
        Ok(config)
    }

    fn from_fields(fields: &ConfigFields, defaults: Option<[(&str, usize); 5]>) -> Result<Self, ConfigError> {
        refuse_unsupported(fields)?;
        let size = |field: &str, max| {
            let default = defaults.iter().flatten().find(|(name, _)| *name == field).map(|(_, size)| *size);
            fields.whole(field, 1..=max)?.or(default).ok_or_else(|| fields.missing(field))
        };
        let hidden_size = size("hidden_size", HIDDEN_MAX)?;
        let num_attention_heads = size("num_attention_heads", HEADS_MAX)?;
        let positions = fields.whole("max_position_embeddings", 1..=POSITIONS_MAX)?.unwrap_or(2048);
        let (rope_theta, rope_scaling) = read_rope(fields, positions)?;
        Ok(Self {
            hidden_size,
            intermediate_size: size("intermediate_size", HIDDEN_MAX)?,
            num_hidden_layers: size("num_hidden_layers", LAYERS_MAX)?,
            num_attention_heads,
            num_key_value_heads: read_key_value_heads(fields, num_attention_heads)?,
            head_dim: read_head_dim(fields, hidden_size, num_attention_heads)?,
            vocab_size: size("vocab_size", VOCAB_MAX)?,
            rms_norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            max_position_embeddings: positions as u32,
            tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: fields.bool("attention_bias")?.unwrap_or(false),
            mlp_bias: fields.bool("mlp_bias")?.unwrap_or(false),
            bos_token_id: fields.token_id("bos_token_id")?,
            eos_token_ids: fields.token_ids("eos_token_id")?,
            dtype: read_dtype(fields)?,
        })
    }
}

fn refuse_other_architectures(fields: &ConfigFields) -> Result<(), ConfigError> {
    fields.only("model_type", &[json!("llama")])?;
    let Some(architectures) = fields.get("architectures") else {
        return match fields.get("model_type") {
            Some(_) => Ok(()),
            None => Err(fields.missing("architectures")),
        };
    };
    let named = architectures.as_array().is_some_and(|names| names.contains(&json!("LlamaForCausalLM")));
    if named { Ok(()) } else { Err(fields.unsupported("architectures", architectures)) }
}

fn refuse_unsupported(fields: &ConfigFields) -> Result<(), ConfigError> {
    fields.only("hidden_act", &[json!("silu")])?;
    fields.only("pretraining_tp", &[json!(1)])?;
    fields.only("is_encoder_decoder", &[json!(false)])?;
    for field in ["sliding_window", "attention_chunk_size", "quantization_config", "compression_config"] {
        fields.only(field, &[])?;
    }
    match fields.get("layer_types") {
        Some(Value::Array(layers)) if layers.iter().all(|layer| layer == "full_attention") => Ok(()),
        Some(layers) => Err(fields.unsupported("layer_types", layers)),
        None => Ok(()),
    }
}

fn read_key_value_heads(fields: &ConfigFields, heads: usize) -> Result<usize, ConfigError> {
    let kv_heads = fields.whole("num_key_value_heads", 1..=HEADS_MAX)?.unwrap_or(heads);
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(fields.invalid(
        "num_key_value_heads",
        &json!(kv_heads),
        &format!("a divisor of {heads} attention heads"),
    ))
}

fn read_head_dim(fields: &ConfigFields, hidden_size: usize, heads: usize) -> Result<usize, ConfigError> {
    let head_dim = match fields.whole("head_dim", 1..=HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let expected = format!("a divisor of a hidden size of {hidden_size}");
            return Err(fields.invalid("num_attention_heads", &json!(heads), &expected));
        }
    };
    if head_dim.is_multiple_of(2) {
        return Ok(head_dim);
    }
    Err(fields.invalid("head_dim", &json!(head_dim), "an even number: rotary embedding turns pairs"))
}

fn read_dtype(fields: &ConfigFields) -> Result<Option<WeightDtype>, ConfigError> {
    let field = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match fields.string(field)? {
        None | Some("auto") => Ok(None),
        Some("float32") => Ok(Some(WeightDtype::F32)),
        Some("float16") => Ok(Some(WeightDtype::F16)),
        Some("bfloat16") => Ok(Some(WeightDtype::Bf16)),
        Some(other) => Err(fields.unsupported(field, &json!(other))),
    }
}
