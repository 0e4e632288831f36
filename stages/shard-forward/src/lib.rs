//! The model's layers, cut into shards.

pub mod engine;
mod stage;
pub mod threads;

pub use stage::load;
