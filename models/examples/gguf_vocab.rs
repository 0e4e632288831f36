//! Compares the token ids of a GGUF vocabulary with those expected.
//!
//! `gguf_vocab VOCABULARY.json TEXTS.inp IDS.out`: the metadata of a GGUF file as a JSON object of its
//! `general.architecture` and `tokenizer.ggml.…` keys, and a pair of files as llama.cpp has them beside its `models/ggml-vocab-*.gguf`:
//! texts with a line `__ggml_vocab_test__` after each, and a line of ids for each. Ends with status 1 when any
//! differ.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use models::Tokenizer;
use models::gguf::{Vocabulary, VocabularyFields};
use serde_json::Value;

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vocabulary, texts, expected] = arguments.as_slice() else {
        return Err("usage: gguf_vocab VOCABULARY.json TEXTS.inp IDS.out".into());
    };
    let metadata: Value = serde_json::from_slice(&std::fs::read(vocabulary)?)?;
    let start = Instant::now();
    let json = Vocabulary::new(fields(&metadata))?.tokenizer_json()?;
    let converted = start.elapsed();
    let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&json)?).map_err(|error| error.to_string())?;
    let loaded = start.elapsed();
    let (texts, expected) = (std::fs::read_to_string(texts)?, std::fs::read_to_string(expected)?);
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    let lines: Vec<&str> = expected.lines().collect();
    let mut different = 0;
    for (text, line) in texts.iter().zip(&lines) {
        let ids = tokenizer.encode(text, false)?;
        let wanted = line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        if ids != wanted {
            different += 1;
            println!("{text:?}\n  expected {wanted:?}\n  got      {ids:?}");
        }
    }
    println!(
        "{vocabulary}: {} of {} texts agree ({} lines of ids), converted in {converted:.1?}, loaded in {loaded:.1?}",
        texts.len().min(lines.len()) - different,
        texts.len(),
        lines.len(),
    );
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fields(metadata: &Value) -> VocabularyFields {
    let value = |name: &str| &metadata[format!("tokenizer.ggml.{name}")];
    let id = |name: &str| value(name).as_u64().and_then(|id| u32::try_from(id).ok());
    let array = |name: &str| value(name).as_array().cloned().unwrap_or_default();
    let texts = |name: &str| array(name).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    VocabularyFields {
        architecture: metadata["general.architecture"].as_str().map(str::to_owned),
        model: value("model").as_str().unwrap_or_default().to_owned(),
        pre: value("pre").as_str().map(str::to_owned),
        tokens: texts("tokens"),
        scores: array("scores").iter().filter_map(Value::as_f64).map(|score| score as f32).collect(),
        types: array("token_type").iter().filter_map(|kind| i32::try_from(kind.as_i64()?).ok()).collect(),
        merges: texts("merges"),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        eot: id("eot_token_id"),
        add_bos: value("add_bos_token").as_bool(),
        add_eos: value("add_eos_token").as_bool(),
        add_space_prefix: value("add_space_prefix").as_bool(),
    }
}
