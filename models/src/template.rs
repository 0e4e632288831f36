//! Chat templates, rendered as transformers renders them.

use std::error::Error as StdError;
use std::path::Path;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::parse_strftime_owned;

use crate::gguf::GgufVocabularyError;
use crate::python_value::{format_python, from_json, is_iterable, is_number, is_sequence, length};
use crate::template_source::{DEFAULT, TOOL_USE, TemplateSource};
use crate::to_json::to_json;

/// Instructions that a template may take: thousands of messages need less, and it passes in well under a
/// second.
const FUEL: u64 = 10_000_000;

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file could not be read.
    #[error("`{file}`")]
    Io {
        /// Name of the file.
        file: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a JSON object.
    #[error("`{file}` is not a JSON object")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// The file has a template that is neither text nor a list of named ones.
    #[error("`chat_template` in `{file}` is neither a string nor a list")]
    Form {
        /// Name of the file.
        file: &'static str,
    },
    /// A GGUF has no special tokens to render with.
    #[error(transparent)]
    Gguf(#[from] GgufVocabularyError),
    /// There are templates, but none to use without tools.
    #[error("there is no chat template named `default`")]
    NoDefault,
    /// The template is not Jinja.
    #[error("chat template `{name}` has a mistake")]
    Syntax {
        /// `default` or another name.
        name: String,
        /// Where it is wrong.
        source: Error,
    },
    /// The template does not accept these messages and says why: a mistake of whoever sent them.
    #[error("{0}")]
    Refused(String),
    /// The template failed, often because a message lacks what it expects.
    #[error("chat template failed")]
    Render(#[source] Error),
}

/// What a prompt is made from.
#[derive(Debug, Clone, Copy)]
pub struct TemplateInput<'a> {
    /// The conversation: a list of objects with `role` and `content`.
    pub messages: &'a Json,
    /// Functions that the model may call.
    pub tools: Option<&'a Json>,
    /// Whether the prompt ends where an answer begins.
    pub add_generation_prompt: bool,
    /// Further variables (`chat_template_kwargs`). They replace special tokens of the same name.
    pub extra: &'a Map<String, Json>,
    /// What `strftime_now` takes for now, in seconds since 1970, UTC.
    pub now_unix: i64,
}

/// The chat template of a model, compiled.
///
/// One thing that Jinja has is missing: `%` between a format string and its values. A template that comes to
/// it fails.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Map<String, Json>,
    has_tool_use: bool,
}

impl ChatTemplate {
    /// Reads the template of a model folder; `None` when there is none.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, TemplateError> {
        Self::from_source(TemplateSource::read(folder)?)
    }

    /// Compiles what was read; `None` when there is no template.
    pub(crate) fn from_source(source: TemplateSource) -> Result<Option<Self>, TemplateError> {
        if source.templates.is_empty() { Ok(None) } else { Self::compile(source).map(Some) }
    }

    /// Compiles one template. `special_tokens` are variables such as `bos_token`.
    pub fn new(template: &str, special_tokens: Map<String, Json>) -> Result<Self, TemplateError> {
        let templates = [(DEFAULT.to_owned(), template.to_owned())].into();
        Self::compile(TemplateSource { templates, special_tokens })
    }

    /// The text of a special token such as `bos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).and_then(Json::as_str)
    }

    /// Renders the prompt of a conversation.
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String, TemplateError> {
        let name = if input.tools.is_some() && self.has_tool_use { TOOL_USE } else { DEFAULT };
        let template = self.environment.get_template(name).map_err(TemplateError::Render)?;
        template.render(self.variables(input)).map_err(refused_or_failed)
    }

    fn compile(source: TemplateSource) -> Result<Self, TemplateError> {
        if !source.templates.contains_key(DEFAULT) {
            return Err(TemplateError::NoDefault);
        }
        let has_tool_use = source.templates.contains_key(TOOL_USE);
        let mut environment = environment();
        for (name, template) in source.templates {
            environment
                .add_template_owned(name.clone(), without_generation_tags(&template))
                .map_err(|source| TemplateError::Syntax { name, source })?;
        }
        Ok(Self { environment, special_tokens: source.special_tokens, has_tool_use })
    }

    /// The variables that transformers gives to a template, in the order in which later ones replace earlier
    /// ones.
    fn variables(&self, input: &TemplateInput<'_>) -> Value {
        let now = input.now_unix;
        let strftime_now = Value::from_function(move |format: &str| strftime(now, format));
        let mut variables = vec![("strftime_now", strftime_now), ("documents", Value::from(()))];
        for (name, value) in self.special_tokens.iter().chain(input.extra) {
            variables.push((name, from_json(value)));
        }
        variables.push(("messages", from_json(&plain_messages(input.messages))));
        variables.push(("tools", input.tools.map_or(Value::from(()), from_json)));
        variables.push(("add_generation_prompt", Value::from(input.add_generation_prompt)));
        variables.into_iter().collect()
    }
}

/// Jinja as transformers sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(format_python);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("number", is_number);
    environment.add_function("raise_exception", raise_exception);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false); // its errors would hold the messages
    environment
}

/// The text given to `raise_exception`, carried through the engine as the source of its error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let refusal = Refusal(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "the template refused").with_source(refusal))
}

fn refused_or_failed(error: Error) -> TemplateError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(Refusal(message)) = current.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = current.source();
    }
    TemplateError::Render(error)
}

fn strftime(now_unix: i64, format: &str) -> Result<String, Error> {
    let failed =
        |error: &dyn StdError| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"));
    let now = OffsetDateTime::from_unix_timestamp(now_unix).map_err(|error| failed(&error))?;
    let format = parse_strftime_owned(format).map_err(|error| failed(&error))?;
    now.format(&format).map_err(|error| failed(&error))
}

/// Drops what is null from each message and gives its reasoning the names that templates read, as
/// `apply_chat_template` of transformers 5 does.
fn plain_messages(messages: &Json) -> Json {
    let Some(messages) = messages.as_array() else { return messages.clone() };
    messages
        .iter()
        .map(|message| message.as_object().map_or_else(|| message.clone(), plain_message))
        .collect()
}

fn plain_message(message: &Map<String, Json>) -> Json {
    let mut plain: Map<String, Json> = message.clone();
    plain.retain(|_, value| !value.is_null());
    let names = ["reasoning_content", "thinking", "reasoning"];
    let Some(reasoning) = names.iter().find_map(|name| plain.get(*name)).cloned() else {
        return Json::Object(plain);
    };
    let mut aliased: Map<String, Json> = [("thinking".to_owned(), reasoning.clone())].into_iter().collect();
    aliased.extend(plain);
    aliased.insert("reasoning_content".to_owned(), reasoning);
    Json::Object(aliased)
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, which mark what a model is trained on and have no
/// effect on the text, by a block that has none either. They are a scope of their own, so that block is
/// `with`.
fn without_generation_tags(template: &str) -> String {
    let mut pieces = template.split("{%");
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        replaced.push_str("{%");
        let inside = piece.split_once("%}").map_or(piece, |(inside, _)| inside);
        match inside.trim_matches(['-', '+', ' ', '\t', '\n', '\r']) {
            "generation" => replaced.push_str(&piece.replacen("generation", "with", 1)),
            "endgeneration" => replaced.push_str(&piece.replacen("endgeneration", "endwith", 1)),
            _ => replaced.push_str(piece),
        }
    }
    replaced
}
