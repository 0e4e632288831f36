//! Matrices of -1, 0 and 1 with activations of eight bits, whose products are sums of integers: exact in any order.
//! Source: BitNet b1.58, arXiv:2402.17764, sec. 2.

mod activations;
mod matrix;
mod quantise;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod product;

pub use activations::Int8Activations;
pub use matrix::{TernaryMatrix, TernaryMatrixError, TernaryScale};
pub use quantise::quantise;
