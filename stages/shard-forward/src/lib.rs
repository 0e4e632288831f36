//! The model's layers, cut into shards.

pub mod engine;
mod stage;
pub mod threads;
pub mod tools;

pub use stage::load;
