//! A model file as text.

use comfy_table::Table;
use serde_json::Value as Json;

use super::{Report, TypeTotal};
use crate::memory::{human_bytes, human_count};
use crate::printable::{escaped, shortened};
use crate::table::{right, table};

/// Characters of a value that are shown.
const VALUE_CHARACTERS: usize = 100;

/// Characters of a name or a shape that are shown: a table makes all its rows as wide as the widest.
const NAME_CHARACTERS: usize = 120;

/// The same of the reason why a model is not served.
const REASON_CHARACTERS: usize = 400;

/// Characters of a text in an array that are shown.
const ENTRY_CHARACTERS: usize = 20;

/// Entries of an array that are shown.
const ENTRIES: usize = 8;

/// The report as text; `tensors`: every one of them, not only totals.
pub fn render(report: &Report, tensors: bool) -> String {
    let mut sections = vec![summary(report).trim_fmt()];
    if !report.metadata.is_empty() {
        sections.push(metadata(report).trim_fmt());
    }
    if tensors {
        sections.push(list(report).trim_fmt());
    }
    sections.push(types(&report.types).trim_fmt());
    sections.push(memory(report).trim_fmt());
    sections.join("\n\n")
}

fn summary(report: &Report) -> Table {
    let facts = &report.facts;
    let mut table = table(&["MODEL", &escaped(&report.path.display().to_string())]);
    let text = |value: &Option<String>| value.as_deref().map(|text| shortened(text, VALUE_CHARACTERS));
    let number = |value: Option<u64>| value.map(|number| number.to_string());
    let rows = [
        ("architecture", text(&facts.architecture)),
        ("model type", text(&facts.model_type)),
        ("parameters", report.parameters.map(|count| format!("{} ({count})", human_count(count)))),
        ("layers", number(facts.layers)),
        ("hidden size", number(facts.hidden_size)),
        ("heads", number(facts.heads)),
        ("KV heads", number(facts.kv_heads)),
        ("head size", number(facts.head_dim)),
        ("experts", number(facts.experts)),
        ("vocabulary", number(facts.vocab_size)),
        ("context", number(facts.context)),
        ("on disk", Some(human_bytes(report.file_bytes))),
        (
            "served",
            Some(match &report.refusal {
                Some(why) => format!("no: {}", shortened(why, REASON_CHARACTERS)),
                None => "yes".to_owned(),
            }),
        ),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            table.add_row([name, &value]);
        }
    }
    table
}

fn metadata(report: &Report) -> Table {
    let mut table = table(&["KEY", "VALUE"]);
    for (key, value) in &report.metadata {
        table.add_row([shortened(key, NAME_CHARACTERS), brief(value, VALUE_CHARACTERS)]);
    }
    table
}

/// A value on one line; `max`: characters of a text.
fn brief(value: &Json, max: usize) -> String {
    match value {
        Json::String(text) => shortened(text, max),
        Json::Array(entries) => array(entries.len() as u64, entries),
        Json::Object(fields) => match (fields.get("length").and_then(Json::as_u64), fields.get("first")) {
            (Some(length), Some(Json::Array(first))) => array(length, first),
            _ => shortened(&value.to_string(), max),
        },
        other => other.to_string(),
    }
}

fn array(length: u64, entries: &[Json]) -> String {
    let first = entries.iter().take(ENTRIES).map(|entry| brief(entry, ENTRY_CHARACTERS));
    let first = first.collect::<Vec<_>>().join(", ");
    if length <= ENTRIES as u64 { format!("[{first}]") } else { format!("{length} entries: {first}, …") }
}

fn list(report: &Report) -> Table {
    let mut table = table(&["TENSOR", "TYPE", "SHAPE", "BYTES"]);
    for tensor in &report.tensors {
        let bytes = tensor.bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
        table.add_row([
            shortened(&tensor.name, NAME_CHARACTERS),
            tensor.type_name.clone(),
            shortened(&format!("{:?}", tensor.shape), NAME_CHARACTERS),
            bytes,
        ]);
    }
    right(&mut table, &[3]);
    table
}

fn types(types: &[TypeTotal]) -> Table {
    let mut table = table(&["TYPE", "TENSORS", "PARAMETERS", "SIZE"]);
    for total in types {
        let parameters = total.parameters.map_or("?".to_owned(), human_count);
        let bytes = total.bytes.map_or("?".to_owned(), human_bytes);
        table.add_row([&total.type_name, &total.tensors.to_string(), &parameters, &bytes]);
    }
    right(&mut table, &[1, 2, 3]);
    table
}

fn memory(report: &Report) -> Table {
    let mut table = table(&["MEMORY", "STORED", "BF16", "F32"]);
    let known = |bytes: Option<u64>| bytes.map_or("?".to_owned(), human_bytes);
    let weights = &report.memory.weights;
    table.add_row(["weights".to_owned(), known(weights.stored), known(weights.bf16), known(weights.f32)]);
    for cache in &report.memory.kv_cache {
        let own = if report.facts.context == Some(cache.tokens) { ", the model's own" } else { "" };
        let name = format!("KV cache of {} tokens{own}", cache.tokens);
        table.add_row([name, "-".to_owned(), known(cache.bf16), known(cache.f32)]);
    }
    right(&mut table, &[1, 2, 3]);
    table
}
