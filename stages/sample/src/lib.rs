//! Logits to token ids: penalties, temperature, truncation, the draw, the end of an answer.

pub mod philox;

pub mod draw;
pub mod logprobs;
pub mod order;

pub mod rules;
pub mod sequence;

pub mod origin;
pub mod output;

pub mod sample;

pub use sample::Sample;
