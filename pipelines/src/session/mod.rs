//! Sessions: how a door submits a request, follows its answer and lets go of it. Used by every door.

mod answer;
mod ask;
mod catalog;
mod deaths;
mod door;
mod feedback;
mod images;
mod prompt;
mod quarantine;
mod roster;
mod waits;

pub use answer::{Answer, Piece};
pub use ask::{Ask, AskInput};
pub use door::Door;
pub use images::{AskImage, Images};
pub use prompt::TakenIn;
