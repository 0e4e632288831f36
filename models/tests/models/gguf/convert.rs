//! What is planned of model folders: the same as llama.cpp's converter makes of them (`models/goldens/gguf_converted.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use models::gguf::convert::{Change, Content, ConvertError, FileType, Plan, PlannedTensor};
use models::gguf::{Array, Gguf, GgufWriter, TensorType, Value, Vocabulary, VocabularyFields, read_config};
use models::{DecoderConfig, ModelFolder, RopeScaling, Tokenizer};
use serde_json::{Value as Json, json};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Keys that need not be equal: names, and what follows from the types that are chosen.
const OTHERWISE: [&str; 6] = [
    "general.name",
    "general.basename",
    "general.version",
    "general.size_label",
    "general.file_type",
    "general.quantization_version",
];

/// Keys that llama.cpp's converter leaves to what is assumed without them.
const ONLY_HERE: [&str; 4] = [
    "tokenizer.ggml.merges",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.padding_token_id",
];

/// Keys that only one of the two writes: the length of a first training where there is no scaling, and which layers have a window,
/// which the converter leaves out of account.
const ONLY_ONCE: [(&str, &str); 2] = [
    ("phi3", "phi3.rope.scaling.original_context_length"),
    ("gemma3", "gemma3.attention.sliding_window_pattern"),
];

/// Checkpoints with features that llama.cpp does not compute: the field that is refused, and what it and others are to be for
/// the checkpoint to be what llama.cpp's converter takes it for.
pub(super) fn refused() -> Vec<(&'static str, &'static str, Json)> {
    vec![
        ("gemma2", "query_pre_attn_scalar", json!({"query_pre_attn_scalar": 24})),
        ("mistral", "sliding_window", json!({"sliding_window": null})),
        ("qwen2", "sliding_window", json!({"use_sliding_window": false})),
        ("smollm3-windows", "attention_bias", json!(null)),
        ("qwen3-biases", "attention_bias", json!(null)),
    ]
}

fn golden(name: &str) -> Gguf {
    Gguf::open(&Path::new(CRATE).join(format!("goldens/gguf_converted/{name}.gguf"))).unwrap()
}

fn names() -> Vec<String> {
    let files = fs::read_dir(Path::new(CRATE).join("goldens/gguf_converted")).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = files.map(|file| stem(file.unwrap().path())).collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// The checkpoint with `fields` in its `config.json`, and the tokens that the converter was given.
pub(super) fn checkpoint(name: &str, fields: &Json) -> tempfile::TempDir {
    let from = Path::new(CRATE).join("../stages/shard-forward/goldens").join(name);
    let folder = tempfile::tempdir().unwrap();
    let mut config: Json = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    for (field, value) in fields.as_object().into_iter().flatten() {
        config[field] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let vocabulary = VocabularyFields {
        model: "gpt2".to_owned(),
        tokens: (0..128).map(|id| format!("t{id}")).collect(),
        types: vec![1; 128],
        ..VocabularyFields::default()
    };
    let tokenizer = Vocabulary::new(vocabulary).unwrap().tokenizer_json().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn plan(folder: &Path) -> Result<Plan, ConvertError> {
    Plan::of_folder(&ModelFolder::open(folder).unwrap(), None)
}

/// The content of a file with these keys and tensors of numbers or zeros, all of 32 bits.
fn write(plan: &Plan, path: &Path) -> Gguf {
    let mut writer = GgufWriter::new();
    for (key, value) in &plan.metadata {
        writer.key(key, value.clone());
    }
    for tensor in &plan.tensors {
        writer.tensor(&tensor.name, TensorType::F32, &tensor.shape);
    }
    let mut file = writer.create(path).unwrap();
    for tensor in &plan.tensors {
        let numbers = match &tensor.content {
            Content::Numbers(numbers) => numbers.clone(),
            Content::Stored { .. } => vec![0.0; tensor.elements()],
        };
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        file.write(&bytes).unwrap();
    }
    file.finish().unwrap();
    Gguf::open(path).unwrap()
}

#[test]
fn keys_and_tensors_are_those_of_llama_cpps_converter() {
    for name in names() {
        let other = refused().into_iter().find(|(refused, ..)| *refused == name);
        let fields = other.map_or(json!({}), |(.., fields)| fields);
        if fields.is_null() {
            continue;
        }
        let folder = checkpoint(&name, &fields);
        let plan = plan(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden = golden(&name);
        let compared = |key: &str| {
            let list: [&[&str]; 2] = [&OTHERWISE, &ONLY_HERE];
            !list.concat().contains(&key) && !ONLY_ONCE.contains(&(name.as_str(), key))
        };
        let keys = plan.metadata.iter().map(|(key, value)| (key.clone(), value));
        let found: BTreeMap<String, &Value> = keys.filter(|(key, _)| compared(key)).collect();
        let keys = golden.metadata().iter().map(|(key, value)| (key.to_owned(), value));
        let mut expected: BTreeMap<String, &Value> = keys.filter(|(key, _)| compared(key)).collect();
        // The converter leaves it out where the heads are as wide as the hidden state.
        let head_dim = Value::U32(u32::try_from(read_config(&golden).unwrap().head_dim).unwrap());
        let architecture = golden.metadata().string("general.architecture").unwrap().unwrap();
        for key in ["key_length", "value_length"] {
            expected.entry(format!("{architecture}.attention.{key}")).or_insert(&head_dim);
        }
        assert_eq!(found, expected, "{name}");
        let mut found: Vec<&str> = plan.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut expected: Vec<&str> = golden.tensors().map(|tensor| tensor.name.as_str()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn divisors_of_frequencies_are_those_of_llama_cpps_converter() {
    for name in ["llama3-rope", "phi3-longrope"] {
        let folder = checkpoint(name, &json!({}));
        let plan = plan(folder.path()).unwrap();
        let golden = golden(name);
        let mut compared = 0;
        for tensor in plan.tensors {
            let Content::Numbers(numbers) = tensor.content else { continue };
            let expected = golden.get_shared(&tensor.name).unwrap();
            let (expected, _) = expected.bytes().as_chunks::<4>();
            let expected: Vec<f32> = expected.iter().map(|number| f32::from_le_bytes(*number)).collect();
            // The converter computes with 32 bits.
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
            assert!(
                numbers.len() == expected.len() && numbers.iter().zip(&expected).all(close),
                "{numbers:?}"
            );
            compared += 1;
        }
        assert!(compared > 0, "{name}");
    }
}

#[test]
fn what_llama_cpp_does_not_compute_is_refused_by_its_field() {
    let refused = refused().into_iter().map(|(name, field, _)| (name, field, json!({})));
    let others = [
        ("llama-bitlinear", "quantization_config", json!({})),
        ("qwen3-moe-some", "mlp_only_layers", json!({"attention_bias": false})),
        ("qwen3-moe", "norm_topk_prob", json!({"norm_topk_prob": false})),
        ("mixtral-windows", "sliding_window", json!({})),
        ("smollm3", "no_rope_layers", json!({"no_rope_layers": [1, 1, 1, 1]})),
    ];
    for (name, expected, fields) in refused.chain(others) {
        let folder = checkpoint(name, &fields);
        let error = plan(folder.path()).unwrap_err();
        let is_field = matches!(error, ConvertError::Inexpressible { field, .. } if field == expected);
        assert!(is_field, "{name}: {error}");
    }
    let scalings = [
        (
            "qwen3",
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}),
        ),
        ("gqa", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}})),
        ("gqa", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": false}})),
    ];
    for (name, fields) in scalings {
        let folder = checkpoint(name, &fields);
        let error = plan(folder.path()).unwrap_err();
        assert!(
            matches!(error, ConvertError::Inexpressible { field: "rope_scaling", .. }),
            "{name}: {error}"
        );
    }
}

/// The configuration of the folder, but for what a GGUF has differently or does not say.
fn expected(config: &DecoderConfig, found: &DecoderConfig) -> DecoderConfig {
    let mut expected = config.clone();
    (expected.norm_offset, expected.dtype) = (false, None);
    expected.interleaved_heads = found.interleaved_heads;
    match &mut expected.ropes[0].scaling {
        Some(RopeScaling::Llama3 { .. }) => expected.ropes[0].scaling.clone_from(&found.ropes[0].scaling),
        // Of 32 bits.
        Some(RopeScaling::LongRope { attention_factor, .. }) => {
            *attention_factor = (*attention_factor as f32).to_string().parse().unwrap();
        }
        _ => {}
    }
    if let (Some(expected), Some(found)) = (&mut expected.experts, &found.experts) {
        expected.names = found.names;
    }
    expected
}

#[test]
fn the_configuration_that_is_read_back_is_that_of_the_folder() {
    let more = ["mixtral", "qwen3-moe"].map(str::to_owned);
    let others =
        [("gemma3", json!({"sliding_window_pattern": 6})), ("gemma3", json!({"sliding_window_pattern": 2}))];
    let plain = names().into_iter().chain(more).map(|name| (name, json!({})));
    let patched = refused().into_iter().map(|(name, _, fields)| (name.to_owned(), fields));
    let others = others.map(|(name, fields)| (name.to_owned(), fields));
    let mut read = 0;
    for (name, fields) in plain.chain(patched).chain(others) {
        let folder = checkpoint(&name, &fields);
        let Ok(plan) = plan(folder.path()) else { continue };
        let gguf = write(&plan, &folder.path().join("model.gguf"));
        let found = read_config(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        let config = ModelFolder::open(folder.path()).unwrap().config().clone();
        assert_eq!(found, expected(&config, &found), "{name}");
        read += 1;
    }
    assert!(read >= 20, "{read}");
}

fn tensor<'a>(plan: &'a Plan, name: &str) -> &'a PlannedTensor {
    plan.tensors.iter().find(|tensor| tensor.name == name).unwrap()
}

fn change(tensor: &PlannedTensor) -> Change {
    match tensor.content {
        Content::Stored { change, .. } => change,
        Content::Numbers(_) => Change::Nothing,
    }
}

#[test]
fn weights_are_changed_as_the_architecture_wants() {
    let of = |name: &str| {
        let folder = checkpoint(name, &json!({}));
        plan(folder.path()).unwrap()
    };
    let llama = of("biases");
    for name in ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"] {
        let tensor = tensor(&llama, &format!("blk.1.{name}"));
        assert_eq!(change(tensor), Change::PairNeighbours { head_dim: 16 }, "{name}");
    }
    assert_eq!(tensor(&llama, "blk.1.attn_q.bias").row_length(), 1);
    assert_eq!(tensor(&llama, "blk.1.attn_q.bias").rows(), 64);
    assert_eq!(change(tensor(&llama, "blk.1.attn_v.weight")), Change::Nothing);
    let gemma = of("gemma3");
    for name in [
        "blk.0.attn_norm.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.post_ffw_norm.weight",
        "output_norm.weight",
    ] {
        assert_eq!(change(tensor(&gemma, name)), Change::AddOne, "{name}");
    }
    assert_eq!(change(tensor(&gemma, "blk.0.attn_q.weight")), Change::Nothing);
    let mixtral = of("mixtral");
    let experts = tensor(&mixtral, "blk.2.ffn_down_exps.weight");
    assert_eq!(experts.shape, [6, 64, 24]);
    assert!(matches!(&experts.content, Content::Stored { parts, .. } if parts.len() == 6));
}

#[test]
fn the_demo_models_language_model_is_planned_with_its_vocabulary_and_template() {
    let folder = ModelFolder::open(&Path::new(CRATE).join("demo")).unwrap();
    let plan = Plan::of_folder(&folder, None).unwrap();
    let value = |key: &str| plan.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    assert_eq!(value("general.architecture"), Some(&Value::String("llama".to_owned())));
    assert_eq!(value("tokenizer.ggml.bos_token_id"), Some(&Value::U32(256)));
    assert_eq!(value("tokenizer.ggml.eos_token_id"), Some(&Value::U32(261)));
    assert_eq!(value("tokenizer.ggml.padding_token_id"), Some(&Value::U32(257)));
    assert_eq!(value("tokenizer.ggml.eot_token_id"), Some(&Value::U32(257)));
    assert!(
        matches!(value("tokenizer.chat_template"), Some(Value::String(text)) if text.contains("<|image|>"))
    );
    assert!(!plan.tensors.iter().any(|tensor| tensor.name == "output.weight"));
    let q8_0 = FileType::named("q8_0").unwrap();
    assert_eq!(q8_0.of_tensor(tensor(&plan, "token_embd.weight")), TensorType::Q8_0);
}

#[test]
fn a_gguf_is_planned_as_it_is() {
    let gguf = golden("llama3-rope");
    let plan = Plan::of_gguf(&gguf).unwrap();
    let names = |plan: &Plan| plan.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&plan), gguf.tensors().map(|tensor| tensor.name.clone()).collect::<Vec<_>>());
    let dropped = ["general.file_type", "general.quantization_version"];
    assert!(!plan.metadata.iter().any(|(key, _)| dropped.contains(&key.as_str())));
    assert_eq!(plan.metadata.len() + dropped.len(), gguf.metadata().iter().count());
}

/// A folder with this tokenizer, and a decoder of one layer and nothing but zeros.
fn tiny(tokenizer: &Json, vocab_size: usize) -> tempfile::TempDir {
    let config = json!({
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 8, "tie_word_embeddings": true,
    });
    let matrices = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let matrices = matrices.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    let layer = |module: &str| format!("model.layers.0.{module}.weight");
    let mut weights: Vec<(String, Vec<usize>)> = matrices.map(|module| (layer(module), vec![4, 4])).collect();
    weights.extend(["input_layernorm", "post_attention_layernorm"].map(|norm| (layer(norm), vec![4])));
    weights.push(("model.norm.weight".to_owned(), vec![4]));
    weights.push(("model.embed_tokens.weight".to_owned(), vec![vocab_size, 4]));
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in weights {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Json::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + end, 0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

/// The vocabulary that a GGUF with these keys has.
fn vocabulary(plan: &Plan) -> Vocabulary {
    let value = |key: &str| {
        let key = format!("tokenizer.ggml.{key}");
        plan.metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    };
    let text = |key| match value(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let id = |key| value(key).map(|id| u32::try_from(id.as_integer().unwrap()).unwrap());
    let bool = |key| value(key).map(|value| value == Value::Bool(true));
    let texts = |key| match value(key) {
        Some(Value::Array(Array::String(texts))) => texts,
        _ => Vec::new(),
    };
    let scores = match value("scores") {
        Some(Value::Array(Array::F32(scores))) => scores,
        _ => Vec::new(),
    };
    let Some(Value::Array(Array::I32(types))) = value("token_type") else { panic!("no types") };
    let fields = VocabularyFields {
        architecture: Some("llama".to_owned()),
        model: text("model").unwrap(),
        pre: text("pre"),
        tokens: texts("tokens"),
        scores,
        types,
        merges: texts("merges"),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        eot: id("eot_token_id"),
        add_bos: bool("add_bos_token"),
        add_eos: bool("add_eos_token"),
        add_space_prefix: bool("add_space_prefix"),
    };
    Vocabulary::new(fields).unwrap()
}

fn read_tokenizer(json: &Json) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

#[test]
fn texts_have_the_same_ids_with_the_vocabulary_that_is_written() {
    let goldens: Json =
        serde_json::from_str(include_str!("../../../goldens/gguf_vocabularies.json")).unwrap();
    let texts: Vec<&str> =
        goldens["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for (name, golden) in goldens["vocabularies"].as_object().unwrap() {
        let tokenizer = Vocabulary::new(crate::gguf_vocabulary::fields(&golden["fields"])).unwrap();
        let rows = tokenizer.len() + 3;
        let json = tokenizer.tokenizer_json().unwrap();
        let folder = tiny(&json, rows);
        let plan = plan(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = vocabulary(&plan);
        assert_eq!(written.len(), rows, "{name}");
        let (before, after) = (read_tokenizer(&json), read_tokenizer(&written.tokenizer_json().unwrap()));
        for text in &texts {
            assert_eq!(
                after.encode(text, true).unwrap(),
                before.encode(text, true).unwrap(),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn a_way_to_cut_text_that_has_no_name_is_refused_until_it_is_named() {
    let mut json = crate::tokenizers_made_here::byte_level_json();
    let rows = 263;
    let pre = |json: &Json, pre: Option<&str>| {
        let folder = tiny(json, rows);
        Plan::of_folder(&ModelFolder::open(folder.path()).unwrap(), pre)
    };
    assert!(pre(&json, None).is_ok());
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[a-z]"}, "behavior": "Isolated", "invert": false}, json["pre_tokenizer"],
    ]});
    assert!(matches!(pre(&json, None), Err(ConvertError::Pre)));
    assert!(pre(&json, Some("qwen2")).is_ok());
    assert!(matches!(pre(&json, Some("qwen9")), Err(ConvertError::PreName { .. })));
    json["model"]["type"] = json!("Unigram");
    assert!(matches!(pre(&json, None), Err(ConvertError::Tokenizer { part: "model.type", .. })));
}

#[test]
fn ids_outside_of_the_embedding_and_weights_of_other_shapes_are_refused() {
    let json = crate::tokenizers_made_here::byte_level_json();
    let folder = tiny(&json, 262);
    assert!(matches!(plan(folder.path()), Err(ConvertError::Tokenizer { part: "added_tokens", .. })));
    let folder = checkpoint("gqa", &json!({"intermediate_size": 50}));
    assert!(matches!(plan(folder.path()), Err(ConvertError::Shape { .. })));
}

#[test]
fn a_model_whose_positions_have_three_axes_is_refused_by_its_type() {
    let folder = Path::new(CRATE).join("../stages/shard-forward/goldens/qwen2-5-vl");
    let error = Plan::of_folder(&ModelFolder::open(&folder).unwrap(), None).err().unwrap();
    assert!(format!("{error:?} {error}").contains("model_type"), "{error}");
}
