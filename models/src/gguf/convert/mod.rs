//! Writing models as GGUF: what keys and tensors the file will have, and what is done to each weight on the way.
//! Source: `conversion/*.py` of llama.cpp, and its `models/*.cpp` for what it computes of an architecture.
//!
//! Start at [`Plan`]; who writes the file reads, changes and stores one tensor of it after the other.

mod error;
mod plan;
mod stored_type;

mod from_folder;
mod keys;
mod refusals;
mod rope;
mod tensors;

mod pre;
mod vocabulary;

mod from_gguf;

pub use error::ConvertError;
pub use plan::{Change, Content, Plan, PlannedTensor};
pub use stored_type::{FILE_TYPES, FileType};
