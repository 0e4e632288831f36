//! The demo model that is shipped: what its tokenizer and its template make of chats, as recorded from
//! transformers.

use std::path::Path;
use std::sync::Arc;

use models::{IncrementalDecoder, ModelFolder, TemplateInput};
use serde_json::{Map, Value};

fn demo() -> ModelFolder {
    ModelFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")).unwrap()
}

fn golden_chats() -> Vec<Value> {
    let json = std::fs::read_to_string(demo().path().join("goldens.json")).unwrap();
    let goldens: Value = serde_json::from_str(&json).unwrap();
    goldens["chats"].as_array().unwrap().clone()
}

fn ids_of(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn demo_chats_render_and_encode_as_in_transformers() {
    let (template, tokenizer) =
        (demo().load_chat_template().unwrap().unwrap(), demo().load_tokenizer().unwrap());
    for chat in golden_chats() {
        let input = TemplateInput {
            messages: &chat["messages"],
            tools: None,
            add_generation_prompt: true,
            extra: &Map::new(),
            now_unix: 0,
        };
        let rendered = template.render(&input).unwrap();
        assert_eq!(chat["rendered"], rendered.as_str());
        assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids_of(&chat["ids"]));
    }
}

#[test]
fn demo_answers_decode_as_in_transformers_at_once_and_token_by_token() {
    let tokenizer = Arc::new(demo().load_tokenizer().unwrap());
    for chat in golden_chats() {
        let (prompt, answer) = (ids_of(&chat["ids"]), ids_of(&chat["greedy_ids"]));
        assert_eq!(chat["text"], tokenizer.decode(&answer, true).unwrap().as_str());
        let mut decoder = IncrementalDecoder::new(Arc::clone(&tokenizer), &prompt, true);
        let mut text: String = answer.iter().map(|&id| decoder.push(id).unwrap()).collect();
        text.push_str(&decoder.finish().unwrap());
        assert_eq!(chat["text"], text.as_str());
    }
}

#[test]
fn the_demo_folder_is_whole() {
    let (demo, weights) = (demo(), demo().open_weights().unwrap());
    let vocab_size = demo.config().vocab_size;
    assert_eq!(demo.load_tokenizer().unwrap().vocab_size(), vocab_size);
    assert!(demo.eos_ids().iter().all(|&id| (id as usize) < vocab_size) && !demo.eos_ids().is_empty());
    assert!(demo.vision().is_some() && demo.vision_encoder().is_file());
    let embedding = weights.get_shared("language_model.model.embed_tokens.weight").unwrap();
    assert_eq!(embedding.shape, [vocab_size, demo.config().hidden_size]);
    assert_eq!(demo.hash().unwrap(), demo.hash().unwrap());
}
