//! The whole pipeline end to end: real processes, a real broker, clients over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod architectures;
mod blobs;
mod cancellation;
mod chaos;
mod clients;
mod demo;
mod failures;
mod gguf;
mod images;
mod latency;
mod limits;
mod poison;
mod scaling;
mod streams;
mod supervisor;
