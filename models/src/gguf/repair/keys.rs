//! Keys that are missing: what an architecture is, and its sizes.
//! Source: `load_hparams` of `llama-model.cpp` of llama.cpp for what is needed and what is taken without a key.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::RepairError;
use super::fix::{Fix, Origin};
use crate::gguf::config::is_computed;
use crate::gguf::config_rope::THETA_USUAL;
use crate::gguf::tensors::TensorInfo;
use crate::gguf::value::{Array, Value};

const ARCHITECTURE: &str = "general.architecture";
const TYPE: &str = "general.type";

/// Keys that every architecture has, without its name before them.
const OF_ALL: [&str; 3] = ["block_count", "context_length", "embedding_length"];

/// Adds what is missing. Of architectures that are not computed nothing is known.
pub(super) fn fill(
    file: &Path,
    entries: &mut Vec<(String, Value)>,
    tensors: &[TensorInfo],
    fixes: &mut Vec<Fix>,
) -> Result<(), RepairError> {
    if get(entries, ARCHITECTURE).is_none() {
        add_architecture(file, entries, fixes)?;
    }
    let Some(Value::String(architecture)) = get(entries, ARCHITECTURE) else { return Ok(()) };
    // Adapters and projectors have other keys.
    let is_model = get(entries, TYPE).is_none_or(|kind| *kind == Value::String("model".to_owned()));
    if !is_model || !is_computed(architecture) {
        return Ok(());
    }
    let architecture = architecture.clone();
    let mut missing = Missing { file, architecture, entries, tensors, fixes };
    missing.sizes()?;
    missing.heads()?;
    missing.experts()?;
    missing.rope();
    missing.vocabulary();
    Ok(())
}

/// Its keys have its name before them.
fn add_architecture(
    file: &Path,
    entries: &mut Vec<(String, Value)>,
    fixes: &mut Vec<Fix>,
) -> Result<(), RepairError> {
    let names = entries.iter().filter_map(|(key, _)| key.split_once('.'));
    let mut names = names.filter(|(_, rest)| OF_ALL.contains(rest)).map(|(name, _)| name);
    let only = names.next().filter(|only| names.all(|other| other == *only));
    let Some(only) = only.map(str::to_owned) else { return Err(unknown(file, ARCHITECTURE)) };
    let value = Value::String(only);
    fixes.push(Fix::Key { key: ARCHITECTURE.to_owned(), value: value.clone(), origin: Origin::Keys });
    // Where converters write it.
    entries.insert(0, (ARCHITECTURE.to_owned(), value));
    Ok(())
}

pub(super) fn get<'a>(entries: &'a [(String, Value)], key: &str) -> Option<&'a Value> {
    entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

pub(super) fn unknown(file: &Path, key: &str) -> RepairError {
    RepairError::Unknown { file: file.to_owned(), key: key.to_owned() }
}

struct Missing<'a> {
    file: &'a Path,
    architecture: String,
    entries: &'a mut Vec<(String, Value)>,
    tensors: &'a [TensorInfo],
    fixes: &'a mut Vec<Fix>,
}

impl Missing<'_> {
    fn sizes(&mut self) -> Result<(), RepairError> {
        self.need("block_count", self.layers())?;
        self.need("context_length", None)?;
        self.need("attention.layer_norm_rms_epsilon", None)?;
        self.need("embedding_length", self.embedding().and_then(|shape| shape.last().copied()))?;
        let dense = self.in_layers("ffn_down.weight", last);
        // Mixtral's experts are as wide as its feed-forward would be; Qwen3-MoE's are not.
        let experts = self.in_layers("ffn_down_exps.weight", last).filter(|_| self.architecture == "llama");
        self.need("feed_forward_length", dense.or(experts))
    }

    /// Heads follow from the width of all together, where that of one is known.
    fn heads(&mut self) -> Result<(), RepairError> {
        let queries = self.in_layers("attn_output.weight", last);
        let head_dim = self.whole("attention.key_length");
        let head_dim = head_dim.or_else(|| self.in_layers("attn_q_norm.weight", first));
        // Phi-3 may turn a part of each head.
        let turned = self.whole("rope.dimension_count").filter(|_| self.architecture != "phi3");
        self.need("attention.head_count", quotient(queries, head_dim.or(turned)))?;
        let head_dim = head_dim.or_else(|| quotient(queries, self.whole("attention.head_count")));
        let heads = self.whole("attention.head_count");
        // Readers divide where it is missing.
        if heads.is_some()
            && quotient(self.whole("embedding_length"), heads) != head_dim
            && let Some(head_dim) = head_dim
        {
            self.need("attention.key_length", Some(head_dim))?;
            self.need("attention.value_length", Some(head_dim))?;
        }
        self.kv_heads(queries, head_dim)
    }

    fn kv_heads(&mut self, queries: Option<usize>, head_dim: Option<usize>) -> Result<(), RepairError> {
        let name = "attention.head_count_kv";
        let fused = self.in_layers("attn_qkv.weight", first);
        let keys = self.in_layers("attn_k.weight", first).or_else(|| Some(fused?.checked_sub(queries?)? / 2));
        if keys.is_some() || self.tensors.iter().any(|tensor| tensor.name.contains(".attn_")) {
            return self.need(name, quotient(keys, head_dim));
        }
        // A vocabulary without a model.
        if let Some(heads) = self.get("attention.head_count").cloned().filter(|_| self.get(name).is_none()) {
            self.add(name, heads, Origin::Default);
        }
        Ok(())
    }

    fn experts(&mut self) -> Result<(), RepairError> {
        let count = self.in_layers("ffn_gate_inp.weight", first);
        if count.is_none() && self.whole("expert_count").is_none_or(|count| count == 0) {
            return Ok(());
        }
        self.need("expert_count", count)?;
        self.need("expert_used_count", None)?;
        if self.architecture == "qwen3moe" {
            self.need("expert_feed_forward_length", self.in_layers("ffn_down_exps.weight", last))?;
        }
        Ok(())
    }

    /// Converters write it of all architectures but this one.
    fn rope(&mut self) {
        if self.architecture != "gemma2" && self.get("rope.freq_base").is_none() {
            self.add("rope.freq_base", Value::F32(THETA_USUAL as f32), Origin::Default);
        }
    }

    /// Readers count the tokens where it is missing, which are fewer where the embedding is padded.
    fn vocabulary(&mut self) {
        let rows = self.embedding().and_then(|shape| shape.first().copied());
        let tokens = match get(self.entries, "tokenizer.ggml.tokens") {
            Some(Value::Array(Array::String(tokens))) => Some(tokens.len()),
            _ => None,
        };
        if let Some(rows) = rows.filter(|_| rows != tokens && self.get("vocab_size").is_none()) {
            self.add("vocab_size", whole(rows), Origin::Tensors);
        }
    }

    /// How many layers there are, where none is missing between others.
    fn layers(&self) -> Option<usize> {
        let layer = |tensor: &TensorInfo| tensor.name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok();
        let layers: BTreeSet<usize> = self.tensors.iter().filter_map(layer).collect();
        let count = layers.last()?.checked_add(1)?;
        (layers.len() == count).then_some(count)
    }

    /// `[vocabulary, hidden]`.
    fn embedding(&self) -> Option<&[usize]> {
        let found = self.tensors.iter().find(|tensor| tensor.name == "token_embd.weight")?;
        (found.shape.len() == 2).then_some(found.shape.as_slice())
    }

    /// A size of a tensor that is the same in all layers which have it.
    fn in_layers(&self, name: &str, size: fn(&[usize]) -> Option<usize>) -> Option<usize> {
        let is_it = |tensor: &&TensorInfo| {
            let rest = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            rest.is_some_and(|(_, inside)| inside == name)
        };
        let mut sizes = self.tensors.iter().filter(is_it).map(|tensor| size(&tensor.shape));
        let first = sizes.next()??;
        sizes.all(|other| other == Some(first)).then_some(first)
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        get(self.entries, &self.key(name))
    }

    fn whole(&self, name: &str) -> Option<usize> {
        usize::try_from(self.get(name)?.as_integer()?).ok()
    }

    /// Adds a key that no reader does without, unless it is there.
    fn need(&mut self, name: &str, by_tensors: Option<usize>) -> Result<(), RepairError> {
        if self.get(name).is_none() {
            let size = by_tensors.ok_or_else(|| unknown(self.file, &self.key(name)))?;
            self.add(name, whole(size), Origin::Tensors);
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: Value, origin: Origin) {
        let key = self.key(name);
        self.fixes.push(Fix::Key { key: key.clone(), value: value.clone(), origin });
        self.entries.push((key, value));
    }
}

/// A whole number of 32 bits, which llama.cpp wants wherever it fits.
fn whole(number: usize) -> Value {
    u32::try_from(number).map_or(Value::U64(number as u64), Value::U32)
}

fn first(shape: &[usize]) -> Option<usize> {
    shape.first().copied()
}

fn last(shape: &[usize]) -> Option<usize> {
    shape.last().copied()
}

/// None where it is not whole.
fn quotient(number: Option<usize>, by: Option<usize>) -> Option<usize> {
    let (number, by) = (number?, by?);
    let is_whole = number.checked_rem(by)? == 0;
    is_whole.then_some(number / by).filter(|quotient| *quotient > 0)
}
