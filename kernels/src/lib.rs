//! A decoder layer's arithmetic on the CPU, in an order that depends on nothing but the sizes of the model.
//!
//! Every row of a result is computed from its own inputs by the same operations in the same order, whatever other rows
//! are computed with it, however many threads there are and whichever vector instructions the processor has. A faster
//! way to compute something may be added where it keeps to the order that its function documents.

pub mod matrix;
pub mod quant;
pub mod ternary;

pub mod attention;
pub mod exp;
pub mod rows;

pub mod cpu;
pub mod threads;

pub mod element;
mod lanes;
