//! The REST door: OpenAI's dialect over HTTP, with server-sent events and a chat page.

pub mod server;

pub mod acceptor;
pub mod access;
pub mod cors;
pub mod keys;
pub mod trace;

pub mod api;
pub mod document;
pub mod failure;
pub mod pages;
pub mod reply;

pub mod body;
pub mod images;
pub mod request;

pub mod generate;
pub mod meter;

pub mod answer;
pub mod collect;
pub mod stream;
pub mod streams;

pub mod models;
pub mod ready;

pub use server::{HttpSettings, serve};
