//! A whole folder: what is found, what may be absent, and its fingerprint.

use std::fs;
use std::path::Path;

use models::{FolderError, ModelFolder, TokenizerError};
use serde_json::{Map, json};

use crate::tokenizers_made_here::byte_level_json;

fn write_model(folder: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "vocab_size": 263, "max_position_embeddings": 64, "eos_token_id": 5,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), byte_level_json().to_string()).unwrap();
    let weights = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &[0; 8]).unwrap();
    let file = safetensors::serialize([("model.norm.weight", weights)], None).unwrap();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

#[test]
fn a_folder_leads_to_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"chat_template": "{{ messages | length }}"}"#)
        .unwrap();
    let model = ModelFolder::open(folder.path()).unwrap();
    assert_eq!((model.path(), model.context_length()), (folder.path(), 64));
    assert_eq!(model.load_tokenizer().unwrap().vocab_size(), 263);
    assert!(model.load_chat_template().unwrap().is_some());
    assert!(model.open_weights().unwrap().contains("model.norm.weight"));
}

#[test]
fn end_tokens_of_the_generation_config_come_first() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    assert_eq!(ModelFolder::open(folder.path()).unwrap().eos_ids(), [5]);
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [6, 7]}"#).unwrap();
    assert_eq!(ModelFolder::open(folder.path()).unwrap().eos_ids(), [6, 7]);
}

#[test]
fn missing_files_are_named_by_whoever_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let error = ModelFolder::open(folder.path()).unwrap_err();
    assert!(matches!(error, FolderError::Io { path, .. } if path.ends_with("config.json")));
    write_model(folder.path());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let model = ModelFolder::open(folder.path()).unwrap();
    assert!(
        matches!(model.load_tokenizer(), Err(TokenizerError::Load { path, .. }) if path.ends_with("tokenizer.json"))
    );
    assert!(model.load_chat_template().unwrap().is_none());
}

#[test]
fn the_fingerprint_depends_on_content_and_on_nothing_else() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(first.path());
    write_model(second.path());
    let hash = |folder: &Path| ModelFolder::open(folder).unwrap().hash().unwrap();
    let plain = hash(first.path());
    assert_eq!(hash(second.path()), plain);
    fs::write(second.path().join("README.md"), "about").unwrap();
    assert_eq!(hash(second.path()), plain);
    let mut seen = vec![plain];
    let encoder = ["vision.onnx", "vision.onnx.data"];
    for file in
        ["chat_template.jinja", "tokenizer_config.json", "generation_config.json"].iter().chain(&encoder)
    {
        fs::write(second.path().join(file), "{}").unwrap();
        seen.push(hash(second.path()));
    }
    for file in ["config.json", "tokenizer.json"] {
        let mut content = fs::read(second.path().join(file)).unwrap();
        content.push(b'\n');
        fs::write(second.path().join(file), content).unwrap();
        seen.push(hash(second.path()));
    }
    let mut weights = fs::read(second.path().join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() = 1;
    fs::write(second.path().join("model.safetensors"), weights).unwrap();
    seen.push(hash(second.path()));
    let n_changes = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), n_changes);
}

#[test]
fn a_template_in_a_file_of_its_own_wins() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let render = |tools: Option<&serde_json::Value>| {
        let template = ModelFolder::open(folder.path()).unwrap().load_chat_template().unwrap().unwrap();
        let (messages, extra) = (json!([]), Map::new());
        let input = models::TemplateInput {
            messages: &messages,
            tools,
            add_generation_prompt: false,
            extra: &extra,
            now_unix: 0,
        };
        template.render(&input).unwrap()
    };
    let config = json!({
        "bos_token": {"content": "<b>"},
        "eos_token": "<e>",
        "chat_template": [
            {"name": "default", "template": "config {{ bos_token }}{{ eos_token }}"},
            {"name": "tool_use", "template": "config with tools"},
        ],
    });
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tools = json!([]);
    assert_eq!(
        (render(None).as_str(), render(Some(&tools)).as_str()),
        ("config <b><e>", "config with tools")
    );
    fs::write(folder.path().join("chat_template.jinja"), "file {{ bos_token }}").unwrap();
    assert_eq!((render(None).as_str(), render(Some(&tools)).as_str()), ("file <b>", "file <b>"));
}
