//! What a GGUF will hold.

use crate::gguf::{SharedTensor, Value};

/// Keys and tensors, in the order in which they will stand.
#[derive(Debug)]
pub struct Plan {
    /// Keys and values, without `general.file_type` and `general.quantization_version`, which follow from the types that are chosen.
    pub metadata: Vec<(String, Value)>,
    /// The tensors.
    pub tensors: Vec<PlannedTensor>,
}

/// One tensor.
#[derive(Debug)]
pub struct PlannedTensor {
    /// Its name in the GGUF.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Its elements.
    pub content: Content,
}

/// Where a tensor's elements come from.
#[derive(Debug)]
pub enum Content {
    /// These numbers.
    Numbers(Vec<f32>),
    /// Weights that stand one below the other: usually one, of experts as many as there are.
    Stored {
        /// The weights, of one shape.
        parts: Vec<SharedTensor>,
        /// What is done to them.
        change: Change,
    },
}

/// What is done to a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// The rows of each head, ordered for pairs (i, i + head_dim/2), are ordered for neighbours (2i, 2i+1).
    /// Source: `LlamaModel.permute` of `conversion/llama.py`.
    PairNeighbours {
        /// Rows of a head; even.
        head_dim: usize,
    },
    /// One is added to each element: norms that scale by one more than their weight.
    AddOne,
}

impl Change {
    /// Which row of the source becomes this row.
    pub fn source_row(self, row: usize) -> usize {
        match self {
            Self::PairNeighbours { head_dim } => {
                let within = row % head_dim;
                row - within + (within % 2) * (head_dim / 2) + within / 2
            }
            Self::Nothing | Self::AddOne => row,
        }
    }
}

impl PlannedTensor {
    /// Elements that are read, changed and stored together: a row, or one element of a vector whose elements change places.
    pub fn row_length(&self) -> usize {
        match (&self.content, self.shape.as_slice()) {
            (Content::Stored { change: Change::PairNeighbours { .. }, .. }, [_]) => 1,
            (_, shape) => shape.last().copied().unwrap_or(1),
        }
    }

    /// How many rows of [`Self::row_length`] there are.
    pub fn rows(&self) -> usize {
        self.elements() / self.row_length().max(1)
    }

    /// How many elements there are.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_neighbours() {
        let rows = |change: Change| (0..8).map(|row| change.source_row(row)).collect::<Vec<_>>();
        assert_eq!(rows(Change::PairNeighbours { head_dim: 4 }), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(rows(Change::PairNeighbours { head_dim: 8 }), [0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!(rows(Change::AddOne), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
