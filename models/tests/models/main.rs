//! Tests of model folders, on small ones made here and on golden files made by transformers.

// Helpers of tests unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod config;
mod demo;
mod folder;
mod gguf;
mod gguf_vocabulary;
mod incremental;
mod template;
mod tokenizer;
mod tokenizers_made_here;
mod weights;
