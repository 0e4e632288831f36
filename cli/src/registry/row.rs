//! One model of the list.

use std::path::PathBuf;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Format, one_line};
use crate::memory::{BF16_BYTES, human_bytes};

/// Tokens of the KV cache that must fit beside the weights.
const TOKENS: u64 = 8192;

/// How a model came into the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It is the repository's.
    Demo,
    /// `models.toml` names it.
    Named,
    /// It lies below a folder.
    Found,
}

/// A model, and whether it can be served here. What is not known of a damaged one is absent.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name in the list.
    pub name: String,
    /// Folder or file.
    pub path: PathBuf,
    /// How it came into the list.
    pub source: Source,
    /// `architectures` of `config.json`, or `general.architecture`.
    pub architecture: Option<String>,
    /// Elements of all tensors.
    pub parameters: Option<u64>,
    /// Length of the files of weights together.
    pub bytes: Option<u64>,
    /// How most elements are stored.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Longest sequence in tokens.
    pub context: Option<u64>,
    /// Weights and a KV cache of 8,192 tokens, or of the context where that is less: a GGUF's weights as they are stored, others
    /// and the cache in bf16.
    pub needed_bytes: Option<u64>,
    /// Whether that fits into the memory that is available; none where one of them is not known.
    pub fits: Option<bool>,
    /// Whether it can be served here.
    pub servable: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl Row {
    /// Looks at the model.
    pub fn new(source: Source, name: String, path: PathBuf, available: Option<u64>) -> Self {
        let opened = Checkpoint::open(&path);
        let checkpoint = opened.as_ref().ok();
        let needed_bytes = checkpoint.and_then(needed_bytes);
        let fits = needed_bytes.zip(available).map(|(needed, available)| needed <= available);
        let short = || {
            let (needed, available) = (human_bytes(needed_bytes?), human_bytes(available?));
            (fits == Some(false)).then(|| format!("needs {needed} of memory, and {available} are available"))
        };
        let facts = checkpoint.map(|checkpoint| checkpoint.facts.clone()).unwrap_or_default();
        let mut row = Self {
            name,
            path,
            source,
            architecture: facts.architecture.or(facts.model_type),
            parameters: checkpoint.and_then(Checkpoint::parameters),
            bytes: checkpoint.map(|checkpoint| checkpoint.file_bytes),
            type_name: checkpoint.and_then(|checkpoint| Some(checkpoint.types().first()?.type_name.clone())),
            context: facts.context,
            needed_bytes,
            fits,
            servable: false,
            reason: checkpoint.and_then(|checkpoint| checkpoint.refusal.clone()).or_else(short),
        };
        if let Err(error) = opened {
            row.reason = Some(one_line(error));
        }
        row.servable = row.reason.is_none();
        row
    }
}

fn needed_bytes(checkpoint: &Checkpoint) -> Option<u64> {
    let weights = match checkpoint.format {
        Format::Gguf => checkpoint.stored_bytes()?,
        Format::Folder | Format::Safetensors => checkpoint.parameters()?.checked_mul(BF16_BYTES)?,
    };
    let tokens = checkpoint.facts.context.map_or(TOKENS, |context| context.min(TOKENS));
    weights.checked_add(checkpoint.facts.kv_shape()?.bytes(tokens, BF16_BYTES)?)
}
