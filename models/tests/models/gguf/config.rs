//! The metadata of each architecture gives the configuration that its `config.json` gives, but for what a GGUF has differently.

use models::gguf::{
    Array, Gguf, GgufConfigError, GgufError, GgufWriter, TensorType, Value, read_config, tensor_name,
};
use models::{DecoderConfig, RopeScaling};
use serde_json::json;

const HIDDEN: usize = 32;
const LAYERS: usize = 8;
const VOCABULARY: usize = 7;

/// A model that is all metadata: its tensors are as small as may be, except the embedding and the divisors.
#[derive(Clone)]
struct Model {
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<f32>)>,
}

impl Model {
    /// With the keys that all architectures have: 4 heads of 8 elements, 2 of them for keys and values.
    fn new(architecture: &str) -> Self {
        let mut model = Self { keys: Vec::new(), tensors: Vec::new() };
        model.keys.push(("general.architecture".to_owned(), Value::String(architecture.to_owned())));
        let sizes = [
            ("context_length", 4096),
            ("embedding_length", HIDDEN as u32),
            ("block_count", LAYERS as u32),
            ("feed_forward_length", 48),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ];
        for (name, size) in sizes {
            model = model.key(name, Value::U32(size));
        }
        model.key("attention.layer_norm_rms_epsilon", Value::F32(1e-5)).tensor("output.weight", &[0.0])
    }

    fn architecture(&self) -> String {
        match &self.keys[0].1 {
            Value::String(name) => name.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Sets a key of the architecture, or one that is named in full.
    fn key(mut self, name: &str, value: Value) -> Self {
        let is_full = name.starts_with("general.") || name.starts_with("tokenizer.");
        let key = if is_full { name.to_owned() } else { format!("{}.{name}", self.architecture()) };
        self.keys.retain(|(other, _)| *other != key);
        self.keys.push((key, value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        let key = format!("{}.{name}", self.architecture());
        self.keys.retain(|(other, _)| *other != key);
        self.tensors.retain(|(other, _)| other != name);
        self
    }

    fn tensor(mut self, name: &str, values: &[f32]) -> Self {
        self.tensors.push((name.to_owned(), values.to_owned()));
        self
    }

    fn read(&self) -> Result<DecoderConfig, GgufConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut writer = GgufWriter::new();
        for (key, value) in &self.keys {
            writer.key(key, value.clone());
        }
        writer.tensor("token_embd.weight", TensorType::I8, &[VOCABULARY, 1]);
        for (name, values) in &self.tensors {
            writer.tensor(name, TensorType::F32, &[values.len()]);
        }
        let mut file = writer.create(&path).unwrap();
        file.write(&[0; VOCABULARY]).unwrap();
        for (_, values) in &self.tensors {
            file.write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        }
        file.finish().unwrap();
        read_config(&Gguf::open(&path).unwrap())
    }

    /// The key or tensor that is named by the refusal.
    fn refused(&self) -> String {
        match self.read().unwrap_err() {
            GgufConfigError::Gguf(
                GgufError::MissingKey { key, .. }
                | GgufError::Value { key, .. }
                | GgufError::NotFound { tensor: key, .. },
            )
            | GgufConfigError::Unsupported { key, .. }
            | GgufConfigError::UnknownKey { key, .. }
            | GgufConfigError::Refused { key, .. } => key,
            GgufConfigError::UnknownTensor { tensor, .. } | GgufConfigError::Divisors { tensor, .. } => {
                tensor
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What transformers has in `config.json` for the same sizes.
fn hugging_face(model_type: &str, more: &serde_json::Value) -> DecoderConfig {
    let mut object = json!({
        "model_type": model_type,
        "max_position_embeddings": 4096,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": false,
    });
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    DecoderConfig::from_json(object.to_string().as_bytes()).unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn llama_is_read() {
    let mut expected = hugging_face("llama", &json!({"rope_theta": 500000.0}));
    expected.interleaved_heads = true;
    let model = Model::new("llama").key("rope.freq_base", Value::F32(500_000.0));
    assert_eq!(model.read().unwrap(), expected);
    let model = model
        .key("attention.key_length", Value::U32(8))
        .key("attention.value_length", Value::U32(8))
        .key("rope.dimension_count", Value::U32(8))
        .key("vocab_size", Value::U32(VOCABULARY as u32))
        .key("general.type", text("model"))
        .key("general.quantization_version", Value::U32(2));
    assert_eq!(model.read().unwrap(), expected);
    expected.tie_word_embeddings = true;
    assert_eq!(model.without("output.weight").read().unwrap(), expected);
}

#[test]
fn a_llama_with_a_window_is_a_mistral() {
    let mut expected = hugging_face("mistral", &json!({"sliding_window": 64}));
    expected.interleaved_heads = true;
    let model = Model::new("llama").key("attention.sliding_window", Value::U32(64));
    assert_eq!(model.read().unwrap(), expected);
}

#[test]
fn divisors_of_llama_3_are_read_from_their_tensor() {
    let divisors = [1.0, 1.0, 3.5, 8.0];
    let config = Model::new("llama").tensor("rope_freqs.weight", &divisors).read().unwrap();
    let short_factor = divisors.map(f64::from).to_vec();
    let expected = RopeScaling::LongRope { short_factor, long: None, attention_factor: 1.0 };
    assert_eq!(config.ropes[0].scaling, Some(expected));
    assert_eq!(config.max_position_embeddings, 4096);
    for wrong in [&[1.0; 3][..], &[1.0, 1.0, 0.0, 1.0], &[1.0, f32::NAN, 1.0, 1.0], &[f32::INFINITY; 4]] {
        let model = Model::new("llama").tensor("rope_freqs.weight", wrong);
        assert_eq!(model.refused(), "rope_freqs.weight");
    }
    let both =
        Model::new("llama").tensor("rope_freqs.weight", &divisors).key("rope.scale_linear", Value::F32(2.0));
    assert_eq!(both.refused(), "rope_freqs.weight");
}

#[test]
fn smollm3_is_read() {
    let mut expected = hugging_face("smollm3", &json!({}));
    expected.interleaved_heads = true;
    assert_eq!(Model::new("smollm3").read().unwrap(), expected);
    let unturned: Vec<bool> = expected.layers.iter().map(|layer| layer.rope.is_none()).collect();
    assert_eq!(unturned, [false, false, false, true, false, false, false, true]);
}

#[test]
fn qwens_are_read_and_their_biases_found() {
    let model = Model::new("qwen2");
    let mut expected = hugging_face("qwen2", &json!({}));
    assert!(expected.qkv_bias);
    assert_eq!(model.clone().tensor("blk.0.attn_q.bias", &[0.0]).read().unwrap(), expected);
    expected.qkv_bias = false;
    assert_eq!(model.read().unwrap(), expected);
    assert_eq!(Model::new("qwen3").read().unwrap(), hugging_face("qwen3", &json!({})));
}

#[test]
fn gemma_2_is_read() {
    let more = json!({"query_pre_attn_scalar": 8, "sliding_window": 16, "final_logit_softcapping": 20.0,
        "attn_logit_softcapping": null});
    let mut expected = hugging_face("gemma2", &more);
    expected.norm_offset = false;
    let model = Model::new("gemma2")
        .key("attention.sliding_window", Value::U32(16))
        .key("final_logit_softcapping", Value::F32(20.0))
        .key("attn_logit_softcapping", Value::F32(0.0));
    assert_eq!(model.read().unwrap(), expected);
    let windows: Vec<bool> = expected.layers.iter().map(|layer| layer.window.is_some()).collect();
    assert_eq!(windows, [true, false].repeat(4));
    let usual = Model::new("gemma2").read().unwrap();
    assert_eq!((usual.attention_softcap, usual.logit_softcap), (Some(50.0), Some(30.0)));
    let large =
        Model::new("gemma2").key("block_count", Value::U32(46)).key("attention.key_length", Value::U32(16));
    let config = large.read().unwrap();
    assert_eq!((config.head_dim, config.attention_scale), (16, 1.0 / 8_f64.sqrt()));
}

#[test]
fn gemma_3_is_read() {
    let more = json!({"query_pre_attn_scalar": 8, "sliding_window": 16, "rope_theta": 1e6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let mut expected = hugging_face("gemma3_text", &more);
    expected.norm_offset = false;
    let model = Model::new("gemma3")
        .key("attention.sliding_window", Value::U32(16))
        .key("rope.freq_base", Value::F32(1e6))
        .key("rope.scaling.type", text("linear"))
        .key("rope.scaling.factor", Value::F32(8.0));
    assert_eq!(model.read().unwrap(), expected);
    let windows: Vec<bool> = expected.layers.iter().map(|layer| layer.window.is_some()).collect();
    assert_eq!(windows, [true, true, true, true, true, false, true, true]);
    let periods =
        [Value::U32(3), Value::Array(Array::Bool([true, true, false].repeat(3)[..LAYERS].to_vec()))];
    for period in periods {
        let config = model.clone().key("attention.sliding_window_pattern", period).read().unwrap();
        let ropes: Vec<Option<usize>> = config.layers.iter().map(|layer| layer.rope).collect();
        let (local, global) = (Some(1), Some(0));
        assert_eq!(ropes, [local, local, global, local, local, global, local, local]);
    }
    let whole = Model::new("gemma3").read().unwrap();
    assert!(whole.layers.iter().all(|layer| layer.window.is_none() && layer.rope == Some(0)));
    let short = model.key("attention.sliding_window_pattern", Value::Array(Array::Bool(vec![true])));
    assert_eq!(short.refused(), "gemma3.attention.sliding_window_pattern");
}

#[test]
fn phi_3_is_read_with_its_divisors() {
    let scaling = json!({"rope_type": "longrope", "short_factor": [1.5, 2.25], "long_factor": [9.0, 9.0],
        "original_max_position_embeddings": 64, "attention_factor": 1.25});
    let more = json!({"partial_rotary_factor": 0.5, "sliding_window": 16, "rope_scaling": scaling});
    let expected = hugging_face("phi3", &more);
    let model = Model::new("phi3")
        .key("attention.sliding_window", Value::U32(16))
        .key("rope.dimension_count", Value::U32(4))
        .key("rope.scaling.original_context_length", Value::U32(64))
        .key("rope.scaling.attn_factor", Value::F32(1.25))
        .tensor("rope_factors_short.weight", &[1.5, 2.25])
        .tensor("rope_factors_long.weight", &[9.0, 9.0]);
    assert_eq!(model.read().unwrap(), expected);
    let plain = Model::new("phi3").key("attention.sliding_window", Value::U32(0));
    assert_eq!(plain.read().unwrap(), hugging_face("phi3", &json!({"sliding_window": null})));
    let wrong = model.without("rope_factors_short.weight").tensor("rope_factors_short.weight", &[1.0]);
    assert_eq!(wrong.refused(), "phi3.rope.scaling.type");
}

#[test]
fn yarn_is_read() {
    let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024});
    let expected = hugging_face("qwen3", &json!({"rope_scaling": scaling}));
    let model = Model::new("qwen3")
        .key("rope.scaling.type", text("yarn"))
        .key("rope.scaling.factor", Value::F32(4.0))
        .key("rope.scaling.original_context_length", Value::U32(1024));
    assert_eq!(model.read().unwrap(), expected);
}

#[test]
fn tokens_that_end_an_answer_are_found_by_id_and_by_text() {
    let tokens = ["a", "<|im_end|>", "b", "</s>", "<|eot_id|>"].map(str::to_owned).to_vec();
    let config = Model::new("llama")
        .key("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .key("tokenizer.ggml.bos_token_id", Value::U32(2))
        .key("tokenizer.ggml.eos_token_id", Value::U32(3))
        .key("tokenizer.ggml.eot_token_id", Value::U32(4))
        .read()
        .unwrap();
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(2), vec![3, 4, 1]));
}

#[test]
fn numbers_for_each_layer_must_be_equal() {
    let heads =
        |heads: Vec<u32>| Model::new("llama").key("attention.head_count_kv", Value::Array(Array::U32(heads)));
    assert_eq!(heads(vec![2; LAYERS]).read().unwrap().num_key_value_heads, 2);
    assert_eq!(heads(vec![2, 2, 4]).refused(), "llama.attention.head_count_kv");
    assert_eq!(heads(vec![]).refused(), "llama.attention.head_count_kv");
    let none = Model::new("llama").without("attention.head_count_kv").read().unwrap();
    assert_eq!(none.num_key_value_heads, 4);
}

#[test]
fn a_key_that_is_missing_is_named() {
    let required = [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ];
    for name in required {
        assert_eq!(Model::new("llama").without(name).refused(), format!("llama.{name}"));
    }
}

#[test]
fn a_key_of_a_wrong_value_is_named() {
    let wrong = [
        ("context_length", Value::U32(0)),
        ("embedding_length", text("32")),
        ("block_count", Value::U64(u64::MAX)),
        ("attention.head_count", Value::U32(0)),
        ("attention.head_count_kv", Value::U32(3)),
        ("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("attention.key_length", Value::U32(7)),
        ("attention.value_length", Value::U32(4)),
        ("attention.causal", Value::Bool(false)),
        ("rope.dimension_count", Value::U32(4)),
        ("rope.freq_base", Value::F32(-1.0)),
        ("rope.scaling.type", text("ntk")),
        ("rope.scaling.attn_factor", Value::F32(2.0)),
        ("logit_scale", Value::F32(0.5)),
        ("final_logit_softcapping", Value::F32(30.0)),
        ("nextn_predict_layers", Value::U32(1)),
    ];
    for (name, value) in wrong {
        assert_eq!(Model::new("llama").key(name, value).refused(), format!("llama.{name}"));
    }
    assert_eq!(Model::new("qwen2").key("expert_count", Value::U32(4)).refused(), "qwen2.expert_count");
    let window = Model::new("qwen2").key("attention.sliding_window", Value::U32(4));
    assert_eq!(window.refused(), "qwen2.attention.sliding_window");
    for architecture in ["gpt2", "bitnet", "bitnet-25"] {
        assert_eq!(Model::new(architecture).refused(), "general.architecture");
    }
    assert_eq!(Model::new("llama").key("general.type", text("adapter")).refused(), "general.type");
    let old = Model::new("llama").key("general.quantization_version", Value::U32(1));
    assert_eq!(old.refused(), "general.quantization_version");
}

#[test]
fn a_tensor_that_nothing_would_read_is_named() {
    let unknown = [
        "blk.0.attn_q_norm.weight",
        "blk.0.attn_q.scale",
        "blk.1.attn_q.bias",
        "blk.8.attn_q.weight",
        "blk.0.attn_qkv.weight",
        "blk.0.ffn_gate_exps.weight",
        "blk.0.post_ffw_norm.weight",
        "v.blk.0.attn_q.weight",
    ];
    for name in unknown {
        assert_eq!(Model::new("llama").tensor(name, &[0.0]).refused(), name);
    }
}

#[test]
fn weights_have_a_name_in_a_gguf() {
    let plain = hugging_face("llama", &json!({}));
    let gemma = hugging_face("gemma2", &json!({}));
    let phi = hugging_face("phi3", &json!({}));
    let cases = [
        (&plain, "model.embed_tokens.weight", Some(("token_embd.weight", None))),
        (&plain, "model.norm.weight", Some(("output_norm.weight", None))),
        (&plain, "lm_head.weight", Some(("output.weight", None))),
        (&plain, "model.layers.3.self_attn.q_proj.weight", Some(("blk.3.attn_q.weight", None))),
        (&plain, "model.layers.3.self_attn.q_proj.bias", Some(("blk.3.attn_q.bias", None))),
        (&plain, "model.layers.10.self_attn.o_proj.weight", Some(("blk.10.attn_output.weight", None))),
        (&plain, "model.layers.0.input_layernorm.weight", Some(("blk.0.attn_norm.weight", None))),
        (&plain, "model.layers.0.post_attention_layernorm.weight", Some(("blk.0.ffn_norm.weight", None))),
        (
            &gemma,
            "model.layers.0.post_attention_layernorm.weight",
            Some(("blk.0.post_attention_norm.weight", None)),
        ),
        (&gemma, "model.layers.0.pre_feedforward_layernorm.weight", Some(("blk.0.ffn_norm.weight", None))),
        (
            &gemma,
            "model.layers.0.post_feedforward_layernorm.weight",
            Some(("blk.0.post_ffw_norm.weight", None)),
        ),
        (&gemma, "model.layers.0.self_attn.k_norm.weight", Some(("blk.0.attn_k_norm.weight", None))),
        (&phi, "model.layers.0.self_attn.qkv_proj.weight", Some(("blk.0.attn_qkv.weight", None))),
        (&phi, "model.layers.0.mlp.gate_up_proj.weight", Some(("blk.0.ffn_up.weight", None))),
        (&plain, "model.layers.2.mlp.gate.weight", Some(("blk.2.ffn_gate_inp.weight", None))),
        (&plain, "model.layers.2.mlp.experts.5.up_proj.weight", Some(("blk.2.ffn_up_exps.weight", Some(5)))),
        (
            &plain,
            "model.layers.2.block_sparse_moe.experts.5.w2.weight",
            Some(("blk.2.ffn_down_exps.weight", Some(5))),
        ),
        (&plain, "model.layers.x.self_attn.q_proj.weight", None),
        (&plain, "model.layers.0.self_attn.q_proj", None),
        (&plain, "vision.norm.weight", None),
    ];
    for (config, name, expected) in cases {
        let found = tensor_name(config, name);
        let found = found.as_ref().map(|found| (found.name.as_str(), found.expert));
        assert_eq!(found, expected, "{name}");
    }
}
