//! `config.json`: what is read, and what is refused by name.

use models::{ConfigError, LlamaConfig, RopeScaling, WeightDtype};
use serde_json::{Value, json};

fn plain() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 256,
        "max_position_embeddings": 512,
    })
}

/// The plain configuration with some fields replaced; null stands for absent.
fn with(changes: Value) -> Result<LlamaConfig, ConfigError> {
    let mut config = plain();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    LlamaConfig::from_json(config.to_string().as_bytes())
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.rms_norm_eps, config.rope_theta, config.rope_scaling), (1e-6, 10_000.0, None));
    assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    assert_eq!((config.bos_token_id, config.dtype), (None, None));
    assert!(config.eos_token_ids.is_empty());
}

#[test]
fn given_fields_are_read() {
    let config = with(json!({
        "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
        "attention_bias": true, "mlp_bias": true, "bos_token_id": 1, "eos_token_id": [2, 3], "torch_dtype": "bfloat16",
        "hidden_act": "silu", "pretraining_tp": 1, "sliding_window": null, "layer_types": ["full_attention", "full_attention"],
    }))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (2, 32));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-5, 500_000.0));
    assert!(config.tie_word_embeddings && config.attention_bias && config.mlp_bias);
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2, 3]));
    assert_eq!(config.dtype, Some(WeightDtype::Bf16));
    assert_eq!(with(json!({"dtype": "float32", "eos_token_id": 2})).unwrap().dtype, Some(WeightDtype::F32));
}

#[test]
fn each_unsupported_feature_is_refused_by_field() {
    for (changes, field) in [
        (json!({"model_type": "mistral"}), "model_type"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "architectures"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"pretraining_tp": 2}), "pretraining_tp"),
        (json!({"is_encoder_decoder": true}), "is_encoder_decoder"),
        (json!({"sliding_window": 4096}), "sliding_window"),
        (json!({"attention_chunk_size": 128}), "attention_chunk_size"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config"),
        (json!({"compression_config": {}}), "compression_config"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types"),
        (json!({"torch_dtype": "float8_e4m3fn"}), "torch_dtype"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_scaling.rope_type"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "rope_scaling.type"),
        (json!({"rope_parameters": {"rope_type": "longrope"}}), "rope_parameters.rope_type"),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "rope_parameters.partial_rotary_factor"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "rope_parameters.full_attention",
        ),
    ] {
        let error = with(changes.clone()).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Unsupported { field: named, .. } if named == field),
            "{changes}: {error}"
        );
    }
}

#[test]
fn each_impossible_value_is_refused_by_field() {
    for (changes, field) in [
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"hidden_size": 1_u64 << 60}), "hidden_size"),
        (json!({"intermediate_size": -1}), "intermediate_size"),
        (json!({"num_hidden_layers": 2.5}), "num_hidden_layers"),
        (json!({"num_attention_heads": "4"}), "num_attention_heads"),
        (json!({"num_attention_heads": 3}), "num_attention_heads"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 8}), "num_key_value_heads"),
        (json!({"head_dim": 15}), "head_dim"),
        (json!({"vocab_size": 0}), "vocab_size"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
        (json!({"rms_norm_eps": 0.0}), "rms_norm_eps"),
        (json!({"rope_theta": -1}), "rope_theta"),
        (json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings"),
        (json!({"eos_token_id": [2, -1]}), "eos_token_id"),
        (json!({"bos_token_id": [1]}), "bos_token_id"),
        (json!({"rope_scaling": "linear"}), "rope_scaling"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0}}), "rope_scaling.factor"),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}}),
            "rope_scaling.high_freq_factor",
        ),
    ] {
        let error = with(changes.clone()).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Invalid { field: named, .. } if named == field),
            "{changes}: {error}"
        );
    }
}

#[test]
fn each_missing_size_is_named() {
    let sizes =
        ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"];
    for field in sizes {
        let error = with(json!({ field: null })).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Missing { field: named, .. } if named == field),
            "{field}: {error}"
        );
    }
    let error = with(json!({"model_type": null, "architectures": null})).unwrap_err();
    assert!(matches!(&error, ConfigError::Missing { field, .. } if field == "architectures"));
    let error = with(json!({"rope_scaling": {"rope_type": "linear"}})).unwrap_err();
    assert!(matches!(&error, ConfigError::Missing { field, .. } if field == "rope_scaling.factor"));
}

#[test]
fn rope_is_read_in_all_three_forms() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    let table = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    });
    let mut v5 = table.clone();
    v5["rope_theta"] = json!(500_000.0);
    let legacy = with(json!({"rope_theta": 500000.0, "rope_scaling": table})).unwrap();
    let current = with(json!({"rope_parameters": v5})).unwrap();
    let oldest = with(json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!((legacy.rope_theta, legacy.rope_scaling), (500_000.0, Some(llama3)));
    assert_eq!((current.rope_theta, current.rope_scaling), (500_000.0, Some(llama3)));
    assert_eq!(
        (oldest.rope_theta, oldest.rope_scaling),
        (10_000.0, Some(RopeScaling::Linear { factor: 2.0 }))
    );
    assert_eq!(with(json!({"rope_parameters": {"rope_type": "default"}})).unwrap().rope_scaling, None);
}

#[test]
fn what_is_not_an_object_is_refused() {
    for json in ["", "[]", "{", "null"] {
        assert!(matches!(LlamaConfig::from_json(json.as_bytes()), Err(ConfigError::Json { .. })), "{json}");
    }
}
