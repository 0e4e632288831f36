//! Requests in few words, and the text of answers.

use crate::generated::{
    ChatCompletion, ChatCompletionChunk, ChatRequest, ChatRequestStop, Completion, CompletionChunk,
    CompletionRequest, CompletionRequestPrompt, CompletionRequestStop, ContentPart, ImageUrl, Message,
    MessageContent, MessageRole, StreamOptions,
};

impl ChatRequest {
    /// Asks `model` to go on with `messages`, everything else being the gateway's default.
    pub fn new(model: impl Into<String>, messages: impl Into<Vec<Message>>) -> Self {
        Self { model: model.into(), messages: messages.into(), ..Self::default() }
    }
}

impl CompletionRequest {
    /// Asks `model` to go on with `prompt`, everything else being the gateway's default.
    pub fn new(model: impl Into<String>, prompt: impl Into<CompletionRequestPrompt>) -> Self {
        Self { model: model.into(), prompt: prompt.into(), ..Self::default() }
    }
}

impl StreamOptions {
    /// One more chunk at the end, with the usage and without choices.
    pub fn with_usage() -> Self {
        Self { include_usage: Some(true) }
    }
}

impl Message {
    /// What `role` says.
    pub fn new(role: MessageRole, content: impl Into<MessageContent>) -> Self {
        Self { role, content: Some(content.into()), ..Self::default() }
    }

    /// Instructions.
    pub fn system(content: impl Into<MessageContent>) -> Self {
        Self::new(MessageRole::System, content)
    }

    /// What a person says: text, or parts with images among them.
    pub fn user(content: impl Into<MessageContent>) -> Self {
        Self::new(MessageRole::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<MessageContent>) -> Self {
        Self::new(MessageRole::Assistant, content)
    }
}

impl ContentPart {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { type_: "text".into(), text: Some(text.into()), ..Self::default() }
    }

    /// The image at `url`: a data URL in base64, or an http(s) URL on a host that the gateway fetches from.
    pub fn image(url: impl Into<String>) -> Self {
        let image_url = ImageUrl { url: url.into(), detail: None };
        Self { type_: "image_url".into(), image_url: Some(image_url), ..Self::default() }
    }
}

impl ChatCompletion {
    /// The text of the first answer.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| &choice.message.content)
    }
}

impl ChatCompletionChunk {
    /// What is new in the text of the chunk's answer; empty when nothing is.
    pub fn text(&self) -> &str {
        self.choices.first().and_then(|choice| choice.delta.content.as_deref()).unwrap_or_default()
    }
}

impl Completion {
    /// The text of the first answer.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| &choice.text)
    }
}

impl CompletionChunk {
    /// What is new in the text of the chunk's answer; empty when nothing is.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| &choice.text)
    }
}

/// The generator converts from lists only.
macro_rules! from_text {
    ($($union:ident),+) => {
        $(
            impl From<&str> for $union {
                fn from(text: &str) -> Self {
                    Self::Text(text.to_owned())
                }
            }

            impl From<String> for $union {
                fn from(text: String) -> Self {
                    Self::Text(text)
                }
            }
        )+
    };
}

from_text!(MessageContent, ChatRequestStop, CompletionRequestPrompt, CompletionRequestStop);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_has_only_the_fields_that_were_set() {
        let image = vec![ContentPart::text("What is this?"), ContentPart::image("data:,")];
        let messages = [Message::system("Be brief."), Message::user(image)];
        let request = ChatRequest { temperature: Some(0.0), ..ChatRequest::new("m", messages) };
        let expected = json!({
            "model": "m",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [
                    { "type": "text", "text": "What is this?" },
                    { "type": "image_url", "image_url": { "url": "data:," } },
                ] },
            ],
            "temperature": 0.0,
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), expected);
        let request = CompletionRequest { stop: Some("x".into()), ..CompletionRequest::new("m", vec![1, 2]) };
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({ "model": "m", "prompt": [1, 2], "stop": "x" })
        );
    }
}
