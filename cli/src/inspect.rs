//! `tokenway inspect`: what a model file holds, and the memory that it takes.

mod render;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::checkpoint::{Checkpoint, Facts, Format, Tensor, TypeTotal};
use crate::memory::{BF16_BYTES, F32_BYTES};
use crate::named;
use crate::printable::lossy_path;

const EXAMPLES: &str = "\
Examples:
  tokenway inspect ~/models/llama-q4_k_m.gguf
  tokenway inspect --tensors ~/models/llama
  tokenway inspect ~/models/llama/model.safetensors
  tokenway inspect --json ~/models/llama-q4_k_m.gguf | jq '.metadata[\"general.name\"]'

Exit codes: 0 shown, whether it would be served or not, 2 no model or a damaged one.";

/// Tokens for which the KV cache is shown, besides the model's own context.
const CONTEXTS: [u64; 3] = [2048, 8192, 32_768];

/// Show what a model file holds: shape, metadata, tensors, memory
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A .gguf file (of a split one, the first), a .safetensors file, a model folder, a name that `tokenway models` shows, or
    /// hf:ORG/NAME[:FILE], which is downloaded when it is not here
    #[arg(value_name = "MODEL")]
    path: PathBuf,
    /// List every tensor, not only totals by type
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object, all tensors included
    #[arg(long)]
    json: bool,
}

/// Everything that `inspect` shows.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(serialize_with = "lossy_path")]
    path: PathBuf,
    format: Format,
    file_bytes: u64,
    #[serde(flatten)]
    facts: Facts,
    /// Whether nothing is known against serving it.
    served: bool,
    refusal: Option<String>,
    parameters: Option<u64>,
    memory: Memory,
    metadata: Map<String, Json>,
    types: Vec<TypeTotal>,
    tensors: Vec<Tensor>,
}

/// What the model takes in memory, in bytes; null where it is not known or beyond 64 bits.
#[derive(Debug, Serialize)]
struct Memory {
    weights: Weights,
    kv_cache: Vec<KvCache>,
}

#[derive(Debug, Serialize)]
struct Weights {
    stored: Option<u64>,
    bf16: Option<u64>,
    f32: Option<u64>,
}

/// The KV cache of one sequence.
#[derive(Debug, Serialize)]
struct KvCache {
    tokens: u64,
    bf16: Option<u64>,
    f32: Option<u64>,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = named::resolve(&arguments.path).await?.path;
    let report = Report::new(Checkpoint::open(&path)?);
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}", render::render(&report, arguments.tensors))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn new(checkpoint: Checkpoint) -> Self {
        Self {
            parameters: checkpoint.parameters(),
            memory: Memory::new(&checkpoint),
            types: checkpoint.types(),
            served: checkpoint.refusal.is_none(),
            path: checkpoint.path,
            format: checkpoint.format,
            file_bytes: checkpoint.file_bytes,
            facts: checkpoint.facts,
            refusal: checkpoint.refusal,
            metadata: checkpoint.metadata,
            tensors: checkpoint.tensors,
        }
    }
}

impl Memory {
    fn new(checkpoint: &Checkpoint) -> Self {
        let parameters = checkpoint.parameters();
        let wide = |bytes: u64| parameters?.checked_mul(bytes);
        let weights =
            Weights { stored: checkpoint.stored_bytes(), bf16: wide(BF16_BYTES), f32: wide(F32_BYTES) };
        let shape = checkpoint.facts.kv_shape();
        let cache = |tokens| {
            let bytes = |element| shape.and_then(|shape| shape.bytes(tokens, element));
            KvCache { tokens, bf16: bytes(BF16_BYTES), f32: bytes(F32_BYTES) }
        };
        let mut contexts: Vec<u64> = CONTEXTS.into_iter().chain(checkpoint.facts.context).collect();
        contexts.sort_unstable();
        contexts.dedup();
        // Nothing is known of it in a file that has only weights.
        let kv_cache = if shape.is_some() { contexts.into_iter().map(cache).collect() } else { Vec::new() };
        Self { weights, kv_cache }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use models::gguf::{Array, GgufWriter, TensorType, Value};

    use super::*;

    const DEMO: &str = "../models/demo";

    fn demo() -> Report {
        Report::new(Checkpoint::open(Path::new(DEMO)).unwrap())
    }

    /// A GGUF of an architecture that is not served, with one tensor and a long array.
    fn strange(path: &Path) {
        let mut writer = GgufWriter::new();
        writer
            .key("general.architecture", Value::String("mamba\x1b[2J".to_owned()))
            .key("mamba\x1b[2J.block_count", Value::U32(3))
            .key("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; 2000])))
            .tensor("w", TensorType::Q8_0, &[2, 32]);
        let mut tensors = writer.create(path).unwrap();
        tensors.write(&[0; 68]).unwrap();
        tensors.finish().unwrap();
    }

    #[test]
    fn a_folder_is_shown_with_its_numbers_and_its_memory() {
        let report = demo();
        assert!(report.served, "{:?}", report.refusal);
        assert_eq!((report.facts.layers, report.facts.context), (Some(4), Some(512)));
        let parameters = report.parameters.unwrap();
        assert_eq!(report.memory.weights.f32, Some(parameters * 4));
        let tokens: Vec<u64> = report.memory.kv_cache.iter().map(|cache| cache.tokens).collect();
        assert_eq!(tokens, [512, 2048, 8192, 32_768]);
        // 2 · 4 layers · 2 heads · 32 elements · 2 bytes.
        assert_eq!(report.memory.kv_cache[0].bf16, Some(512 * 1024));
        let text = render::render(&report, true);
        assert!(text.contains("LlavaForConditionalGeneration"), "{text}");
        assert!(report.tensors.iter().all(|tensor| text.contains(&tensor.name)), "{text}");
    }

    #[test]
    fn a_file_of_weights_is_shown_without_a_configuration() {
        let report = Report::new(Checkpoint::open(&Path::new(DEMO).join("model.safetensors")).unwrap());
        assert_eq!(report.parameters, demo().parameters);
        assert!(report.memory.kv_cache.is_empty());
        assert!(!report.served);
        assert!(render::render(&report, false).contains("BF16"));
    }

    #[test]
    fn a_gguf_that_is_not_served_is_shown_and_says_which_key_refuses_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strange.gguf");
        strange(&path);
        let report = Report::new(Checkpoint::open(&path).unwrap());
        assert!(report.refusal.as_ref().unwrap().contains("general.architecture"), "{report:?}");
        assert_eq!((report.parameters, report.memory.weights.stored), (Some(64), Some(68)));
        assert_eq!(report.facts.layers, Some(3));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["metadata"]["tokenizer.ggml.token_type"]["length"], 2000);
        assert_eq!(json["tensors"][0]["type"], "Q8_0");
        let text = render::render(&report, true);
        assert!(text.contains("2000 entries: 1, 1"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn long_names_are_cut_before_every_row_becomes_as_wide() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.gguf");
        let long = "x".repeat(1 << 16);
        let mut writer = GgufWriter::new();
        writer.key("general.architecture", Value::String(long.clone())).key(long.as_str(), Value::U8(1));
        writer.tensor(long.as_str(), TensorType::F32, &[1]);
        for i in 0..1000 {
            writer.key(format!("key {i}"), Value::U8(1)).tensor(format!("tensor {i}"), TensorType::F32, &[1]);
        }
        let mut tensors = writer.create(&path).unwrap();
        (0..1001).for_each(|_| tensors.write(&[0; 4]).unwrap());
        tensors.finish().unwrap();
        let report = Report::new(Checkpoint::open(&path).unwrap());
        let text = render::render(&report, true);
        assert!(text.lines().count() > 2000 && text.len() < 2000 * 400, "{}", text.len());
    }

    #[test]
    fn a_path_that_is_no_utf_8_is_shown_and_is_json() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xff.gguf"));
        strange(&path);
        let report = Report::new(Checkpoint::open(&path).unwrap());
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["path"].as_str().unwrap().ends_with("m\u{fffd}.gguf"), "{}", json["path"]);
    }

    #[test]
    fn a_config_that_is_not_served_still_shows_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"model_type": "mamba", "num_hidden_layers": 5, "vocab_size": 7}"#;
        fs::write(folder.path().join("config.json"), config).unwrap();
        let report = Report::new(Checkpoint::open(folder.path()).unwrap());
        assert!(report.refusal.as_ref().unwrap().contains("model_type"), "{report:?}");
        assert_eq!((report.facts.layers, report.facts.vocab_size), (Some(5), Some(7)));
    }

    #[test]
    fn what_is_damaged_or_absent_is_one_line_and_misuse() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.gguf");
        strange(&whole);
        let content = fs::read(&whole).unwrap();
        let cut = folder.path().join("cut.gguf");
        fs::write(&cut, &content[..content.len() / 2]).unwrap();
        let weights = folder.path().join("cut.safetensors");
        fs::write(&weights, [9; 20]).unwrap();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), "{\n\"a\":\n").unwrap();
        for path in [cut, weights, model, folder.path().join("absent.gguf"), folder.path().to_owned()] {
            let error = Checkpoint::open(&path).unwrap_err();
            assert!(error.is::<crate::exit::Misuse>(), "{error:#}");
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = format!("{error:#}");
            assert!(text.contains(name) && !text.contains('\n'), "{text}");
        }
    }
}
