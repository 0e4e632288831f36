//! tokenize → vision-encode → shard-forward.0: a request as token ids. Without images it goes straight to the shard.

use rkyv::{Archive, Deserialize, Serialize};

use crate::Edge;
use crate::request::{Context, Generation, Image, Payload};

/// Consecutive positions of a prompt whose embeddings come from an image instead of their token ids.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first position, in tokens from the start of the prompt.
    pub start: u32,
    /// How many positions; at least 1.
    pub rows: u32,
}

/// Where an image's embeddings lie for a model whose positions have three axes: time, row and column.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// The position of its first embedding, in tokens from the start of the prompt.
    pub start: u32,
    /// Rows of embeddings; at least 1.
    pub rows: u32,
    /// Embeddings in a row, which follow each other in the prompt; at least 1.
    pub columns: u32,
}

impl Grid {
    /// How many embeddings.
    pub fn len(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.columns)
    }

    /// Whether there are none, which no message may say.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that `grids` have embeddings and are ascending, apart and below position `end`.
    pub(crate) fn check_all(grids: &[Self], end: u32) -> Result<(), String> {
        let mut free_from = 0;
        for grid in grids {
            let (start, Self { rows, columns, .. }) = (u64::from(grid.start), grid);
            let grid_end = start + grid.len();
            if grid.is_empty() || start < free_from || grid_end > u64::from(end) {
                return Err(format!("a grid of {rows} by {columns} at {start} of {end} positions"));
            }
            free_from = grid_end;
        }
        Ok(())
    }
}

/// An image of a prompt.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct PromptImage {
    /// The image.
    pub image: Image,
    /// How many embeddings it has.
    pub rows: u32,
}

/// A prompt that fits the context, ready for admission.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Who asks, and until when.
    pub context: Context,
    /// Token ids, u32 little-endian: the prompt, then the forced tokens of earlier attempts.
    pub ids: Payload,
    /// How many of `ids` are the prompt.
    pub prompt_tokens: u32,
    /// Longest answer in tokens, forced ones included. At least 1; with the prompt it fits the context.
    pub max_tokens: u32,
    /// The answer's other settings.
    pub generation: Generation,
    /// Token ids with which the model ends a sequence.
    pub eos: Vec<u32>,
    /// The images, in order of their embeddings.
    pub images: Vec<PromptImage>,
    /// Where the embeddings go, in order, ascending and apart; as many positions as the images have rows.
    pub spans: Vec<Span>,
    /// The images as positions count them; none for a model whose positions count tokens.
    pub grids: Vec<Grid>,
    /// The images' embeddings, once vision-encode has made them: `[rows of all images, hidden_size]` in the pipeline's dtype.
    pub embeddings: Option<Payload>,
}

impl Prompt {
    /// Embeddings of all images.
    pub fn image_rows(&self) -> u64 {
        self.images.iter().map(|image| u64::from(image.rows)).sum()
    }

    fn check_spans(&self) -> Result<(), String> {
        let mut end = 0;
        for span in &self.spans {
            let span_end = span.start.checked_add(span.rows).filter(|_| span.rows > 0 && span.start >= end);
            end = span_end.ok_or_else(|| format!("span of {} rows at {}", span.rows, span.start))?;
        }
        let spanned: u64 = self.spans.iter().map(|span| u64::from(span.rows)).sum();
        match end <= self.prompt_tokens && spanned == self.image_rows() {
            true => Ok(()),
            false => Err(format!("{spanned} positions up to {end} for {} rows", self.image_rows())),
        }
    }
}

impl Edge for Prompt {
    const KIND: u16 = 2;

    fn check(&self) -> Result<(), String> {
        self.check_spans()?;
        Grid::check_all(&self.grids, self.prompt_tokens)
    }
}
