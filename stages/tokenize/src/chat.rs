//! A conversation as a door sends it, and its prompt.

use models::{ChatTemplate, TemplateError, TemplateInput};
use schemas::{Failure, FailureKind};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The JSON object of [`schemas::request::Input::Chat`].
#[derive(Debug, Deserialize)]
struct Chat {
    /// Objects with `role` and `content`.
    messages: Vec<Value>,
    /// Functions that the model may call.
    tools: Option<Vec<Value>>,
    /// Further variables of the template.
    #[serde(default)]
    chat_template_kwargs: Map<String, Value>,
    /// Whether the prompt ends where an answer begins.
    #[serde(default = "yes")]
    add_generation_prompt: bool,
}

fn yes() -> bool {
    true
}

/// The text of the conversation in `json`, as `template` renders it at `now_unix`.
pub fn render(template: Option<&ChatTemplate>, json: &[u8], now_unix: i64) -> Result<String, Failure> {
    let Some(template) = template else {
        return Err(Failure::invalid(
            "messages",
            "the model has no chat template; send it a `prompt` instead",
        ));
    };
    let chat: Chat = serde_json::from_slice(json)
        .map_err(|error| Failure::invalid("messages", format!("the conversation is malformed: {error}")))?;
    if chat.messages.is_empty() {
        return Err(Failure::invalid("messages", "`messages` is empty, must hold at least one message"));
    }
    let tools = chat.tools.filter(|tools| !tools.is_empty()).map(Value::Array);
    let input = TemplateInput {
        messages: &Value::Array(chat.messages),
        tools: tools.as_ref(),
        add_generation_prompt: chat.add_generation_prompt,
        extra: &chat.chat_template_kwargs,
        now_unix,
    };
    template.render(&input).map_err(|error| match error {
        TemplateError::Refused(reason) => Failure::invalid("messages", reason),
        TemplateError::Render(reason) => {
            Failure::invalid("messages", format!("the chat template does not take these messages: {reason}"))
        }
        other => Failure::new(FailureKind::Internal, other.to_string()),
    })
}
