//! What end-to-end tests and benchmarks share: real processes on a real broker, and clients that speak HTTP to them.

pub mod client;
pub mod cluster;

mod process;

pub mod bench;

pub mod chaos;

pub use client::{Api, Reply, Stream, StreamEvent};
pub use cluster::{Cluster, Options};
pub use process::{Process, binary, repository};
