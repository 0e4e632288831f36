//! From a GGUF's metadata to the configuration of its decoder: as the `config.json` that the model had before it was converted, so
//! that one place knows each architecture, and then what a GGUF has differently.
//! Source: `conversion/*.py` of llama.cpp, which write the metadata, and `llama-model.cpp` and `models/*.cpp`, which read it.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::config_error::GgufConfigError;
use super::config_rope::{self, is_divisors};
use super::error::GgufError;
use super::file::Gguf;
use super::known_keys::{Verdict, judge};
use super::metadata::Metadata;
use super::names::is_used;
use super::value::{Array, Value};
use crate::config::DecoderConfig;
use crate::config_fields::ConfigError;

const ARCHITECTURE: &str = "general.architecture";
const TYPE: &str = "general.type";
const QUANTIZATION_VERSION: &str = "general.quantization_version";
const TOKENS: &str = "tokenizer.ggml.tokens";
const EMBEDDING: &str = "token_embd.weight";

/// `GGML_QNT_VERSION`: what the bits of quantised blocks mean.
const QUANTIZATION_VERSION_READ: u64 = 2;

/// One architecture of GGUF.
struct Family {
    /// `general.architecture`.
    name: &'static str,
    /// `model_type` in `config.json`.
    model_type: &'static str,
    /// `model_type` where it has experts; none where it cannot have them.
    with_experts: Option<&'static str>,
    /// Whether heads are stored for pairs of neighbours (2i, 2i+1): `LLAMA_ROPE_TYPE_NORM`.
    interleaved_heads: bool,
}

const FAMILIES: [Family; 8] = [
    Family { name: "llama", model_type: "llama", with_experts: Some("mixtral"), interleaved_heads: true },
    Family { name: "smollm3", model_type: "smollm3", with_experts: None, interleaved_heads: true },
    Family { name: "qwen2", model_type: "qwen2", with_experts: None, interleaved_heads: false },
    Family { name: "qwen3", model_type: "qwen3", with_experts: None, interleaved_heads: false },
    Family {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        with_experts: Some("qwen3_moe"),
        interleaved_heads: false,
    },
    Family { name: "gemma2", model_type: "gemma2", with_experts: None, interleaved_heads: false },
    Family { name: "gemma3", model_type: "gemma3_text", with_experts: None, interleaved_heads: false },
    Family { name: "phi3", model_type: "phi3", with_experts: None, interleaved_heads: false },
];

/// Whether an architecture of this name is computed.
pub(super) fn is_computed(architecture: &str) -> bool {
    FAMILIES.iter().any(|family| family.name == architecture)
}

/// Tokens that end an answer whatever the metadata says, by their text. Source: `llama-vocab.cpp` of llama.cpp.
pub(super) const ENDS: [&str; 8] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
];

/// Reads the configuration of a GGUF's decoder. A key or tensor that would change the result and that is not computed is refused by
/// name.
pub fn read_config(gguf: &Gguf) -> Result<DecoderConfig, GgufConfigError> {
    let source = Source::new(gguf)?;
    source.refuse_unknown_keys()?;
    let mut fields = Fields::default();
    let experts = source.write_sizes(&mut fields)?;
    source.write_windows(&mut fields)?;
    source.write_gemma(&mut fields)?;
    config_rope::write(&source, &mut fields)?;
    source.write_tokens(&mut fields)?;
    let mut config = fields.read(source.file())?;
    config.interleaved_heads = source.family.interleaved_heads;
    // Converters add the one.
    config.norm_offset = false;
    let has = |name: &str| gguf.contains(&format!("blk.0.{name}.bias"));
    config.qkv_bias = has("attn_q") || has("attn_qkv");
    config.o_bias = has("attn_output");
    config.mlp_bias = has("ffn_down");
    config_rope::adapt(&source, &mut config)?;
    source.refuse_unknown_tensors(&config, experts)?;
    Ok(config)
}

/// A GGUF of an architecture that is computed.
pub(super) struct Source<'a> {
    pub(super) gguf: &'a Gguf,
    family: &'static Family,
}

impl<'a> Source<'a> {
    fn new(gguf: &'a Gguf) -> Result<Self, GgufConfigError> {
        let metadata = gguf.metadata();
        let unsupported = |key: &str| unsupported(metadata, key);
        if metadata.string(TYPE)?.is_some_and(|kind| kind != "model") {
            return Err(unsupported(TYPE));
        }
        if metadata.whole(QUANTIZATION_VERSION)?.is_some_and(|version| version != QUANTIZATION_VERSION_READ) {
            return Err(unsupported(QUANTIZATION_VERSION));
        }
        let name = metadata.required(ARCHITECTURE, metadata.string(ARCHITECTURE))?;
        let family = FAMILIES.iter().find(|family| family.name == name);
        Ok(Self { gguf, family: family.ok_or_else(|| unsupported(ARCHITECTURE))? })
    }

    pub(super) fn file(&self) -> &'a Path {
        self.gguf.path()
    }

    pub(super) fn metadata(&self) -> &'a Metadata {
        self.gguf.metadata()
    }

    /// `general.architecture`.
    pub(super) fn architecture(&self) -> &'static str {
        self.family.name
    }

    /// A key of the architecture.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.name)
    }

    pub(super) fn unsupported(&self, name: &str) -> GgufConfigError {
        unsupported(self.metadata(), &self.key(name))
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, GgufError> {
        self.metadata().whole(&self.key(name))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.metadata().number(&self.key(name))
    }

    /// A whole number for all layers: one, or an array of equal ones.
    fn uniform(&self, name: &str) -> Result<Option<u64>, GgufConfigError> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.metadata().get(&key) else { return Ok(self.whole(name)?) };
        let layers = array.as_integers().unwrap_or_default();
        match layers.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => {
                let refused = |_| self.metadata().refused(&key, "whole numbers of 0 or more");
                Ok(Some(u64::try_from(*first).map_err(refused)?))
            }
            _ => Err(self.metadata().refused(&key, "a whole number, the same for all layers").into()),
        }
    }

    fn required<T>(&self, name: &str, read: Option<T>) -> Result<T, GgufError> {
        self.metadata().required(&self.key(name), Ok(read))
    }

    /// Elements of a head.
    pub(super) fn head_dim(&self) -> Result<u64, GgufConfigError> {
        if let Some(head_dim) = self.whole("attention.key_length")? {
            return Ok(head_dim);
        }
        let hidden = self.required("embedding_length", self.whole("embedding_length")?)?;
        let heads = self.required("attention.head_count", self.uniform("attention.head_count")?)?;
        match hidden.checked_rem(heads) {
            Some(0) => Ok(hidden / heads),
            _ => {
                let expected = format!("a divisor of the embedding length of {hidden}");
                Err(self.metadata().refused(&self.key("attention.head_count"), &expected).into())
            }
        }
    }

    /// Whether there are experts.
    fn write_sizes(&self, fields: &mut Fields) -> Result<bool, GgufConfigError> {
        let mut size = |field, name: &str| {
            let size = self.required(name, self.uniform(name)?)?;
            fields.set(field, size, self.key(name));
            Ok::<u64, GgufConfigError>(size)
        };
        size("hidden_size", "embedding_length")?;
        size("num_hidden_layers", "block_count")?;
        size("max_position_embeddings", "context_length")?;
        size("intermediate_size", "feed_forward_length")?;
        let heads = size("num_attention_heads", "attention.head_count")?;
        let kv_heads = self.uniform("attention.head_count_kv")?.unwrap_or(heads);
        fields.set("num_key_value_heads", kv_heads, self.key("attention.head_count_kv"));
        let head_dim = self.head_dim()?;
        fields.set("head_dim", head_dim, self.key("attention.key_length"));
        if self.whole("attention.value_length")?.is_some_and(|value| value != head_dim) {
            return Err(self.unsupported("attention.value_length"));
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        fields.set("rms_norm_eps", self.required(epsilon, self.number(epsilon)?)?, self.key(epsilon));
        fields.set("vocab_size", self.vocabulary()?, EMBEDDING.to_owned());
        fields.set("tie_word_embeddings", !self.gguf.contains("output.weight"), "output.weight".to_owned());
        self.write_experts(fields)
    }

    /// Rows of the embedding: the tokenizer may have fewer.
    fn vocabulary(&self) -> Result<usize, GgufConfigError> {
        match self.gguf.tensor(EMBEDDING) {
            Some(tensor) => Ok(tensor.shape[0]),
            None => {
                let (file, tensor) = (self.file().to_owned(), EMBEDDING.to_owned());
                Err(GgufError::NotFound { file, tensor }.into())
            }
        }
    }

    fn write_experts(&self, fields: &mut Fields) -> Result<bool, GgufConfigError> {
        let count = self.whole("expert_count")?.unwrap_or(0);
        if count == 0 && self.family.name != "qwen3moe" {
            fields.set("model_type", self.family.model_type, ARCHITECTURE.to_owned());
            return Ok(false);
        }
        let model_type = self.family.with_experts.ok_or_else(|| self.unsupported("expert_count"))?;
        fields.set("model_type", model_type, ARCHITECTURE.to_owned());
        let field = if model_type == "mixtral" { "num_local_experts" } else { "num_experts" };
        fields.set(field, count, self.key("expert_count"));
        let used = self.required("expert_used_count", self.uniform("expert_used_count")?)?;
        fields.set("num_experts_per_tok", used, self.key("expert_used_count"));
        if model_type == "qwen3_moe" {
            let name = "expert_feed_forward_length";
            fields.set("moe_intermediate_size", self.required(name, self.uniform(name)?)?, self.key(name));
            fields.set("norm_topk_prob", true, ARCHITECTURE.to_owned());
        }
        Ok(true)
    }

    fn write_windows(&self, fields: &mut Fields) -> Result<(), GgufConfigError> {
        let name = "attention.sliding_window";
        let window = self.whole(name)?;
        match (self.family.name, window.filter(|window| *window > 0)) {
            // `null` is none; Gemma 2 has a usual one.
            ("gemma2", None) if window.is_none() => {}
            ("gemma2" | "gemma3" | "phi3", window) => fields.set("sliding_window", window, self.key(name)),
            ("llama", Some(window)) if fields.get("model_type") == Some(&json!("llama")) => {
                fields.set("model_type", "mistral", self.key(name));
                fields.set("sliding_window", window, self.key(name));
            }
            ("llama", Some(window)) => fields.set("sliding_window", window, self.key(name)),
            (_, Some(_)) => return Err(self.unsupported(name)),
            (_, None) => {}
        }
        let period = match self.family.name {
            "gemma2" => 2,
            "gemma3" if window.is_some_and(|window| window > 0) => 6,
            "gemma3" => 1,
            _ => return Ok(()),
        };
        let name = "attention.sliding_window_pattern";
        let types = self.layer_types(name, period, fields)?;
        fields.set("layer_types", types, self.key(name));
        Ok(())
    }

    /// Every `period`-th layer sees everything, as `set_swa_pattern` has it, unless the metadata has another period or says it for
    /// each layer. A period of 1 is that of a model without windows.
    fn layer_types(&self, name: &str, period: u64, fields: &Fields) -> Result<Json, GgufConfigError> {
        let layer_type = |sliding| if sliding { "sliding_attention" } else { "full_attention" };
        // Refused with the other sizes when it is larger, before anything is made of it.
        let layers = fields.get("num_hidden_layers").and_then(Json::as_u64).unwrap_or(0).min(LAYERS_MAX);
        let sliding: Vec<bool> = match self.metadata().get(&self.key(name)) {
            _ if period == 1 => vec![false; layers as usize],
            Some(Value::Array(Array::Bool(sliding))) => sliding.clone(),
            Some(Value::Array(array)) => {
                let refused =
                    || self.metadata().refused(&self.key(name), "a period, or 0 or 1 for each layer");
                array.as_integers().ok_or_else(refused)?.iter().map(|layer| *layer != 0).collect()
            }
            _ => {
                let period = self.whole(name)?.unwrap_or(period);
                (0..layers).map(|i| period == 0 || i % period != period - 1).collect()
            }
        };
        Ok(sliding.into_iter().map(layer_type).collect())
    }

    fn write_gemma(&self, fields: &mut Fields) -> Result<(), GgufConfigError> {
        // As `LLM_TYPE_27B`: the models whose queries are scaled by another width than that of a head.
        let layers_27b = match self.family.name {
            "gemma2" => 46,
            "gemma3" => 62,
            _ => return Ok(()),
        };
        let head_dim = self.head_dim()?;
        let hidden = self.required("embedding_length", self.whole("embedding_length")?)?;
        let heads = self.required("attention.head_count", self.uniform("attention.head_count")?)?;
        let is_27b = self.whole("block_count")? == Some(layers_27b);
        let scaled_by = if is_27b { hidden.checked_div(heads).unwrap_or(head_dim) } else { head_dim };
        fields.set("query_pre_attn_scalar", scaled_by, self.key("attention.head_count"));
        for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
            // 0 is none, which is null there.
            if let Some(cap) = self.number(field)? {
                fields.set(field, Some(cap).filter(|cap| *cap != 0.0), self.key(field));
            }
        }
        Ok(())
    }

    fn write_tokens(&self, fields: &mut Fields) -> Result<(), GgufConfigError> {
        let metadata = self.metadata();
        let bos = "tokenizer.ggml.bos_token_id";
        if let Some(id) = metadata.u32(bos)? {
            fields.set("bos_token_id", id, bos.to_owned());
        }
        let mut ends: Vec<u64> = Vec::new();
        for name in ["eos", "eot", "eom"] {
            ends.extend(metadata.u32(&format!("tokenizer.ggml.{name}_token_id"))?.map(u64::from));
        }
        let tokens = metadata.strings(TOKENS)?.unwrap_or_default();
        ends.extend((0..).zip(tokens).filter(|(_, token)| ENDS.contains(&token.as_str())).map(|(id, _)| id));
        let mut seen = std::collections::HashSet::new();
        ends.retain(|id| seen.insert(*id));
        fields.set("eos_token_id", ends, "tokenizer.ggml.eos_token_id".to_owned());
        Ok(())
    }

    fn refuse_unknown_keys(&self) -> Result<(), GgufConfigError> {
        let prefix = self.key("");
        for (key, value) in self.metadata().iter() {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            match judge(self.family.name, name, value) {
                Verdict::Fine => {}
                Verdict::Unsupported => return Err(self.unsupported(name)),
                Verdict::Unknown => {
                    let (file, key) = (self.file().to_owned(), key.to_owned());
                    return Err(GgufConfigError::UnknownKey { file, key });
                }
            }
        }
        Ok(())
    }

    fn refuse_unknown_tensors(&self, config: &DecoderConfig, experts: bool) -> Result<(), GgufConfigError> {
        let used = |name: &str| is_divisors(name) || is_used(config, experts, name);
        match self.gguf.tensors().find(|tensor| !used(&tensor.name)) {
            Some(tensor) => Err(self.unknown_tensor(&tensor.name)),
            None => Ok(()),
        }
    }

    pub(super) fn unknown_tensor(&self, tensor: &str) -> GgufConfigError {
        GgufConfigError::UnknownTensor { file: self.file().to_owned(), tensor: tensor.to_owned() }
    }
}

/// As many as `config.json` may have, so that a number in a file makes no long list.
const LAYERS_MAX: u64 = 1 << 12;

fn unsupported(metadata: &Metadata, key: &str) -> GgufConfigError {
    let found = match metadata.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.describe().trim_matches('`').to_owned(),
        None => "missing".to_owned(),
    };
    GgufConfigError::Unsupported { file: metadata.file().to_owned(), key: key.to_owned(), found }
}

/// A `config.json` in the making.
#[derive(Default)]
pub(super) struct Fields {
    object: Map<String, Json>,
    /// Which key each field comes from.
    keys: Vec<(&'static str, String)>,
}

impl Fields {
    pub(super) fn set(&mut self, field: &'static str, value: impl Into<Json>, key: String) {
        self.object.insert(field.to_owned(), value.into());
        self.keys.retain(|(other, _)| *other != field);
        self.keys.push((field, key));
    }

    fn get(&self, field: &str) -> Option<&Json> {
        self.object.get(field)
    }

    fn read(&self, file: &Path) -> Result<DecoderConfig, GgufConfigError> {
        let json = Json::Object(self.object.clone()).to_string();
        DecoderConfig::from_named_json("config of the GGUF", json.as_bytes()).map_err(|source| {
            let key = self.key_of(&source).unwrap_or(ARCHITECTURE).to_owned();
            GgufConfigError::Refused { file: file.to_owned(), key, source: Box::new(source) }
        })
    }

    fn key_of(&self, error: &ConfigError) -> Option<&str> {
        let path = error.field()?;
        let field = path.split('.').next()?;
        self.keys.iter().find(|(name, _)| *name == field).map(|(_, key)| key.as_str())
    }
}
