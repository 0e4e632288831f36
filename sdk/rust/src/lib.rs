#![doc = include_str!("../README.md")]

mod client;
mod stream;

mod error;
mod sse;

pub mod generated;
mod shorthand;

#[cfg(test)]
mod test_server;

pub use client::Client;
pub use error::{ApiError, Error};
pub use generated::{
    AnswerMessage, CalledFunction, ChatChoice, ChatChunkChoice, ChatCompletion, ChatCompletionChunk,
    ChatDelta, ChatLogprob, ChatLogprobs, ChatRequest, ChatRequestStop, Completion, CompletionChoice,
    CompletionChunk, CompletionLogprobs, CompletionRequest, CompletionRequestPrompt, CompletionRequestStop,
    ContentPart, FinishReason, ImageUrl, Message, MessageContent, MessageRole, Model, PipelineReadiness,
    Readiness, ResponseFormat, StreamOptions, ToolCall, TopLogprob, Usage,
};
pub use reqwest::StatusCode;
pub use stream::{ChatStream, Chunk, ChunkStream, CompletionStream};
