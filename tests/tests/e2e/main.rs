//! The whole pipeline end to end: real processes, a real broker, clients over HTTP.

mod answers;
mod cancellation;
mod clients;
mod demo;
mod failures;
mod latency;
mod limits;
mod scaling;
mod supervisor;
