//! `config.json` of a decoder.

use serde_json::json;

use crate::WeightDtype;
use crate::architecture::{self, Architecture, Defaults};
use crate::config_fields::{ConfigError, ConfigFields};
use crate::rope::{Rope, RopeScaling, read_rope};
use crate::ternary::TernaryConfig;

/// Limits far above any model that exists; below them no product of two sizes overflows.
pub(crate) const HIDDEN_MAX: usize = 1 << 20;
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

/// What one layer does differently from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerConfig {
    /// How many tokens a row sees, its own included; all before it where there is none.
    pub window: Option<u32>,
    /// Which of the model's rotary embeddings turns queries and keys; none where positions are not known.
    pub rope: Option<usize>,
    /// Whether the model's experts stand in place of its MLP.
    pub experts: bool,
}

/// The experts of a sparse model: MLPs of which each row goes through a few. Source: arXiv:2401.04088, sec. 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// How many there are in a layer.
    pub count: usize,
    /// Through how many each row goes.
    pub per_token: usize,
    /// Width inside each.
    pub intermediate_size: usize,
    /// Whether the shares of those that are chosen add up to one.
    pub normalised: bool,
    /// How the checkpoint names them.
    pub names: ExpertNames,
}

/// What stands behind `model.layers.{i}.` in a checkpoint, without `.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    /// What gives each expert its logit.
    pub router: &'static str,
    /// Behind it stands an expert's number.
    pub experts: &'static str,
    /// `gate_proj` of an expert.
    pub gate: &'static str,
    /// `up_proj` of an expert.
    pub up: &'static str,
    /// `down_proj` of an expert.
    pub down: &'static str,
}

/// What the gate of an MLP goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by the tangent: `gelu_pytorch_tanh`. Source: arXiv:1606.08415.
    GeluTanh,
    /// The square of what is above zero: `relu2`. Source: arXiv:2109.08668.
    Relu2,
}

/// A rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched; none is plain rotary embedding.
    pub scaling: Option<RopeScaling>,
    /// How many pairs are turned by time, by row and by column, in this order, of all pairs; none where a position is one number.
    /// Source: M-RoPE, arXiv:2409.12191, sec. 2.1.
    pub sections: Option<[usize; 3]>,
}

/// Shape and constants of a decoder of RMSNorm, grouped-query attention and gated MLPs, checked: sizes are above zero,
/// `num_attention_heads` is a multiple of `num_key_value_heads`; `head_dim` and `rotary_dim` are even.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP, not inside an expert.
    pub intermediate_size: usize,
    /// The experts of the layers that have some.
    pub experts: Option<ExpertsConfig>,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// One for each decoder layer.
    pub layers: Vec<LayerConfig>,
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
    /// How many elements of a head are turned, from its first on; even.
    pub rotary_dim: usize,
    /// Whether the rows of `q_proj` and `k_proj` are ordered for pairs of neighbours (2i, 2i+1) within a head, as in a GGUF; else
    /// for (i, i + rotary_dim/2).
    pub interleaved_heads: bool,
    /// The rotary embeddings; layers have the first unless they name another.
    pub ropes: Vec<RopeConfig>,
    /// Longest sequence in tokens, prompt and answer together.
    pub max_position_embeddings: u32,
    /// Whether `lm_head` is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias.
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias.
    pub o_bias: bool,
    /// Whether each head of queries and keys is normed before it is turned.
    pub qk_norm: bool,
    /// Whether what attention and MLP give is normed before it is added.
    pub sandwich_norms: bool,
    /// Whether what attention and gates give is normed before `o_proj` and `down_proj`.
    pub sub_norms: bool,
    /// Whether norms scale by one more than their weights.
    pub norm_offset: bool,
    /// What gates go through.
    pub activation: Activation,
    /// What embeddings are multiplied by.
    pub embedding_scale: Option<f64>,
    /// What products of queries and keys are multiplied by.
    pub attention_scale: f64,
    /// Scores are bent smoothly into ± this.
    pub attention_softcap: Option<f64>,
    /// Logits are bent smoothly into ± this.
    pub logit_softcap: Option<f64>,
    /// Whether the checkpoint has `qkv_proj` and `gate_up_proj` in place of their parts.
    pub fused: bool,
    /// Whether `gate_proj`, `up_proj` and `down_proj` have a bias.
    pub mlp_bias: bool,
    /// Linear layers of ternary weights; none where they are plain.
    pub ternary: Option<TernaryConfig>,
    /// Token that starts a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer, unless `generation_config.json` names others.
    pub eos_token_ids: Vec<u32>,
    /// The dtype that the checkpoint was trained in; the weights say for themselves what they are.
    pub dtype: Option<WeightDtype>,
}

impl DecoderConfig {
    /// Where the rotary embedding of sequences longer than this is another one from their first token on, this length in tokens.
    pub fn short_length(&self) -> Option<u32> {
        self.ropes.iter().find_map(|rope| match &rope.scaling {
            Some(RopeScaling::LongRope { long: Some(long), .. }) => {
                Some(long.original_max_position_embeddings)
            }
            _ => None,
        })
    }

    /// Reads the content of a `config.json`. Absent fields take the defaults that transformers has for the architecture,
    /// except sizes, which must be given. A feature that tokenway does not compute is refused, by field and
    /// value.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        Self::from_named_json("config.json", json)
    }

    /// As [`Self::from_json`], of a file that errors call `file`.
    pub(crate) fn from_named_json(file: &'static str, json: &[u8]) -> Result<Self, ConfigError> {
        let fields = ConfigFields::parse(file, json)?;
        Self::from_fields(&fields, architecture::find(&fields)?, None)
    }

    /// Reads the language model of a vision-language one: `text_config`, or with Qwen2.5-VL, whose checkpoints on the Hub have none,
    /// all of `fields`. Sizes may be absent in the others: old checkpoints leave out what equals transformers' defaults, which are
    /// those of the Llama of 7 billion parameters.
    pub(crate) fn from_text_config(fields: &ConfigFields) -> Result<Self, ConfigError> {
        let architecture = architecture::of_vision_language(fields)?;
        if architecture.model_type == "qwen2_5_vl" {
            return Self::from_qwen2_5_vl(fields, architecture);
        }
        let text = fields.object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
        text.only("model_type", &[json!("llama")])?;
        let mut config = Self::from_fields(&text, architecture, Some(DEFAULT_SIZES))?;
        if text.get("tie_word_embeddings").is_none() {
            config.tie_word_embeddings = fields.bool("tie_word_embeddings")?.unwrap_or(false);
        }
        Ok(config)
    }

    fn from_qwen2_5_vl(fields: &ConfigFields, architecture: &Architecture) -> Result<Self, ConfigError> {
        let text = fields.object("text_config")?;
        if let Some(text) = &text {
            text.only("model_type", &[json!("qwen2_5_vl_text"), json!("qwen2_5_vl")])?;
        }
        let mut config = Self::from_fields(text.as_ref().unwrap_or(fields), architecture, None)?;
        config.tie_word_embeddings |= fields.bool("tie_word_embeddings")?.unwrap_or(false);
        Ok(config)
    }

    fn from_fields(
        fields: &ConfigFields,
        architecture: &Architecture,
        sizes: Option<[(&str, usize); 5]>,
    ) -> Result<Self, ConfigError> {
        refuse_unsupported(fields)?;
        architecture.refuse_other_activations(fields)?;
        let size = |field: &str, max| {
            let default = sizes.iter().flatten().find(|(name, _)| *name == field).map(|(_, size)| *size);
            fields.whole(field, 1..=max)?.or(default).ok_or_else(|| fields.missing(field))
        };
        let defaults = &architecture.defaults;
        let hidden_size = size("hidden_size", HIDDEN_MAX)?;
        let num_attention_heads = size("num_attention_heads", HEADS_MAX)?;
        let num_hidden_layers = size("num_hidden_layers", LAYERS_MAX)?;
        let head_dim = read_head_dim(fields, defaults, hidden_size, num_attention_heads)?;
        let positions = fields.whole("max_position_embeddings", 1..=POSITIONS_MAX)?;
        let usual_rope = Rope {
            config: RopeConfig { theta: defaults.rope_theta, scaling: None, sections: None },
            rotary_dim: head_dim,
            positions: positions.unwrap_or(defaults.max_position_embeddings),
        };
        let rope = read_rope(fields, &usual_rope, architecture.rotary)?;
        let mut config = Self {
            hidden_size,
            intermediate_size: size("intermediate_size", HIDDEN_MAX)?,
            experts: None,
            num_hidden_layers,
            layers: vec![LayerConfig { window: None, rope: Some(0), experts: false }; num_hidden_layers],
            num_attention_heads,
            num_key_value_heads: read_key_value_heads(fields, defaults, num_attention_heads)?,
            head_dim,
            vocab_size: size("vocab_size", VOCAB_MAX)?,
            rms_norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
            rotary_dim: rope.rotary_dim,
            interleaved_heads: false,
            ropes: vec![rope.config],
            max_position_embeddings: rope.positions as u32,
            tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
            qkv_bias: false,
            o_bias: false,
            qk_norm: false,
            sandwich_norms: false,
            sub_norms: false,
            norm_offset: false,
            activation: architecture.activation,
            embedding_scale: None,
            attention_scale: 1.0 / (head_dim as f64).sqrt(),
            attention_softcap: None,
            logit_softcap: None,
            fused: false,
            mlp_bias: false,
            ternary: None,
            bos_token_id: fields.token_id("bos_token_id")?,
            eos_token_ids: fields.token_ids("eos_token_id")?,
            dtype: read_dtype(fields)?,
        };
        (architecture.adapt)(fields, &mut config)?;
        if config.ternary.is_none() {
            fields.only("quantization_config", &[])?;
        }
        Ok(config)
    }
}

fn refuse_unsupported(fields: &ConfigFields) -> Result<(), ConfigError> {
    fields.only("is_encoder_decoder", &[json!(false)])?;
    for field in ["attention_chunk_size", "compression_config"] {
        fields.only(field, &[])?;
    }
    Ok(())
}

fn read_key_value_heads(
    fields: &ConfigFields,
    defaults: &Defaults,
    heads: usize,
) -> Result<usize, ConfigError> {
    // Null, unlike absence, stands for as many as query heads.
    let default = defaults.num_key_value_heads.filter(|_| !fields.names("num_key_value_heads"));
    let kv_heads =
        fields.whole("num_key_value_heads", 1..=HEADS_MAX)?.unwrap_or_else(|| default.unwrap_or(heads));
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(fields.invalid(
        "num_key_value_heads",
        &json!(kv_heads),
        &format!("a divisor of {heads} attention heads"),
    ))
}

fn read_head_dim(
    fields: &ConfigFields,
    defaults: &Defaults,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    let head_dim = match fields.whole("head_dim", 1..=HEAD_DIM_MAX)?.or(defaults.head_dim) {
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
