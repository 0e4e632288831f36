//! Goldens through a GGUF: what is made of a checkpoint has the logits that transformers gives the checkpoint, and a checkpoint that
//! asks for what no GGUF says is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use models::gguf::convert::{Change, Content, ConvertError, Plan, PlannedTensor};
use models::gguf::{GgufWriter, TensorType, Vocabulary, VocabularyFields};
use models::{ConfigError, ModelFolder};
use schemas::DType;

use crate::close::*;
use crate::model::*;

/// Checkpoints that no GGUF says all of, and the field that it does not say, or that llama.cpp does not compute.
const INEXPRESSIBLE: [(&str, &str); 15] = [
    ("mistral", "sliding_window"),
    ("qwen2", "sliding_window"),
    ("mixtral-windows", "sliding_window"),
    ("qwen3-biases", "attention_bias"),
    ("smollm3-windows", "attention_bias"),
    ("qwen3-moe-some", "attention_bias"),
    ("gemma2", "query_pre_attn_scalar"),
    ("llama-bitlinear", "quantization_config"),
    ("bitnet", "model_type"),
    ("bitnet-long", "model_type"),
    ("bitnet-online", "model_type"),
    ("bitnet-biases", "model_type"),
    ("bitnet-bitlinear", "model_type"),
    ("bitnet-plain", "model_type"),
    ("qwen2-5-vl", "model_type"),
];

/// More checkpoints of Gemma, whose windows and scale of queries a GGUF tells by the place and number of the layers alone.
const TOLD_BY_LAYERS: [&str; 4] =
    ["gemma2-head-scale", "gemma3-sixth-layer", "gemma2-46-layers", "gemma3-62-layers"];

const MODEL_TYPES: [&str; 10] = [
    "gemma2",
    "gemma3_text",
    "llama",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
];

/// A checkpoint, and the GGUF that is made of it.
struct Converted {
    folder: tempfile::TempDir,
    model_type: String,
}

impl Converted {
    /// Copies the golden's files into a folder of its own, with a tokenizer, which goldens lack.
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in fs::read_dir(golden(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(golden(name).join("config.json")).unwrap()).unwrap();
        let vocabulary = VocabularyFields {
            model: "gpt2".to_owned(),
            tokens: (0..config["vocab_size"].as_u64().unwrap()).map(|id| format!("t{id}")).collect(),
            types: vec![1; config["vocab_size"].as_u64().unwrap() as usize],
            ..VocabularyFields::default()
        };
        let tokenizer = Vocabulary::new(vocabulary).unwrap().tokenizer_json().unwrap();
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Self { folder, model_type: config["model_type"].as_str().unwrap().to_owned() }
    }

    fn plan(&self) -> Result<Plan, ConvertError> {
        Plan::of_folder(&ModelFolder::open(self.folder.path()).unwrap(), None)
    }

    /// The GGUF, all of it in 32 bits.
    fn gguf(&self, plan: &Plan) -> PathBuf {
        let path = self.folder.path().join("model.gguf");
        let mut writer = GgufWriter::new();
        for (key, value) in &plan.metadata {
            writer.key(key, value.clone());
        }
        for tensor in &plan.tensors {
            writer.tensor(&tensor.name, TensorType::F32, &tensor.shape);
        }
        let mut file = writer.create(&path).unwrap();
        for tensor in &plan.tensors {
            let bytes: Vec<u8> = numbers(tensor).iter().flat_map(|number| number.to_le_bytes()).collect();
            file.write(&bytes).unwrap();
        }
        file.finish().unwrap();
        path
    }
}

fn numbers(tensor: &PlannedTensor) -> Vec<f32> {
    let (parts, change) = match &tensor.content {
        Content::Numbers(numbers) => return numbers.clone(),
        Content::Stored { parts, change } => (parts, *change),
    };
    let mut numbers = Vec::new();
    for part in parts {
        assert_eq!(part.tensor_type, TensorType::F32, "{}", tensor.name);
        let rows: Vec<&[u8]> = part.bytes().chunks(4 * tensor.row_length()).collect();
        for row in 0..rows.len() {
            let (row, _) = rows[change.source_row(row)].as_chunks();
            numbers.extend(row.iter().map(|number| f32::from_le_bytes(*number)));
        }
    }
    if change == Change::AddOne {
        numbers.iter_mut().for_each(|number| *number += 1.0);
    }
    numbers
}

fn assert_logits(path: &Path, shards: u16, prompts: &[Prompt], what: &str) {
    let mut model = Model::load(path, shards, &options(DType::F32, 32_768));
    for prompt in prompts {
        let found = model.logits(&prefixes(prompt));
        assert_close(&found, &prompt.logits, &format!("{what} on {shards} shards"));
    }
}

#[test]
fn a_gguf_of_each_architecture_has_the_logits_of_transformers_on_one_and_two_shards() {
    let mut model_types = BTreeSet::new();
    for name in GOLDENS.iter().chain(&TOLD_BY_LAYERS).copied() {
        if INEXPRESSIBLE.iter().any(|(inexpressible, _)| *inexpressible == name) {
            continue;
        }
        let converted = Converted::new(name);
        let plan = converted.plan().unwrap_or_else(|error| panic!("{name}: {error}"));
        let gguf = converted.gguf(&plan);
        let prompts = prompts(name);
        for shards in [1, 2] {
            assert_logits(&gguf, shards, &prompts, &format!("GGUF of {name}"));
        }
        model_types.insert(converted.model_type);
    }
    assert_eq!(model_types.iter().map(String::as_str).collect::<Vec<_>>(), MODEL_TYPES);
}

#[test]
fn checkpoints_told_by_their_layers_have_the_logits_of_transformers_too() {
    for name in TOLD_BY_LAYERS {
        assert_logits(&golden(name), 2, &prompts(name), name);
    }
}

#[test]
fn what_no_gguf_says_is_refused_by_its_field() {
    for (name, expected) in INEXPRESSIBLE {
        let field = match Converted::new(name).plan().unwrap_err() {
            ConvertError::Inexpressible { field, .. } => field.to_owned(),
            ConvertError::Config(ConfigError::Unsupported { field, .. }) => field,
            error => panic!("{name}: {error}"),
        };
        assert_eq!(field, expected, "{name}");
    }
}

/// `TOKENWAY_TEST_GGUF` names a folder of a golden's layout with a `model.gguf` in place of the weights.
#[test]
fn a_given_gguf_has_the_logits_beside_it() {
    let Some(folder) = std::env::var_os("TOKENWAY_TEST_GGUF").map(PathBuf::from) else { return };
    let mut model = Model::load(&folder.join("model.gguf"), 1, &options(DType::F32, 32_768));
    for prompt in prompts(folder.to_str().unwrap()) {
        let found = model.logits(&prefixes(&prompt));
        let deltas = found.iter().zip(&prompt.logits).map(|(found, expected)| largest_delta(found, expected));
        println!("{} tokens: off by {:e}", prompt.ids.len(), deltas.fold(0.0, f32::max));
        assert_close(&found, &prompt.logits, "the given GGUF");
    }
}
