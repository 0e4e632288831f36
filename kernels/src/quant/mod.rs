//! The quantised formats of GGUF files, computed on as they are stored.
#![allow(non_camel_case_types, reason = "formats are called as in the files")]

mod activations;
mod format;
mod matrix;

mod block;
mod iq4;
mod k;
mod k_search;
mod simple;
mod ternary;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod product;
mod vectors;

pub use activations::Activations;
pub use format::Format;
pub use matrix::{QuantMatrix, QuantMatrixError};
