//! The image embeddings of one prompt, and which of them a step needs.

use bytes::Bytes;
use pipelines::{Job, owned};
use schemas::prompt::{Prompt, Span};
use schemas::request::{BlobRef, Payload};
use schemas::{DType, Tensor};

use crate::engine::Overlay;

/// Rows of embeddings and the positions that they belong to. Kept until the sequence ends: a preempted one is computed anew.
#[derive(Debug, Default)]
pub(super) struct Images {
    spans: Vec<Span>,
    dtype: Option<DType>,
    row_bytes: usize,
    /// The rows of all spans, one after the other.
    rows: Bytes,
}

impl Images {
    /// The images of `prompt`, which came in `job`; none when they are missing or not as many as the prompt says.
    pub(super) fn read(prompt: &Prompt, job: &Job, dtype: DType, row_bytes: usize) -> Option<Self> {
        if prompt.images.is_empty() {
            return Some(Self::default());
        }
        let rows = match prompt.embeddings.as_ref()? {
            Payload::Inline(rows) => Bytes::copy_from_slice(rows),
            Payload::Blob(_) => owned::content(job.blobs.last()?.as_ref()?)?,
        };
        let is_whole = rows.len() as u64 == prompt.image_rows() * row_bytes as u64;
        is_whole.then(|| Self { spans: prompt.spans.clone(), dtype: Some(dtype), row_bytes, rows })
    }

    /// Embeddings for the positions from `start` to `end` of the sequence, which are rows of a step from `first_row` on.
    pub(super) fn overlays(&self, start: u32, end: u32, first_row: usize) -> Vec<Overlay> {
        let mut overlays = Vec::new();
        let mut before = 0;
        for span in &self.spans {
            let (from, to) = (span.start.max(start), (span.start + span.rows).min(end));
            if from < to {
                let offset = (before + from - span.start) as usize * self.row_bytes;
                let bytes = (to - from) as usize * self.row_bytes;
                overlays.extend(self.overlay(first_row + (from - start) as usize, offset, bytes));
            }
            before += span.rows;
        }
        overlays
    }

    fn overlay(&self, row: usize, offset: usize, bytes: usize) -> Option<Overlay> {
        let dtype = self.dtype?;
        let shape = vec![(bytes / self.row_bytes) as u32, (self.row_bytes / dtype.size()) as u32];
        let rows = Tensor::new(dtype, shape, self.rows.slice(offset..offset + bytes)).ok()?;
        Some(Overlay { row, rows })
    }
}

/// Where the embeddings of `prompt` are, when not in the entry.
pub(super) fn blob(prompt: &Prompt) -> Option<BlobRef> {
    match &prompt.embeddings {
        Some(Payload::Blob(blob)) => Some(*blob),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        let spans = vec![Span { start: 2, rows: 3 }, Span { start: 7, rows: 2 }];
        Images { spans, dtype: Some(DType::Bf16), row_bytes: 2, rows: (0..10).collect::<Vec<u8>>().into() }
    }

    #[test]
    fn a_chunk_of_a_prompt_gets_its_part_of_each_span() {
        let parts = |start, end| -> Vec<(usize, Vec<u8>)> {
            let overlays = images().overlays(start, end, 100);
            overlays.iter().map(|it| (it.row, it.rows.data().to_vec())).collect()
        };
        assert_eq!(parts(0, 9), [(102, vec![0, 1, 2, 3, 4, 5]), (107, vec![6, 7, 8, 9])]);
        assert_eq!(parts(3, 8), [(100, vec![2, 3, 4, 5]), (104, vec![6, 7])]);
        assert_eq!(parts(5, 7), []);
        assert_eq!(parts(8, 20), [(100, vec![8, 9])]);
    }
}
