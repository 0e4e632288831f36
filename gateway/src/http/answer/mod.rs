//! What a client gets, in the words of each endpoint.

pub mod dialect;

pub mod chat;
pub mod completion;

pub mod logprobs;
pub mod usage;
