//! Requests to prompts: chat template, token ids, limits.

pub mod chat;
pub mod images;
pub mod input;
pub mod limits;

pub mod model;

pub mod tokenize;

pub use model::Model;
pub use tokenize::Tokenize;
