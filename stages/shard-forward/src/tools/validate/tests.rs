use std::fs;
use std::path::PathBuf;

use models::gguf::{GgufWriter, TensorType};
use pipelines::tools::Element;
use serde_json::{Value, json};

use super::*;
use crate::tools::Misuse;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");

fn validate(model: &Path) -> ValidateReport {
    let (model, dtype) = (model.to_owned(), Element::Bf16);
    run(&Validate { model, dtype, threads: Some(1), markdown: false, json: false }).unwrap()
}

fn outcome(report: &ValidateReport, name: &str) -> Outcome {
    report.checks.iter().find(|check| check.name == name).unwrap().outcome
}

fn failed(report: &ValidateReport) -> Vec<&str> {
    let failed = report.checks.iter().filter(|check| check.outcome == Outcome::Failed);
    failed.map(|check| check.name).collect()
}

/// The demo model's files in a folder of their own.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "vision.onnx",
    ] {
        fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn edit_json(path: PathBuf, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn the_demo_model_passes_every_check() {
    let report = validate(Path::new(DEMO));
    assert!(report.passed(), "{report}");
    assert_eq!(report.checks.len() as u64, CHECKS);
    assert!(report.checks.iter().all(|check| check.outcome == Outcome::Passed), "{report}");
    assert!(report.markdown().contains("| shards | passed |"));
}

#[test]
fn a_model_of_pictures_without_its_encoder_fails() {
    let folder = copy();
    fs::remove_file(folder.path().join("vision.onnx")).unwrap();
    let report = validate(folder.path());
    assert_eq!(failed(&report), ["images"], "{report}");
    assert!(report.to_string().contains("tokenway convert --vision"), "{report}");
}

#[test]
fn models_without_tokenizers_pass_what_there_is_to_check() {
    for golden in ["gqa", "mixtral", "gemma2", "phi3"] {
        let report = validate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(golden));
        assert_eq!(failed(&report), ["tokenizer"], "{report}");
        for name in ["finite", "shapes", "forward pass", "shards", "greedy"] {
            assert_eq!(outcome(&report, name), Outcome::Passed, "{golden}: {report}");
        }
    }
}

#[test]
fn a_truncated_file_fails_and_what_needs_it_is_left_out() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let report = validate(folder.path());
    assert_eq!(outcome(&report, "files"), Outcome::Failed);
    assert_eq!(outcome(&report, "finite"), Outcome::Skipped);
    assert_eq!(outcome(&report, "tokenizer"), Outcome::Passed);
    assert!(!report.passed());
}

#[test]
fn a_weight_that_is_no_number_fails_with_its_name() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // The last tensor's last number, in bf16 or f32: all bits of its exponent are set.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
    fs::write(&path, bytes).unwrap();
    let report = validate(folder.path());
    assert!(failed(&report).contains(&"finite"), "{report}");
    let check = report.checks.iter().find(|check| check.name == "finite").unwrap();
    assert!(check.detail.starts_with("1 of"), "{report}");
}

#[test]
fn a_configuration_of_other_sizes_fails_the_shapes() {
    let folder = copy();
    edit_json(folder.path().join("config.json"), |config| {
        let text = if config["text_config"].is_object() { &mut config["text_config"] } else { config };
        text["intermediate_size"] = json!(text["intermediate_size"].as_u64().unwrap() + 32);
    });
    let report = validate(folder.path());
    assert_eq!(failed(&report), ["shapes"], "{report}");
    assert_eq!(outcome(&report, "forward pass"), Outcome::Skipped);
}

#[test]
fn a_configuration_that_is_not_read_fails_by_its_field() {
    let folder = copy();
    edit_json(folder.path().join("config.json"), |config| {
        let text = if config["text_config"].is_object() { &mut config["text_config"] } else { config };
        text["num_attention_heads"] = json!(-1);
    });
    let report = validate(folder.path());
    assert_eq!(failed(&report), ["configuration"], "{report}");
    assert_eq!(outcome(&report, "finite"), Outcome::Passed);
    assert!(report.to_string().contains("num_attention_heads"));
}

#[test]
fn a_token_outside_of_the_vocabulary_fails() {
    let folder = copy();
    edit_json(folder.path().join("tokenizer.json"), |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let mut more = added[0].clone();
        more["id"] = json!(263 + added.len());
        more["content"] = json!("<more>");
        // Tokens are numbered from the end of the vocabulary on, so it comes behind.
        added.push(more);
    });
    let report = validate(folder.path());
    assert_eq!(failed(&report), ["special tokens"], "{report}");
}

#[test]
fn a_template_with_a_mistake_and_one_that_leaves_the_message_out_fail() {
    for template in ["{% if %}", "{{ 1 / 0 }}", "nothing of the message"] {
        let folder = copy();
        edit_json(folder.path().join("tokenizer_config.json"), |config| {
            config["chat_template"] = json!(template);
        });
        let report = validate(folder.path());
        assert_eq!(failed(&report), ["chat template"], "{template}: {report}");
    }
}

#[test]
fn a_tokenizer_that_is_not_one_fails() {
    let folder = copy();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let report = validate(folder.path());
    assert_eq!(failed(&report), ["tokenizer"], "{report}");
    assert_eq!(outcome(&report, "chat template"), Outcome::Skipped);
    assert_eq!(outcome(&report, "shards"), Outcome::Passed);
}

#[test]
fn numbers_of_a_gguf_are_looked_at_in_its_own_types() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, scale: u16| {
        let path = folder.path().join(name);
        let mut writer = GgufWriter::new();
        writer.tensor("blk.0.ffn_up.weight", TensorType::Q8_0, &[2, 32]);
        let mut out = writer.create(&path).unwrap();
        // A block: a scale in f16, then 32 numbers of 8 bits.
        let mut block = [1_u8; 34];
        block[..2].copy_from_slice(&scale.to_le_bytes());
        out.write(&[block, block].concat()).unwrap();
        out.finish().unwrap();
        path
    };
    for (name, scale, expected) in [("fine", 0x3c00, Outcome::Passed), ("nan", 0x7e00, Outcome::Failed)] {
        let report = validate(&write(name, scale));
        assert_eq!(outcome(&report, "finite"), expected, "{report}");
        assert_eq!(outcome(&report, "configuration"), Outcome::Failed, "it has none");
    }
}

#[test]
fn where_there_is_no_model_is_misuse() {
    let absent = Validate {
        model: "/nowhere".into(),
        dtype: Element::F32,
        threads: None,
        markdown: false,
        json: false,
    };
    assert!(run(&absent).unwrap_err().is::<Misuse>());
}
