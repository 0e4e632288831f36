//! A conversation as a door sends it, and its prompt.

use models::{ChatTemplate, TemplateError, TemplateInput};
use schemas::{Failure, FailureKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

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

/// A chat template, and the form in which it takes the content of a message.
#[derive(Debug)]
pub struct Conversations {
    template: ChatTemplate,
    /// Whether it reads content that is a string; those of many vision models loop over parts, and say nothing of a string.
    reads_strings: bool,
}

impl Conversations {
    /// Tries `template` on a message.
    pub fn new(template: ChatTemplate) -> Self {
        const PROBE: &str = "tokenway-probe";
        let messages = json!([{ "role": "user", "content": PROBE }]);
        let input = TemplateInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            extra: &Map::new(),
            now_unix: 0,
        };
        // One that refuses a single message of a user is none to judge by this.
        let reads_strings = template.render(&input).map_or(true, |text| text.contains(PROBE));
        Self { template, reads_strings }
    }

    /// The token that begins sequences.
    pub fn bos(&self) -> Option<&str> {
        self.template.special_token("bos_token")
    }

    /// `message` with its text as a part, where the template reads parts only.
    fn in_its_form(&self, mut message: Value) -> Value {
        if !self.reads_strings
            && let Some(content) = message.get_mut("content")
            && let Some(text) = content.as_str()
        {
            *content = json!([{ "type": "text", "text": text }]);
        }
        message
    }
}

/// The text of the conversation in `json`, as `template` renders it at `now_unix`.
pub fn render(template: Option<&Conversations>, json: &[u8], now_unix: i64) -> Result<String, Failure> {
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
    let messages = chat.messages.into_iter().map(|message| template.in_its_form(message)).collect();
    let input = TemplateInput {
        messages: &Value::Array(messages),
        tools: tools.as_ref(),
        add_generation_prompt: chat.add_generation_prompt,
        extra: &chat.chat_template_kwargs,
        now_unix,
    };
    template.template.render(&input).map_err(|error| match error {
        TemplateError::Refused(reason) => Failure::invalid("messages", reason),
        TemplateError::Render(reason) => {
            Failure::invalid("messages", format!("the chat template does not take these messages: {reason}"))
        }
        other => Failure::new(FailureKind::Internal, other.to_string()),
    })
}
