//! Last shard → sample: what is needed of the logits, and the way to ask for the rest.

use rkyv::{Archive, Deserialize, Serialize};

use crate::control::Head;
use crate::hidden::Slice;
use crate::{Edge, InstanceId, SequenceId};

/// The logits of one step for one sample instance.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Logits {
    /// Sender, number and decisions.
    pub head: Head,
    /// The last shard's instance, which keeps the rows and answers [`NeedRow`].
    pub keeper: InstanceId,
    /// The step's rows, so that sample knows each sequence's history.
    pub slices: Vec<Slice>,
    /// One entry a slice with `sample`, in the order of `slices`.
    pub rows: Vec<Row>,
}

/// The part of a logits row that almost every draw needs.
///
/// `logsumexp` is over *all* ids that are not in `extras`, so that a stage which changes the extras' logits
/// can renormalise without cancellation.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Row {
    /// The sequence.
    pub sequence: SequenceId,
    /// Position that the drawn token will have, in tokens from the sequence start.
    pub position: u32,
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// The largest logits among ids not in `extras`, by logit descending, then id ascending. All of them when `complete`.
    pub candidates: Vec<(u32, f32)>,
    /// Logits of the ids that penalties and biases touch, by id ascending.
    pub extras: Vec<(u32, f32)>,
    /// Log of the summed exponentials of the logits outside `extras`, at temperature 1.
    pub logsumexp: f32,
    /// The same with logits divided by the sequence's temperature; equals `logsumexp` at temperature 0.
    pub logsumexp_scaled: f32,
}

impl Row {
    /// Whether `candidates` and `extras` are the whole vocabulary.
    pub fn complete(&self) -> bool {
        self.candidates.len() + self.extras.len() >= self.vocabulary as usize
    }
}

/// sample → last shard: the draw fell outside the candidates; send the whole row.
/// The answer is a [`Logits`] of the same step with that one complete row and no slices.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct NeedRow {
    /// The shard-forward.0 instance that made the step.
    pub origin: InstanceId,
    /// Its number.
    pub step: u64,
    /// Where the answer goes.
    pub sample: InstanceId,
    /// The sequence and the position of its row.
    pub rows: Vec<(SequenceId, u32)>,
}

impl Edge for Logits {
    const KIND: u16 = 6;
}

impl Edge for NeedRow {
    const KIND: u16 = 7;
}
