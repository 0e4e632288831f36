//! What an engine takes and gives: the same for a model and for the echo.

use schemas::hidden::Slice;
use schemas::prompt::Grid;
use schemas::{SequenceId, Tensor};

/// One shard's part of a model, behind the same messages whatever computes it.
pub trait Engine: Send {
    /// Runs one step and keeps its keys and values.
    ///
    /// Every slice starts where its sequence ends; one that starts earlier first cuts the sequence back to its start, and
    /// an unknown sequence starts at 0. `states` are the step's hidden states, `[rows, hidden_size]` in the engine's
    /// dtype with the rows of all slices in order; none on the first shard and from an echo.
    ///
    /// An error is one of the step, not of a request: sequences that do not fit, ids outside the vocabulary, states of
    /// another shape. It leaves the KV cache as it was.
    fn forward(&mut self, batch: &StepBatch<'_>, states: Option<&Tensor>) -> anyhow::Result<StepOutput>;

    /// The kept logits of `sequence`, when they are those for `position` (of the token that is to be drawn).
    ///
    /// The answer is complete: `spec.candidates` is ignored, every id is in `candidates` or `extras`.
    fn full_row(
        &self,
        sequence: SequenceId,
        position: u32,
        spec: &RowSpec,
    ) -> Option<Result<RowOutput, RowError>>;

    /// Frees all that is kept of a sequence. Unknown ones are ignored.
    fn release(&mut self, sequence: SequenceId);

    /// Blocks of the KV cache.
    fn blocks_total(&self) -> u32;

    /// Blocks held by sequences.
    fn blocks_used(&self) -> u32;

    /// Tokens a block.
    fn block_tokens(&self) -> u32;

    /// Size of the vocabulary; ids are below it.
    fn vocabulary(&self) -> u32;

    /// Where longer sequences have other keys and values from their first token on, the length up to which they do not. One
    /// that grows beyond must be opened anew, with all of its tokens.
    fn short_length(&self) -> Option<u32> {
        None
    }
}

/// Rows of a step whose embeddings come from an image.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// The first of them, counted in the step.
    pub row: usize,
    /// `[rows, hidden_size]`, in any dtype.
    pub rows: Tensor,
}

/// The rows of one step.
#[derive(Debug, Clone, Copy)]
pub struct StepBatch<'a> {
    /// Rows of the sequences, in the order of `states`.
    pub slices: &'a [Slice],
    /// On the first shard, the rows that are not embedded by their token ids. Ignored by an echo.
    pub overlays: &'a [Overlay],
    /// For a model whose positions have three axes, the images of each slice's prompt, in the order of `slices`; empty where no
    /// sequence has any. Ignored by an echo.
    pub grids: &'a [&'a [Grid]],
    /// For a model with a [short length](Engine::short_length), how many tokens each slice's sequence had when it was opened, in
    /// the order of `slices`; empty where all of them are in their slices.
    pub opened: &'a [u32],
    /// On the last shard, what is wanted of the logits: one entry a slice with `sample`, in the order of `slices`.
    /// Ignored on the others.
    pub rows: &'a [RowSpec],
}

impl<'a> StepBatch<'a> {
    /// Rows of text, of sequences that were opened with no token behind them.
    pub fn new(slices: &'a [Slice], rows: &'a [RowSpec]) -> Self {
        Self { slices, overlays: &[], grids: &[], opened: &[], rows }
    }

    /// Rows of all slices.
    pub fn row_count(&self) -> usize {
        self.slices.iter().map(|slice| slice.ids.len()).sum()
    }
}

/// What is wanted of one row of logits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowSpec {
    /// For `logsumexp_scaled`; 0 means greedy.
    pub temperature: f32,
    /// How many candidates.
    pub candidates: u32,
    /// Ids whose logits are wanted apart, ascending, each once.
    pub extras: Vec<u32>,
    /// Whether to keep the row for [`Engine::full_row`], until the sequence's next kept row or its release.
    pub keep: bool,
}

/// What a step gives.
#[derive(Debug)]
pub enum StepOutput {
    /// From every shard but the last: `[rows, hidden_size]` in the engine's dtype; none from an echo.
    Hidden(Option<Tensor>),
    /// From the last shard: one entry a slice with `sample`, in the order of `slices`.
    Rows(Vec<Result<RowOutput, RowError>>),
}

/// The wanted part of one row of logits, as in [`schemas::logits::Row`].
#[derive(Debug, Clone, PartialEq)]
pub struct RowOutput {
    /// The largest logits among ids not in `extras`, by logit descending, then id ascending.
    pub candidates: Vec<(u32, f32)>,
    /// Logits of the ids asked for, by id ascending.
    pub extras: Vec<(u32, f32)>,
    /// Log of the summed exponentials of the logits outside `extras`, at temperature 1.
    pub logsumexp: f32,
    /// The same with logits divided by the temperature; equals `logsumexp` at temperature 0.
    pub logsumexp_scaled: f32,
}

/// Why one row has no output; the others of its step have theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The forward pass gave NaN or infinity.
    #[error("logits are not finite")]
    NotFinite,
    /// An id that the model does not have.
    #[error("id {id} is outside the vocabulary of {vocabulary}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: u32,
    },
}
