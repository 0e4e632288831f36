//! Load over HTTP on any server with OpenAI's REST dialect: times to first token and between tokens, goodput.

pub mod workload;

pub mod request;

pub mod drive;

pub mod report;

pub use drive::{Arrivals, Until, closed_loop, open_loop};
pub use report::{Objective, Report};
pub use request::Target;
pub use workload::{Api, Lengths, Workload};
