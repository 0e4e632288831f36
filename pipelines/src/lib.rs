//! Graphs and what runs them: pipeline files, the `Stage` trait, the runner, the bus, presence, sessions.
//!
//! Only this crate and the doors wait on the serving path; a stage is a synchronous function of a batch.

mod announcement;
pub mod graph;
pub mod record;

pub mod owned;
pub mod peers;
pub mod stage;

pub mod bus;
mod claims;
mod entries;
pub mod grants;
pub mod origins;
mod output;
pub mod presence;
pub mod runner;

pub mod journal;
pub mod session;

pub mod admin;
pub mod service;
pub mod settings;
pub mod telemetry;
pub mod tools;

pub use graph::Pipeline;
pub use peers::Peers;
pub use stage::{Inbox, Job, Outbox, Stage, Status};
