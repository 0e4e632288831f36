//! `config.json`: what is read, and what is refused by name.

use models::{
    Activation, ConfigError, DecoderConfig, RopeConfig, RopeScaling, TernaryConfig, TernaryLinears,
    WeightDtype,
};
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

fn rope(theta: f64, scaling: Option<RopeScaling>) -> RopeConfig {
    RopeConfig { theta, scaling, sections: None }
}

/// The plain configuration with some fields replaced; null stands for absent.
fn with(changes: Value) -> Result<DecoderConfig, ConfigError> {
    let mut config = plain();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    DecoderConfig::from_json(config.to_string().as_bytes())
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.rms_norm_eps, config.ropes), (1e-6, vec![rope(10_000.0, None)]));
    assert!(!config.tie_word_embeddings && !config.qkv_bias && !config.o_bias && !config.mlp_bias);
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
    assert_eq!((config.rms_norm_eps, &config.ropes), (1e-5, &vec![rope(500_000.0, None)]));
    assert!(config.tie_word_embeddings && config.qkv_bias && config.o_bias && config.mlp_bias);
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2, 3]));
    assert_eq!(config.dtype, Some(WeightDtype::Bf16));
    assert_eq!(with(json!({"dtype": "float32", "eos_token_id": 2})).unwrap().dtype, Some(WeightDtype::F32));
}

#[test]
fn each_unsupported_feature_is_refused_by_field() {
    for (changes, field) in [
        (json!({"model_type": "gpt2"}), "model_type"),
        (json!({"model_type": "mistral"}), "architectures"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "architectures"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"pretraining_tp": 2}), "pretraining_tp"),
        (json!({"is_encoder_decoder": true}), "is_encoder_decoder"),
        (json!({"sliding_window": 4096}), "sliding_window"),
        (json!({"attention_chunk_size": 128}), "attention_chunk_size"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config"),
        (json!({"quantization_config": {}}), "quantization_config"),
        (bitnet(json!({"linear_class": "linear"})), "quantization_config.linear_class"),
        (bitnet(json!({"quantization_mode": "later"})), "quantization_config.quantization_mode"),
        (bitnet(json!({"modules_to_not_convert": []})), "quantization_config.modules_to_not_convert"),
        (json!({"compression_config": {}}), "compression_config"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types"),
        (json!({"torch_dtype": "float8_e4m3fn"}), "torch_dtype"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"rope_scaling": {"rope_type": "mrope", "factor": 4.0}}), "rope_scaling.rope_type"),
        (json!({"rope_scaling": {"type": "ntk", "factor": 2.0}}), "rope_scaling.type"),
        (json!({"rope_parameters": {"rope_type": "proportional"}}), "rope_parameters.rope_type"),
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
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 32}}),
            "rope_scaling.beta_fast",
        ),
        (
            json!({"rope_theta": 1.0, "rope_scaling": {"type": "yarn", "factor": 4}}),
            "rope_scaling.rope_theta",
        ),
        (
            json!({"max_position_embeddings": 1, "rope_scaling": {"type": "longrope", "factor": 4}}),
            "rope_scaling.original_max_position_embeddings",
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
    assert_eq!(legacy.ropes, [rope(500_000.0, Some(llama3.clone()))]);
    assert_eq!(current.ropes, [rope(500_000.0, Some(llama3))]);
    assert_eq!(oldest.ropes, [rope(10_000.0, Some(RopeScaling::Linear { factor: 2.0 }))]);
    let plain = with(json!({"rope_parameters": {"rope_type": "default"}})).unwrap();
    assert_eq!(plain.ropes, [rope(10_000.0, None)]);
}

#[test]
fn what_is_not_an_object_is_refused() {
    for json in ["", "[]", "{", "null"] {
        assert!(matches!(DecoderConfig::from_json(json.as_bytes()), Err(ConfigError::Json { .. })), "{json}");
    }
}

/// The plain configuration as one of another architecture, with some fields replaced.
fn of(model_type: &str, class: &str, changes: Value) -> Result<DecoderConfig, ConfigError> {
    let mut all = json!({"model_type": model_type, "architectures": [class]});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    with(all)
}

/// The field of ternary linear layers.
fn bitnet(mut changes: Value) -> Value {
    changes["quant_method"] = json!("bitnet");
    json!({"quantization_config": changes})
}

/// As read from a file in which null stands for itself.
fn with_null(mut changes: Value, field: &str) -> DecoderConfig {
    let mut config = plain();
    config.as_object_mut().unwrap().append(changes.as_object_mut().unwrap());
    config[field] = Value::Null;
    DecoderConfig::from_json(config.to_string().as_bytes()).unwrap()
}

fn windows(config: &DecoderConfig) -> Vec<Option<u32>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn a_window_is_said_in_another_way_by_each_architecture() {
    let positions = json!({"num_key_value_heads": 4, "max_position_embeddings": 8192});
    let mistral = of("mistral", "MistralForCausalLM", positions.clone()).unwrap();
    assert_eq!(windows(&mistral), [Some(4096); 2], "transformers' default");
    let named = json!({
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "max_position_embeddings": 8192,
        "num_key_value_heads": 4,
    });
    assert_eq!(windows(&with_null(named, "sliding_window")), [None; 2], "null is not absent");
    let short = of("mistral", "MistralForCausalLM", json!({"num_key_value_heads": 4})).unwrap();
    assert_eq!(windows(&short), [None; 2], "longer than any sequence");

    let qwen2 = |changes: Value| {
        let mut all = positions.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        of("qwen2", "Qwen2ForCausalLM", all)
    };
    let unused = json!({"sliding_window": 64, "max_window_layers": 0});
    assert_eq!(windows(&qwen2(unused).unwrap()), [None; 2]);
    let later = json!({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 1});
    assert_eq!(windows(&qwen2(later).unwrap()), [None, Some(64)]);
    let types = json!(["sliding_attention", "full_attention"]);
    let named = json!({"use_sliding_window": true, "sliding_window": 64, "layer_types": types});
    assert_eq!(windows(&qwen2(named).unwrap()), [Some(64), None]);
    for (wrong, field) in [
        (json!({"layer_types": ["sliding_attention", "full_attention"]}), "layer_types"),
        (json!({"layer_types": ["full_attention"]}), "layer_types"),
        (json!({"use_sliding_window": true, "sliding_window": 0}), "sliding_window"),
    ] {
        let error = qwen2(wrong.clone()).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Invalid { field: named, .. } if named == field),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn layers_without_positions_are_every_fourth_or_those_named() {
    let smollm3 = |changes| of("smollm3", "SmolLM3ForCausalLM", changes);
    let rotates =
        |config: DecoderConfig| config.layers.iter().map(|layer| layer.rope.is_some()).collect::<Vec<_>>();
    let five = smollm3(json!({"num_hidden_layers": 5})).unwrap();
    assert!(five.tie_word_embeddings);
    assert_eq!(rotates(five), [true, true, true, false, true]);
    assert_eq!(rotates(smollm3(json!({"no_rope_layers": [0, 1]})).unwrap()), [false, true]);
    for wrong in [json!([1]), json!([1, 2]), json!("all")] {
        let error = smollm3(json!({"no_rope_layers": wrong})).unwrap_err();
        assert!(matches!(&error, ConfigError::Invalid { field, .. } if field == "no_rope_layers"), "{error}");
    }
}

#[test]
fn what_an_architecture_leaves_unsaid_is_its_own() {
    let qwen3 = of("qwen3", "Qwen3ForCausalLM", json!({"num_attention_heads": 32})).unwrap();
    assert_eq!((qwen3.head_dim, qwen3.num_key_value_heads), (128, 32));
    assert!(qwen3.qk_norm && !qwen3.qkv_bias);
    let qwen2 = of("qwen2", "Qwen2ForCausalLM", json!({"num_attention_heads": 32})).unwrap();
    assert!(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.qk_norm);
    let phi3 = of("phi3", "Phi3ForCausalLM", json!({"partial_rotary_factor": 0.75})).unwrap();
    assert!(phi3.fused && phi3.rms_norm_eps == 1e-5);
    assert_eq!((phi3.head_dim, phi3.rotary_dim), (16, 12));
    let odd = of("phi3", "Phi3ForCausalLM", json!({"partial_rotary_factor": 0.7})).unwrap_err();
    assert!(matches!(&odd, ConfigError::Invalid { field, .. } if field == "partial_rotary_factor"), "{odd}");
    let linear =
        of("phi3", "Phi3ForCausalLM", json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap_err();
    assert!(matches!(&linear, ConfigError::Unsupported { field, .. } if field == "rope_scaling"), "{linear}");
}

#[test]
fn stretched_rope_says_how_long_a_sequence_may_be() {
    let yarn = with(json!({
        "max_position_embeddings": 512,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    }))
    .unwrap();
    assert_eq!(yarn.max_position_embeddings, 2048);
    let Some(RopeScaling::Yarn { attention_factor, .. }) = yarn.ropes[0].scaling else {
        panic!("{:?}", yarn.ropes)
    };
    assert!((attention_factor - (0.1 * 4.0_f64.ln() + 1.0)).abs() < 1e-12);
    let table = json!({"type": "su", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8]});
    let long = |table: &Value| {
        let original = json!({"original_max_position_embeddings": 128, "max_position_embeddings": 1024, "rope_scaling": table});
        of("phi3", "Phi3ForCausalLM", original)
    };
    let longrope = long(&table).unwrap();
    assert_eq!((longrope.max_position_embeddings, longrope.short_length()), (1024, Some(128)));
    for field in ["short_factor", "long_factor"] {
        let mut wrong = table.clone();
        wrong[field] = json!([1.0]);
        let message =
            format!("`rope_scaling.{field}` is `[1.0]` in `config.json`, expected 8 numbers above 0");
        assert_eq!(long(&wrong).unwrap_err().to_string(), message);
    }
    let dynamic = with(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})).unwrap();
    assert_eq!((&dynamic.ropes, dynamic.max_position_embeddings), (&vec![rope(10_000.0, None)], 512));
}

#[test]
fn gemma_is_read_as_the_hub_has_it_and_as_transformers_writes_it() {
    let gemma2 =
        of("gemma2", "Gemma2ForCausalLM", json!({"hidden_act": "gelu", "query_pre_attn_scalar": 144}));
    let gemma2 = gemma2.unwrap();
    assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!((gemma2.attention_scale, gemma2.embedding_scale), (1.0 / 12.0, Some(8.0)));
    assert!(gemma2.sandwich_norms && gemma2.norm_offset && gemma2.activation == Activation::GeluTanh);
    let uncapped = json!({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]});
    assert_eq!(with_null(uncapped, "attn_logit_softcapping").attention_softcap, None);

    let fields = json!({"num_hidden_layers": 7, "sliding_window": 128});
    let mut hub = fields.clone();
    hub["rope_local_base_freq"] = json!(5000.0);
    hub["rope_scaling"] = json!({"rope_type": "linear", "factor": 8.0});
    let mut current = fields.clone();
    current["rope_parameters"] = json!({
        "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    });
    for changes in [hub, current] {
        let gemma3 = of("gemma3_text", "Gemma3ForCausalLM", changes).unwrap();
        let linear = Some(RopeScaling::Linear { factor: 8.0 });
        assert_eq!(gemma3.ropes, [rope(1e6, linear), rope(5000.0, None)]);
        let local: Vec<_> = gemma3.layers.iter().map(|layer| (layer.window, layer.rope)).collect();
        assert_eq!(local[4..6], [(Some(128), Some(1)), (None, Some(0))]);
        assert_eq!((gemma3.attention_softcap, gemma3.logit_softcap), (None, None));
    }
    let error = of("gemma2", "Gemma2ForCausalLM", json!({"hidden_activation": "relu"})).unwrap_err();
    assert!(
        matches!(&error, ConfigError::Unsupported { field, .. } if field == "hidden_activation"),
        "{error}"
    );
}

#[test]
fn positions_of_three_axes_are_read_in_every_form_and_refused_by_field() {
    let qwen = |mut changes: Value| {
        changes["num_key_value_heads"] = json!(2);
        of("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", changes)
    };
    let sections = |config: DecoderConfig| (config.ropes[0].sections, config.ropes[0].theta);
    let hub = json!({"rope_theta": 1e4, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}});
    assert_eq!(sections(qwen(hub).unwrap()), (Some([2, 3, 3]), 1e4));
    let table =
        json!({"rope_type": "default", "type": "default", "rope_theta": 5e5, "mrope_section": [4, 4, 0]});
    assert_eq!(sections(qwen(json!({"rope_parameters": table})).unwrap()), (Some([4, 4, 0]), 5e5));
    let wide = qwen(json!({"hidden_size": 512, "num_attention_heads": 4})).unwrap();
    assert!(wide.qkv_bias && wide.rms_norm_eps == 1e-5);
    assert_eq!(sections(wide), (Some([16, 24, 24]), 1e6));
    for (changes, field) in [
        (json!({}), "rope_scaling.mrope_section"),
        (
            json!({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}),
            "rope_scaling.mrope_section",
        ),
        (json!({"rope_scaling": {"type": "mrope", "mrope_section": [4, 4]}}), "rope_scaling.mrope_section"),
        (json!({"rope_scaling": {"mrope_section": [usize::MAX, 5, 4]}}), "rope_scaling.mrope_section"),
        (json!({"rope_scaling": {"type": "yarn", "mrope_section": [2, 3, 3]}}), "rope_scaling.type"),
    ] {
        let error = qwen(changes.clone()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{field}` ")), "{changes}: {error}");
    }
}

#[test]
fn ternary_linear_layers_are_what_the_config_says() {
    let of_bitnet = |changes| of("bitnet", "BitNetForCausalLM", changes);
    let plain = of_bitnet(json!({"num_key_value_heads": 2})).unwrap();
    assert!(plain.sub_norms && plain.activation == Activation::Relu2 && plain.ternary.is_none());
    let read = |changes| of("llama", "LlamaForCausalLM", bitnet(changes)).unwrap();
    for (changes, linears) in [
        (json!({}), TernaryLinears::Divided),
        (json!({"linear_class": "bitlinear", "quantization_mode": "online"}), TernaryLinears::Divided),
        (json!({"linear_class": "autobitlinear"}), TernaryLinears::Multiplied),
        (json!({"linear_class": "autobitlinear", "quantization_mode": "online"}), TernaryLinears::Trained),
    ] {
        assert_eq!(read(changes).ternary, Some(TernaryConfig { linears, norm_eps: None }));
    }
    let normed = read(json!({"use_rms_norm": true, "modules_to_not_convert": ["lm_head"]}));
    assert_eq!(normed.ternary.unwrap().norm_eps, Some(1e-6));

    let refused = |error: ConfigError, expected: &str| {
        let is_field = matches!(
            &error,
            ConfigError::Unsupported { field, .. } | ConfigError::Invalid { field, .. } if field == expected
        );
        assert!(is_field, "{expected}: {error}");
    };
    let mut changes = bitnet(json!({}));
    changes["num_key_value_heads"] = json!(2);
    refused(of("mistral", "MistralForCausalLM", changes).unwrap_err(), "quantization_config");
    refused(of_bitnet(json!({"num_key_value_heads": 2, "hidden_act": "silu"})).unwrap_err(), "hidden_act");
    refused(of_bitnet(json!({"num_key_value_heads": 2, "head_dim": 32})).unwrap_err(), "head_dim");
}
