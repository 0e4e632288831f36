//! How one endpoint writes answers.

use pipelines::session::Piece;
use serde::Serialize;

use super::usage::Usage;
use crate::http::collect::Whole;

/// The words of one endpoint for the same answers.
pub trait Dialect: Send + 'static {
    /// One event of a stream.
    type Event: Serialize;
    /// All answers at once.
    type Document: Serialize;

    /// The event for the next piece of the answer `index`; none when the piece holds nothing that a client sees yet.
    fn event(&mut self, index: usize, piece: Piece) -> Option<&Self::Event>;

    /// The event that follows the answers when the client asked for the usage.
    fn usage(&mut self, usage: Usage) -> &Self::Event;

    /// The document of all `answers`, in their order.
    fn document(self, answers: Vec<Whole>, usage: Usage) -> Self::Document;
}

/// What every event and document of one request repeats.
#[derive(Debug, Clone)]
pub struct Head {
    /// Random id with the endpoint's prefix.
    pub id: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
    /// The model that answers.
    pub model: String,
    /// The pipeline's fingerprint.
    pub fingerprint: String,
}

/// Whether a piece holds anything that a client sees.
pub fn is_visible(piece: &Piece) -> bool {
    !piece.text.is_empty() || !piece.logprobs.is_empty() || piece.finish.is_some()
}
