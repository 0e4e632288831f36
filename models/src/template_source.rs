//! Where a model folder keeps its chat templates and the special tokens that they use.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::template::TemplateError;

/// The name of the template that is used unless tools are given and there is one for them.
pub(crate) const DEFAULT: &str = "default";
/// The name of the template that is used when tools are given.
pub(crate) const TOOL_USE: &str = "tool_use";

/// Templates and special tokens, as read.
#[derive(Debug, Default)]
pub(crate) struct TemplateSource {
    /// Jinja source by name.
    pub(crate) templates: BTreeMap<String, String>,
    /// Variables such as `bos_token`, by name.
    pub(crate) special_tokens: Map<String, Value>,
}

impl TemplateSource {
    /// Reads `tokenizer_config.json`, `chat_template.jinja` and `chat_templates/*.jinja`; as in transformers,
    /// templates in files of their own replace all those of `tokenizer_config.json`.
    pub(crate) fn read(folder: &Path) -> Result<Self, TemplateError> {
        let mut source = Self::default();
        if let Some(json) = read_if_there(folder, "tokenizer_config.json")? {
            source.read_tokenizer_config(&json)?;
        }
        let mut files = BTreeMap::new();
        let names = [(DEFAULT, "chat_template.jinja"), (TOOL_USE, "chat_templates/tool_use.jinja")];
        for (name, file) in names {
            if let Some(template) = read_if_there(folder, file)? {
                files.insert(name.to_owned(), template);
            }
        }
        if !files.is_empty() {
            source.templates = files;
        }
        Ok(source)
    }

    fn read_tokenizer_config(&mut self, json: &str) -> Result<(), TemplateError> {
        let file = "tokenizer_config.json";
        let mut config: Map<String, Value> =
            serde_json::from_str(json).map_err(|source| TemplateError::Json { file, source })?;
        match config.remove("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(template)) => {
                self.templates.insert(DEFAULT.to_owned(), template);
            }
            Some(Value::Array(named)) => self.templates = named.iter().filter_map(named_template).collect(),
            Some(_) => return Err(TemplateError::Form { file }),
        }
        self.special_tokens = config
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), token_text(name, value)?)))
            .collect();
        Ok(())
    }
}

/// An entry `{"name": …, "template": …}`.
fn named_template(entry: &Value) -> Option<(String, String)> {
    Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()))
}

/// The text of a special token, which is a string or `{"content": …}`.
fn token_text(name: &str, value: &Value) -> Option<Value> {
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    name.ends_with("_token").then(|| Value::from(text))
}

fn read_if_there(folder: &Path, file: &'static str) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(folder.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Io { file, source }),
    }
}
