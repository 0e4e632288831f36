//! Answers of `POST /v1/chat/completions`.

use pipelines::session::Piece;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::dialect::{Dialect, Head, is_visible};
use super::logprobs::ChatLogprobs;
use super::usage::{FinishReason, Usage};
use crate::http::collect::Whole;

/// The answers to a chat request.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatCompletion {
    /// Begins with `chatcmpl-`.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
    /// The model that answered.
    pub model: String,
    /// Fingerprint of weights, tokenizer, template and layer plan.
    pub system_fingerprint: String,
    /// One entry an answer.
    pub choices: Vec<ChatChoice>,
    /// Tokens of the request.
    pub usage: Usage,
}

/// One answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatChoice {
    /// Its place among the answers.
    pub index: u32,
    /// What the model said.
    pub message: AnswerMessage,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// When the request asked for them.
    #[oai(nullable)]
    pub logprobs: Option<ChatLogprobs>,
}

/// What the model said.
#[derive(Debug, Clone, Object, Serialize)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: AnswerRole,
    /// The text.
    pub content: String,
}

/// Who speaks in an answer.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum AnswerRole {
    /// The model.
    Assistant,
}

/// One event of a streamed chat answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatCompletionChunk {
    /// Begins with `chatcmpl-`, the same in all events of a stream.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// Seconds since the Unix epoch, the same in all events of a stream.
    pub created: i64,
    /// The model that answers.
    pub model: String,
    /// Fingerprint of weights, tokenizer, template and layer plan.
    pub system_fingerprint: String,
    /// The piece of one answer; empty in the event with the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// With `stream_options.include_usage`: null, and the tokens of the request in the last event.
    #[serde(skip_serializing_if = "MaybeUndefined::is_undefined")]
    #[oai(nullable)]
    pub usage: MaybeUndefined<Usage>,
}

/// The next piece of one answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatChunkChoice {
    /// The answer's place among the answers.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// Why the answer ended; null before its last piece.
    #[oai(nullable)]
    pub finish_reason: Option<FinishReason>,
    /// When the request asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChatLogprobs>,
}

/// What is new in an answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatDelta {
    /// In the first piece of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<AnswerRole>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Writes chat answers.
pub struct ChatDialect {
    /// The latest event: the next one replaces its choice only.
    chunk: ChatCompletionChunk,
    has_begun: Vec<bool>,
    with_logprobs: bool,
}

impl ChatDialect {
    /// For `answers` answers; with `include_usage`, every event has a `usage`.
    pub fn new(head: Head, answers: usize, with_logprobs: bool, include_usage: bool) -> Self {
        let chunk = ChatCompletionChunk {
            id: head.id,
            object: "chat.completion.chunk".into(),
            created: head.created,
            model: head.model,
            system_fingerprint: head.fingerprint,
            choices: Vec::new(),
            usage: if include_usage { MaybeUndefined::Null } else { MaybeUndefined::Undefined },
        };
        Self { chunk, has_begun: vec![false; answers], with_logprobs }
    }
}

impl Dialect for ChatDialect {
    type Event = ChatCompletionChunk;
    type Document = ChatCompletion;

    fn event(&mut self, index: usize, piece: Piece) -> Option<&ChatCompletionChunk> {
        if !is_visible(&piece) {
            return None;
        }
        let is_first = !std::mem::replace(&mut self.has_begun[index], true);
        let delta = ChatDelta {
            role: is_first.then_some(AnswerRole::Assistant),
            content: (is_first || !piece.text.is_empty()).then_some(piece.text),
        };
        self.chunk.choices.clear();
        self.chunk.choices.push(ChatChunkChoice {
            index: index as u32,
            delta,
            finish_reason: piece.finish.map(FinishReason::from),
            logprobs: self.with_logprobs.then(|| ChatLogprobs::new(piece.logprobs)),
        });
        Some(&self.chunk)
    }

    fn usage(&mut self, usage: Usage) -> &ChatCompletionChunk {
        self.chunk.choices.clear();
        self.chunk.usage = MaybeUndefined::Value(usage);
        &self.chunk
    }

    fn document(self, answers: Vec<Whole>, usage: Usage) -> ChatCompletion {
        let with_logprobs = self.with_logprobs;
        let choice = |(index, answer): (usize, Whole)| ChatChoice {
            index: index as u32,
            message: AnswerMessage { role: AnswerRole::Assistant, content: answer.text },
            finish_reason: answer.finish.into(),
            logprobs: with_logprobs.then(|| ChatLogprobs::new(answer.logprobs)),
        };
        ChatCompletion {
            id: self.chunk.id,
            object: "chat.completion".into(),
            created: self.chunk.created,
            model: self.chunk.model,
            system_fingerprint: self.chunk.system_fingerprint,
            choices: answers.into_iter().enumerate().map(choice).collect(),
            usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::token::Finish;
    use serde_json::{Value, json};

    use super::*;

    fn piece(text: &str, finish: Option<Finish>) -> Piece {
        Piece { text: text.into(), ids: vec![1], logprobs: Vec::new(), finish }
    }

    fn head() -> Head {
        Head { id: "chatcmpl-1".into(), created: 1, model: "m".into(), fingerprint: "f".into() }
    }

    #[test]
    fn each_answer_begins_with_its_role_and_ends_with_its_reason() {
        let mut dialect = ChatDialect::new(head(), 2, false, true);
        let mut event =
            |index, piece| dialect.event(index, piece).map(|event| serde_json::to_value(event).unwrap());
        assert_eq!(event(0, piece("", None)), None);
        let first = event(0, piece("a", None)).unwrap();
        let choice =
            json!({ "index": 0, "delta": { "role": "assistant", "content": "a" }, "finish_reason": null });
        assert_eq!(first["choices"], json!([choice]));
        assert_eq!(first["usage"], Value::Null);
        assert!(first.as_object().unwrap().contains_key("usage"));
        assert_eq!(event(1, piece("b", None)).unwrap()["choices"][0]["delta"]["role"], "assistant");
        let last = event(0, piece("", Some(Finish::Length))).unwrap();
        assert_eq!(last["choices"], json!([{ "index": 0, "delta": {}, "finish_reason": "length" }]));
        let usage = serde_json::to_value(dialect.usage(Usage::new(3, 2))).unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["total_tokens"], 5);
    }

    #[test]
    fn events_have_no_usage_unless_asked_for() {
        let mut dialect = ChatDialect::new(head(), 1, false, false);
        let event = serde_json::to_value(dialect.event(0, piece("a", None)).unwrap()).unwrap();
        assert!(!event.as_object().unwrap().contains_key("usage"));
    }
}
