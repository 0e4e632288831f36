//! A recording, added up by operation and by layer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::Group;
use crate::engine::{Operation, Place, Recording};

/// All calls of one operation, or what is left of a place besides its operations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Total {
    /// How many calls.
    pub calls: usize,
    /// Of all calls.
    pub time: Duration,
    /// Of all calls.
    pub flops: f64,
    /// Of all calls.
    pub bytes: f64,
}

/// By what it is for and by name.
pub type Totals = BTreeMap<(Group, String), Total>;

/// Every moment of the recorded steps, by operation; what is between operations has names of its own.
pub fn by_operation(recording: &Recording) -> Totals {
    let mut totals = Totals::new();
    for span in &recording.spans {
        let (group, name) = between(span.place);
        let total = totals.entry((group, name.to_owned())).or_default();
        total.calls += 1;
        total.time += span.length;
    }
    // What operations took is no longer between them.
    for operation in &recording.operations {
        let (group, name) = between(operation.place);
        let around = totals.entry((group, name.to_owned())).or_default();
        around.time = around.time.saturating_sub(operation.length);
        let total = totals.entry((group_of(operation), operation.name.to_string())).or_default();
        total.calls += 1;
        total.time += operation.length;
        total.flops += operation.flops;
        total.bytes += operation.bytes;
    }
    totals
}

/// The time of each layer, in order.
pub fn by_layer(recording: &Recording) -> Vec<Duration> {
    let mut layers = Vec::new();
    for span in &recording.spans {
        let Place::Layer(layer) = span.place else { continue };
        if layers.len() <= layer {
            layers.resize(layer + 1, Duration::ZERO);
        }
        layers[layer] += span.length;
    }
    layers
}

/// What the time of a place is called that none of its operations has taken.
fn between(place: Place) -> (Group, &'static str) {
    match place {
        Place::Embedding => (Group::Embedding, "rows of ids"),
        Place::Plan => (Group::Other, "masks, positions, cache"),
        Place::Layer(_) => (Group::Other, "cache and copies"),
        Place::Head => (Group::Head, "copies"),
        Place::Rows => (Group::Head, "candidates"),
        Place::Outside => (Group::Other, "outside"),
    }
}

fn group_of(operation: &Operation) -> Group {
    match (operation.place, &*operation.name) {
        (Place::Head | Place::Rows, _) => Group::Head,
        (_, "norm") => Group::Norms,
        (_, "attention" | "rotary") => Group::Attention,
        (_, "add" | "softcap") => Group::Other,
        (_, "o_proj" | "qkv_proj") => Group::Projections,
        (_, name) if name.starts_with("q_proj") => Group::Projections,
        // Gate, up, down, the router, and what joins them.
        _ => Group::Mlp,
    }
}
