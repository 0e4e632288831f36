//! Conversations with images against transformers, for the tiny checkpoints of `tests/goldens/vision`.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::path::{Path, PathBuf};

use models::ModelFolder;
use schemas::prompt::{Grid, Prompt};
use schemas::request::{BlobRef, Context, Generation, Image, Input, Payload, Request};
use schemas::{Failure, FailureKind, InstanceId, SessionId};
use serde_json::{Value, json};
use tokenize::Model;

fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision").join(model)
}

fn load(model: &str) -> Model {
    Model::load(&ModelFolder::open(&golden(model)).unwrap()).unwrap()
}

/// As it is looked at.
fn size(file: &str) -> (u32, u32) {
    match file {
        "portrait.png" => (75, 120),
        "rotated.jpg" => (90, 144),
        "clear.png" => (48, 40),
        "wide.gif" => (200, 48),
        "small.webp" => (41, 40),
        other => panic!("{other}"),
    }
}

/// A request for `messages`, in which images are of the type `image`, with images of these sizes.
fn request(messages: &Value, sizes: &[(u32, u32)]) -> Request {
    let image = |(i, &(width, height)): (usize, &(u32, u32))| {
        let file = BlobRef { hash: [i as u8; 32], bytes: 1 };
        Image { file, width, height, field: format!("image {i}") }
    };
    Request {
        context: Context {
            session: SessionId(1),
            choice: 0,
            attempt: 0,
            door: InstanceId(5),
            remaining_ms: 1000,
            alone: false,
            traceparent: None,
        },
        now_unix: 0,
        input: Input::Chat(Payload::Inline(json!({ "messages": messages }).to_string().into())),
        images: sizes.iter().enumerate().map(image).collect(),
        generation: Generation::default(),
        forced: Payload::Inline(Vec::new()),
    }
}

/// The request of a golden's messages.
fn request_of(messages: &Value) -> Request {
    let (mut messages, mut sizes) = (messages.clone(), Vec::new());
    for message in messages.as_array_mut().unwrap() {
        for part in message["content"].as_array_mut().unwrap() {
            if let Some(url) = part.pointer("/image_url/url") {
                sizes.push(size(url.as_str().unwrap()));
                *part = json!({"type": "image"});
            }
        }
    }
    request(&messages, &sizes)
}

fn ids(prompt: &Prompt) -> Vec<u64> {
    let Payload::Inline(bytes) = &prompt.ids else { panic!("a blob") };
    bytes.as_chunks::<4>().0.iter().map(|id| u64::from(u32::from_le_bytes(*id))).collect()
}

fn refusal(model: &str, text: &str, sizes: &[(u32, u32)]) -> Failure {
    let mut parts = vec![json!({"type": "image"}); sizes.len()];
    parts.push(json!({"type": "text", "text": text}));
    load(model).tokenize(&request(&json!([{"role": "user", "content": parts}]), sizes), &[]).unwrap_err()
}

#[test]
fn prompts_are_those_of_transformers_and_images_lie_in_their_placeholders() {
    for name in ["llava", "smolvlm", "qwen2_5_vl"] {
        let model = load(name);
        let golden: Value =
            serde_json::from_slice(&std::fs::read(golden(name).join("golden.json")).unwrap()).unwrap();
        let image_token = golden["image_token_id"].as_u64().unwrap();
        let cases = golden["cases"].as_array().unwrap().iter();
        for case in cases.filter(|case| case["do_image_splitting"] != false) {
            let prompt = model.tokenize(&request_of(&case["messages"]), &[]).unwrap();
            let expected: Vec<u64> =
                case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
            let found = ids(&prompt);
            assert_eq!(found, expected, "{name} {}", case["messages"]);
            let inside =
                |span: &schemas::prompt::Span| span.start as usize..(span.start + span.rows) as usize;
            assert!(prompt.spans.iter().all(|span| found[inside(span)].iter().all(|id| *id == image_token)));
            check_grids(name, &prompt, &case["images"]);
        }
    }
}

fn check_grids(name: &str, prompt: &Prompt, images: &Value) {
    let grids: Vec<Grid> = if name == "qwen2_5_vl" {
        let side = |image: &Value, side: usize| image["grid"][side].as_u64().unwrap() as u32;
        // Marks stand around each image.
        let spans = prompt.spans.iter().zip(images.as_array().unwrap());
        spans.map(|(span, it)| Grid { start: span.start, rows: side(it, 0), columns: side(it, 1) }).collect()
    } else {
        Vec::new()
    };
    assert_eq!(prompt.grids, grids, "{name}");
    assert!(grids.iter().zip(&prompt.images).all(|(grid, image)| grid.len() == u64::from(image.rows)));
}

#[test]
fn images_side_by_side_are_told_apart() {
    let mut model = load("qwen2_5_vl");
    // A template without marks around images.
    let source = "{% for part in messages[0].content %}<|image_pad|>{% endfor %}";
    let template = models::ChatTemplate::new(source, serde_json::Map::new()).unwrap();
    model.template = Some(tokenize::chat::Conversations::new(template));
    let messages = json!([{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]);
    let prompt = model.tokenize(&request(&messages, &[(56, 84), (84, 56)]), &[]).unwrap();
    assert_eq!(prompt.spans.len(), 1);
    let grids = [Grid { start: 0, rows: 3, columns: 2 }, Grid { start: 6, rows: 2, columns: 3 }];
    assert_eq!(prompt.grids, grids);
}

#[test]
fn videos_and_images_that_no_model_sees_are_refused() {
    for text in ["a <|video_pad|> here", "<|image_pad|>"] {
        for sizes in [&[][..], &[(48, 40)]] {
            if text == "<|image_pad|>" && sizes.is_empty() {
                continue; // Without images it is text.
            }
            let failure = refusal("qwen2_5_vl", text, sizes);
            assert_eq!((failure.kind, failure.param.as_deref()), (FailureKind::Invalid, Some("messages")));
        }
    }
    for thin in [(401, 2), (2, 401), (0, 9)] {
        let failure = refusal("qwen2_5_vl", "What?", &[thin]);
        assert_eq!(failure.param.as_deref(), Some("image 0"));
        assert_eq!(failure.code.as_deref(), Some("invalid_image"));
    }
}
