//! Keys of a GGUF: what it is, the architecture's sizes, and chat templates.

use super::error::ConvertError;
use super::from_folder::Source;
use crate::gguf::{Array, Value};
use crate::template_source::{DEFAULT, TemplateSource};

/// A whole number of 32 bits, which llama.cpp wants wherever it fits.
pub(super) fn whole(number: usize) -> Value {
    u32::try_from(number).map_or(Value::U64(number as u64), Value::U32)
}

/// A float of 32 bits.
pub(super) fn float(number: f64) -> Value {
    Value::F32(number as f32)
}

/// `general.…`. The name is that of the folder.
pub(super) fn general(source: &Source<'_>) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut keys = vec![
        ("general.architecture".to_owned(), text(source.target.architecture)),
        ("general.type".to_owned(), text("model")),
    ];
    let path = source.folder.path();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(name) = path.file_name() {
        keys.push(("general.name".to_owned(), text(&name.to_string_lossy())));
    }
    keys
}

/// The sizes.
pub(super) fn architecture(source: &Source<'_>) -> Result<Vec<(String, Value)>, ConvertError> {
    let config = source.config();
    // The configuration's is what is served, which scaling of the rotary embedding changes.
    let positions = source.fields.whole("max_position_embeddings", 1..=usize::MAX)?;
    let positions = positions.unwrap_or(config.max_position_embeddings as usize);
    let mut keys = vec![
        ("block_count", whole(config.num_hidden_layers)),
        ("context_length", whole(positions)),
        ("embedding_length", whole(config.hidden_size)),
        ("feed_forward_length", whole(config.intermediate_size)),
        ("attention.head_count", whole(config.num_attention_heads)),
        ("attention.head_count_kv", whole(config.num_key_value_heads)),
        ("attention.key_length", whole(config.head_dim)),
        ("attention.value_length", whole(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", float(config.rms_norm_eps)),
    ];
    if matches!(source.target.architecture, "llama" | "smollm3") {
        keys.push(("vocab_size", whole(config.vocab_size)));
    }
    if let Some(experts) = &config.experts {
        keys.push(("expert_count", whole(experts.count)));
        keys.push(("expert_used_count", whole(experts.per_token)));
        if source.target.architecture == "qwen3moe" {
            keys.push(("expert_feed_forward_length", whole(experts.intermediate_size)));
        }
    }
    keys.extend(windows(source)?);
    let caps = [
        ("attn_logit_softcapping", config.attention_softcap),
        ("final_logit_softcapping", config.logit_softcap),
    ];
    keys.extend(caps.into_iter().filter_map(|(key, cap)| Some((key, float(cap?)))));
    Ok(named(source, keys))
}

/// With the architecture's name before them.
pub(super) fn named(source: &Source<'_>, keys: Vec<(&str, Value)>) -> Vec<(String, Value)> {
    let name = |key: &str| format!("{}.{key}", source.target.architecture);
    keys.into_iter().map(|(key, value)| (name(key), value)).collect()
}

/// The window, and which layers have it where those are not llama.cpp's usual ones.
fn windows(source: &Source<'_>) -> Result<Vec<(&'static str, Value)>, ConvertError> {
    let layers = &source.config().layers;
    let given = source.fields.whole("sliding_window", 1..=usize::MAX)?;
    let absent = !source.fields.names("sliding_window");
    let (period, is_local): (usize, Vec<bool>) = match source.target.architecture {
        // 0 is none.
        "phi3" => return Ok(vec![("attention.sliding_window", whole(given.unwrap_or(0)))]),
        "gemma2" => (2, layers.iter().map(|layer| layer.window.is_some()).collect()),
        "gemma3" => (6, layers.iter().map(|layer| layer.rope == Some(1)).collect()),
        _ => return Ok(Vec::new()),
    };
    // transformers' own default.
    let Some(window) = given.or_else(|| absent.then_some(4096)) else {
        return Err(source.inexpressible("sliding_window"));
    };
    if source.target.architecture == "gemma3" && !is_local.contains(&true) {
        return Ok(Vec::new());
    }
    let mut keys = vec![("attention.sliding_window", whole(window))];
    let usual = (0..is_local.len()).map(|i| i % period != period - 1);
    // A window that is longer than any sequence is none in the configuration, wherever it stands.
    let any = source.target.architecture == "gemma2" && !is_local.contains(&true);
    if !any && !usual.eq(is_local.iter().copied()) {
        keys.push(("attention.sliding_window_pattern", Value::Array(Array::Bool(is_local))));
    }
    Ok(keys)
}

/// `tokenizer.chat_template`, and beside it those of other names.
pub(super) fn templates(source: &TemplateSource) -> Vec<(String, Value)> {
    let key = |name: &str| match name {
        DEFAULT => "tokenizer.chat_template".to_owned(),
        name => format!("tokenizer.chat_template.{name}"),
    };
    let templates = source.templates.iter();
    let mut keys: Vec<(String, Value)> =
        templates.map(|(name, template)| (key(name), Value::String(template.clone()))).collect();
    let others: Vec<String> = source.templates.keys().filter(|name| *name != DEFAULT).cloned().collect();
    if !others.is_empty() {
        keys.push(("tokenizer.chat_templates".to_owned(), Value::Array(Array::String(others))));
    }
    keys
}
