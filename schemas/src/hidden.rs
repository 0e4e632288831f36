//! shard-forward.k → shard-forward.k+1: hidden states of one step's rows.

use rkyv::{Archive, Deserialize, Serialize};

use crate::control::Head;
use crate::{Edge, SequenceId, Tensor};

/// Consecutive positions of one sequence in a step.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The sequence.
    pub sequence: SequenceId,
    /// Position of the first row, in tokens from the sequence start.
    pub start: u32,
    /// Token id of each row.
    pub ids: Vec<u32>,
    /// Whether the last row's logits are to give a token.
    pub sample: bool,
}

/// One step on its way through the shards.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Hidden {
    /// Sender, number and decisions.
    pub head: Head,
    /// The rows, sequence by sequence.
    pub slices: Vec<Slice>,
    /// `[rows, hidden_size]` in the pipeline's dtype; none when the engine has no model.
    pub states: Option<Tensor>,
}

impl Edge for Hidden {
    const KIND: u16 = 5;

    fn check(&self) -> Result<(), String> {
        self.head.check()?;
        let Some(states) = &self.states else { return Ok(()) };
        states.check().map_err(|error| error.to_string())?;
        let rows: usize = self.slices.iter().map(|slice| slice.ids.len()).sum();
        match states.shape() {
            [found, _] if *found as usize == rows => Ok(()),
            shape => Err(format!("states of shape {shape:?} for {rows} rows")),
        }
    }
}
