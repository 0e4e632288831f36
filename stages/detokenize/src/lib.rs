//! Token ids to text: UTF-8-safe pieces, stop sequences, log probabilities as clients see them.

pub mod stop;

pub mod answer;

pub mod outgoing;

pub mod detokenize;

pub use detokenize::Detokenize;
