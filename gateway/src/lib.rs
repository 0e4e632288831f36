//! Doors: what turns a client's request into a session on the bus, and its answer into bytes for the client.

pub mod command;
pub mod http;
