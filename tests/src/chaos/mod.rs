//! What `make chaos` does: faults of every process under load, and a verdict token by token.

pub mod client;
pub mod load;
pub mod question;

pub mod fault;
pub mod matrix;

pub mod cell;
pub mod report;
pub mod verdict;
