//! What a model is: the numbers that its configuration gives, whether it would be served or not.

use models::DecoderConfig;
use models::gguf::{Metadata, Value};
use serde::Serialize;
use serde_json::Value as Json;

use crate::memory::KvShape;

/// What is said of a model. A number that is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `architectures` of `config.json`, or `general.architecture`.
    pub architecture: Option<String>,
    /// `model_type` of `config.json`.
    pub model_type: Option<String>,
    /// Decoder layers.
    pub layers: Option<u64>,
    /// Width of the hidden state.
    pub hidden_size: Option<u64>,
    /// Query heads.
    pub heads: Option<u64>,
    /// Key and value heads; the most that a layer has.
    pub kv_heads: Option<u64>,
    /// Elements of a head.
    pub head_dim: Option<u64>,
    /// Experts of a layer.
    pub experts: Option<u64>,
    /// Rows of the embedding.
    pub vocab_size: Option<u64>,
    /// Longest sequence in tokens.
    pub context: Option<u64>,
}

impl Facts {
    /// Reads a `config.json`, or its `text_config` where it has one. Names: the configurations of transformers.
    pub fn of_config_json(config: &Json) -> Self {
        let text = config.get("text_config").filter(|text| text.is_object()).unwrap_or(config);
        let number = |names: &[&str]| names.iter().find_map(|name| text[*name].as_u64());
        let (hidden_size, heads) =
            (number(&["hidden_size", "n_embd", "d_model"]), number(&["num_attention_heads", "n_head"]));
        Self {
            architecture: config["architectures"][0].as_str().map(str::to_owned),
            model_type: config["model_type"].as_str().map(str::to_owned),
            layers: number(&["num_hidden_layers", "n_layer", "num_layers"]),
            hidden_size,
            heads,
            kv_heads: number(&["num_key_value_heads"]).or(heads),
            head_dim: number(&["head_dim"]).or_else(|| hidden_size?.checked_div(heads?)),
            experts: number(&["num_local_experts", "num_experts", "n_routed_experts"]),
            vocab_size: number(&["vocab_size"]),
            context: number(&["max_position_embeddings", "n_positions", "n_ctx"]),
        }
    }

    /// Reads the keys of a GGUF's architecture. Names: `docs/gguf.md` of ggml.
    pub fn of_gguf(metadata: &Metadata) -> Self {
        let architecture = metadata.string("general.architecture").ok().flatten();
        let number = |name: &str| largest(metadata.get(&format!("{}.{name}", architecture?))?);
        let (hidden_size, heads) = (number("embedding_length"), number("attention.head_count"));
        let tokens = match metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => Some(tokens.len() as u64),
            _ => None,
        };
        Self {
            architecture: architecture.map(str::to_owned),
            model_type: None,
            layers: number("block_count"),
            hidden_size,
            heads,
            kv_heads: number("attention.head_count_kv").or(heads),
            head_dim: number("attention.key_length").or_else(|| hidden_size?.checked_div(heads?)),
            experts: number("expert_count").filter(|count| *count > 0),
            vocab_size: number("vocab_size").or(tokens),
            context: number("context_length"),
        }
    }

    /// Takes the numbers of a configuration that was read, defaults included.
    pub fn fill(&mut self, config: &DecoderConfig) {
        let number = |size: usize| Some(size as u64);
        self.layers = number(config.num_hidden_layers);
        self.hidden_size = number(config.hidden_size);
        self.heads = number(config.num_attention_heads);
        self.kv_heads = number(config.num_key_value_heads);
        self.head_dim = number(config.head_dim);
        self.experts = config.experts.map(|experts| experts.count as u64);
        self.vocab_size = number(config.vocab_size);
        self.context = Some(u64::from(config.max_position_embeddings));
    }

    /// What a token takes in the KV cache, where all is said that decides it.
    pub fn kv_shape(&self) -> Option<KvShape> {
        Some(KvShape { layers: self.layers?, kv_heads: self.kv_heads?, head_dim: self.head_dim? })
    }
}

/// A number, or the largest of those that the layers have.
fn largest(value: &Value) -> Option<u64> {
    match value {
        Value::Array(layers) => u64::try_from(layers.as_integers()?.into_iter().max()?).ok(),
        value => u64::try_from(value.as_integer()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_come_from_the_text_config_and_heads_from_what_is_there() {
        let config = json!({
            "architectures": ["X"], "model_type": "x",
            "text_config": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
        });
        let facts = Facts::of_config_json(&config);
        assert_eq!((facts.architecture.as_deref(), facts.model_type.as_deref()), (Some("X"), Some("x")));
        assert_eq!(facts.kv_shape(), Some(KvShape { layers: 2, kv_heads: 4, head_dim: 16 }));
        assert_eq!(facts.context, None);
    }

    #[test]
    fn strange_values_are_facts_that_are_absent() {
        let config =
            json!({"architectures": "X", "hidden_size": 64, "num_attention_heads": 0, "n_layer": -1});
        let facts = Facts::of_config_json(&config);
        assert_eq!((facts.architecture, facts.head_dim, facts.layers), (None, None, None));
        assert_eq!(Facts::of_config_json(&json!([1])), Facts::default());
    }
}
