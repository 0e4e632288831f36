//! What a client may ask, field by field, and the rules for it.

pub mod chat;
pub mod message;

pub mod completion;
pub mod prompt;

pub mod options;
pub mod stop;

pub mod limits;
pub mod sampling;

mod schema;
