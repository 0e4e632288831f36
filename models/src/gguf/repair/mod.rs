//! Reading GGUFs that are damaged, and writing them whole: what is wrong of the header is put right where the rest of the file
//! says what was meant, and refused where it does not. No byte of a tensor is ever changed.
//! Source: `gguf.cpp` of ggml and `gguf_writer.py` of gguf for what a file must be, `llama-model.cpp` of llama.cpp for keys.
//!
//! Start at [`Repair`].

mod error;
mod fix;
mod plan;

mod header;
mod places;
mod twice;

mod keys;
mod tokens;

pub use error::RepairError;
pub use fix::{Fix, Origin};
pub use plan::Repair;
