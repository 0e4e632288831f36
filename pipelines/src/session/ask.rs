//! What a door asks for: one answer to one prompt.

use std::sync::Arc;
use std::time::Duration;

use schemas::request::Generation;

use super::images::Images;
use super::prompt::TakenIn;

/// One answer to one prompt, with everything fixed that must not differ on a second try.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which of the request's independent answers this is; keys the random numbers.
    pub choice: u32,
    /// The prompt, see [`Door::take_in`](super::Door::take_in).
    pub input: TakenIn,
    /// The images of a chat, in the order of its image parts.
    pub images: Arc<Images>,
    /// The answer's settings.
    pub generation: Generation,
    /// Seconds since the Unix epoch, for templates that print the date.
    pub now_unix: i64,
    /// Longest time until the answer's end.
    pub deadline: Duration,
    /// W3C trace context of the client's request.
    pub traceparent: Option<String>,
}

/// The prompt as the client gave it.
#[derive(Debug, Clone)]
pub enum AskInput {
    /// JSON object with `messages` and what else the chat template gets.
    Chat(Vec<u8>),
    /// Text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}
