//! `messages`: a conversation, and how it reaches the model's chat template.

use std::borrow::Cow;
use std::fmt;

use poem_openapi::{Enum, Object};
use schemas::Failure;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::schema::any_of;

/// One message of a conversation.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: MessageRole,
    /// What is said. Text parts without images between them are joined by newlines. An assistant's message with `tool_calls` may lack it.
    #[oai(nullable)]
    pub content: Option<Content>,
    /// The speaker's name, for templates that print it.
    pub name: Option<String>,
    /// The call that a `tool` message answers.
    pub tool_call_id: Option<String>,
    /// The calls that an assistant made.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// A refusal of the assistant, for templates that print it.
    pub refusal: Option<String>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    audio: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    function_call: Option<Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    /// Instructions.
    System,
    /// Instructions, by OpenAI's newer name: the template sees `system`.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// What is said: a string, or an array of parts.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A string.
    Text(String),
    /// Parts.
    Parts(Vec<ContentPart>),
}

any_of!(Content, "content", [String, Vec<ContentPart>]);

/// One part of a message's content.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentPart {
    /// `text`, or `image_url` for a model that sees.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
    /// The image: PNG, JPEG, WebP, or the first frame of a GIF.
    pub image_url: Option<ImageUrl>,
    // Known, so that a part which carries one is refused for its kind, not for the name of its field.
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    input_audio: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    file: Option<Value>,
}

/// Where an image is.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageUrl {
    /// A data URL in base64, or an http(s) URL on a host that the gateway fetches from.
    pub url: String,
    /// `auto` or `high`: images are always seen as the model was made to see them. Default `auto`.
    pub detail: Option<String>,
}

/// An image of a conversation, and the field that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePart<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its path in the request.
    pub field: String,
}

/// A call of a tool that an assistant made.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Names the call in the tool's answer.
    pub id: String,
    /// `function`.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// What was called.
    pub function: CalledFunction,
}

/// What a tool call called.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalledFunction {
    /// The function's name.
    pub name: String,
    /// Its arguments, as a JSON text; the template sees the value.
    pub arguments: String,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of content parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Content::Parts(parts))
    }
}

/// What the chat template sees.
#[derive(Serialize)]
struct TemplateInput<'a> {
    messages: Vec<TemplateMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct TemplateMessage<'a> {
    role: MessageRole,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<TemplateContent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
}

/// Text, or with images among it, parts in order.
#[derive(Serialize)]
#[serde(untagged)]
enum TemplateContent<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<TemplatePart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum TemplatePart<'a> {
    Text { text: &'a str },
    Image,
}

/// The images of a conversation, in the order in which templates see them.
pub fn images(messages: &[Message]) -> Vec<ImagePart<'_>> {
    let mut images = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let Some(Content::Parts(parts)) = &message.content else { continue };
        for (part_index, part) in parts.iter().enumerate() {
            let field = format!("messages[{index}].content[{part_index}].image_url");
            images.extend(part.image_url.as_ref().map(|image| ImagePart { url: &image.url, field }));
        }
    }
    images
}

/// The JSON that tokenize renders: `messages`, and `chat_template_kwargs` when given.
pub fn template_input(messages: &[Message], kwargs: Option<&Map<String, Value>>) -> Result<Vec<u8>, Failure> {
    if messages.is_empty() {
        return Err(Failure::invalid("messages", "`messages` is empty"));
    }
    let messages = messages.iter().enumerate().map(|(index, message)| message.for_template(index));
    let input = TemplateInput { messages: messages.collect::<Result<_, _>>()?, chat_template_kwargs: kwargs };
    serde_json::to_vec(&input).map_err(|error| Failure::invalid("messages", error.to_string()))
}

impl Message {
    fn for_template(&self, index: usize) -> Result<TemplateMessage<'_>, Failure> {
        let unserved = [("audio", &self.audio), ("function_call", &self.function_call)];
        if let Some((field, _)) = unserved.into_iter().find(|(_, value)| value.is_some()) {
            let param = format!("messages[{index}].{field}");
            let message = format!("`{param}` is not served");
            return Err(Failure::invalid(param, message).with_code("unsupported_field"));
        }
        let calls = self.tool_calls.as_deref().filter(|calls| !calls.is_empty());
        if self.content.is_none()
            && !(self.role == MessageRole::Assistant && (calls.is_some() || self.refusal.is_some()))
        {
            let param = format!("messages[{index}].content");
            let message = format!("`{param}` is missing");
            return Err(Failure::invalid(param, message).with_code("missing_field"));
        }
        Ok(TemplateMessage {
            role: if self.role == MessageRole::Developer { MessageRole::System } else { self.role },
            content: self
                .content
                .as_ref()
                .map(|content| content.for_template(self.role, index))
                .transpose()?,
            name: self.name.as_deref(),
            tool_call_id: self.tool_call_id.as_deref(),
            tool_calls: calls.map(|calls| called(calls, index)).transpose()?,
            refusal: self.refusal.as_deref(),
        })
    }
}

impl Content {
    fn for_template(&self, role: MessageRole, message: usize) -> Result<TemplateContent<'_>, Failure> {
        let parts = match self {
            Self::Text(text) => return Ok(TemplateContent::Text(text.into())),
            Self::Parts(parts) => parts,
        };
        let field = |index: usize| format!("messages[{message}].content[{index}]");
        let seen = parts.iter().enumerate().map(|(index, part)| part.for_template(role, &field(index)));
        let seen = seen.collect::<Result<Vec<_>, _>>()?;
        let texts: Option<Vec<&str>> = seen
            .iter()
            .map(|part| match part {
                TemplatePart::Text { text } => Some(*text),
                TemplatePart::Image => None,
            })
            .collect();
        Ok(match texts {
            Some(texts) => TemplateContent::Text(texts.join("\n").into()),
            None => TemplateContent::Parts(seen),
        })
    }
}

impl ContentPart {
    fn for_template(&self, role: MessageRole, field: &str) -> Result<TemplatePart<'_>, Failure> {
        let missing = |what: &str| {
            let field = format!("{field}.{what}");
            let message = format!("`{field}` is missing");
            Failure::invalid(field, message).with_code("missing_field")
        };
        let unserved = |reason: String| {
            Failure::invalid(field, format!("`{field}` {reason}")).with_code("unsupported_content")
        };
        let carries_more = self.input_audio.is_some() || self.file.is_some();
        match self.kind.as_str() {
            "text" if self.image_url.is_some() || carries_more => {
                Err(unserved("is of type `text` and carries more than text".into()))
            }
            "text" => {
                self.text.as_deref().map(|text| TemplatePart::Text { text }).ok_or_else(|| missing("text"))
            }
            "image_url" if role != MessageRole::User => {
                Err(unserved("is an image, which only messages of the role `user` may have".into()))
            }
            "image_url" if self.text.is_some() || carries_more => {
                Err(unserved("is of type `image_url` and carries more than an image".into()))
            }
            "image_url" => {
                let image = self.image_url.as_ref().ok_or_else(|| missing("image_url"))?;
                image.check_detail(field).map(|()| TemplatePart::Image)
            }
            kind => {
                Err(unserved(format!("is of type `{kind:.100}`, only `text` and `image_url` are served")))
            }
        }
    }
}

impl ImageUrl {
    fn check_detail(&self, part: &str) -> Result<(), Failure> {
        match self.detail.as_deref() {
            None | Some("auto" | "high") => Ok(()),
            Some(other) => {
                let field = format!("{part}.image_url.detail");
                let message = format!("`{field}` is `{other:.100}`, only `auto` and `high` are served");
                Err(Failure::invalid(field, message).with_code("unsupported_value"))
            }
        }
    }
}

/// Templates expect the arguments as a value, as in Hugging Face's conversations, where OpenAI has its JSON text.
fn called(calls: &[ToolCall], message: usize) -> Result<Vec<Value>, Failure> {
    let called = |(index, call): (usize, &ToolCall)| {
        let arguments: Value = serde_json::from_str(&call.function.arguments).map_err(|error| {
            let param = format!("messages[{message}].tool_calls[{index}].function.arguments");
            let message = format!("`{param}` is not JSON: {error}");
            Failure::invalid(param, message)
        })?;
        let function = serde_json::json!({ "name": call.function.name, "arguments": arguments });
        Ok(serde_json::json!({ "id": call.id, "type": call.kind, "function": function }))
    };
    calls.iter().enumerate().map(called).collect()
}
