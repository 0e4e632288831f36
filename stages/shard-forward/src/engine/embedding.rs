//! What a token id becomes.

use kernels::quant::QuantMatrix;
use tch::{Device, Kind, Tensor};

use super::layer::Sizes;
use super::memory::{Shared, fill};
use super::weights::{Loader, MappedBytes, Matrix, Weight};

pub(super) const NAME: &str = "model.embed_tokens";

/// `[vocab_size, hidden_size]`.
#[derive(Debug)]
pub(super) enum Embedding {
    Plain(Weight),
    /// Rows become numbers of this kind when they are looked up.
    Quantised(QuantMatrix<MappedBytes>, Kind),
}

impl Embedding {
    /// In `kind`.
    pub(super) fn load(loader: &Loader<'_>, sizes: &Sizes, kind: Kind) -> anyhow::Result<Self> {
        let shape = [i64::from(sizes.vocabulary), sizes.hidden];
        Ok(match loader.matrix(&format!("{NAME}.weight"), shape)? {
            Matrix::Plain(weight) => Self::Plain(weight),
            Matrix::Quantised(matrix) => Self::Quantised(matrix, kind),
        })
    }

    /// Rows of the ids, which are inside: `[ids, hidden_size]`, in a tensor of their own on `device`.
    pub(super) fn rows(&self, ids: &[u32], device: Device) -> Tensor {
        match self {
            Self::Plain(weight) => {
                let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
                weight.tensor().index_select(0, &Tensor::from_slice(&ids).to_device(device))
            }
            Self::Quantised(matrix, kind) => {
                let width = matrix.n_in();
                let rows = fill::<f32>(&[ids.len() as i64, width as i64], |out| {
                    let rows = out.chunks_mut(width).zip(ids);
                    rows.for_each(|(out, &id)| matrix.dequantise_row(id as usize, out));
                });
                rows.to_kind(*kind)
            }
        }
    }

    /// Where it is a tensor of the engine's own, so that a head that is tied to it need not have another.
    pub(super) fn owned(&self) -> Option<Weight> {
        match self {
            Self::Plain(Shared::Owned(tensor)) => Some(Shared::Owned(tensor.shallow_clone())),
            _ => None,
        }
    }
}
