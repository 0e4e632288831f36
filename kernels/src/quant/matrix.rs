//! A weight matrix that stays quantised.

use std::fmt;

use super::activations::Activations;
use super::format::Format;
use super::product::transposed_product;
use crate::rows::each_row;
use crate::threads::Threads;

/// `y = x Wᵀ`.
///
/// An output is the sum of eight lanes, as `lanes::sum` adds them, and of eight lanes of offsets in the same way. Groups of
/// 32 inputs follow each other: lane `l` takes the products of inputs 2l, 2l + 1, 2l + 16 and 2l + 17 of the group, which
/// are exact, times the product of the scales of weights and activations, in one fused multiply-add; where each half of a
/// group has a scale, one for each half. The sum of the activations of part `p` of a block that has a scale, times its
/// offset, goes to lane `p % 8` of the offsets likewise. Nothing else has an influence on this order.
///
/// An activation is rounded by at most 1/65534 of the largest in its group. With Gaussian weights and activations an output
/// differs from the product of the dequantised weights and the activations before rounding by about 2e-6, and by less than
/// 1e-5, of the sum of the products' absolute values.
pub struct QuantMatrix<B> {
    format: Format,
    n_out: usize,
    n_in: usize,
    row_bytes: usize,
    /// `[n_out, row_bytes]`
    bytes: B,
}

/// Why bytes are no matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantMatrixError {
    /// Rows are no whole blocks, or empty, or too long.
    #[error("rows of `{n_in}` weights, not whole blocks of `{}`", format.name())]
    Inputs {
        /// Of the weights.
        format: Format,
        /// Weights of a row.
        n_in: usize,
    },
    /// Too few or too many bytes.
    #[error("`{found}` bytes for `{n_out}` rows of `{row_bytes}` bytes")]
    Bytes {
        /// Rows.
        n_out: usize,
        /// Bytes of each.
        row_bytes: usize,
        /// Bytes there are.
        found: usize,
    },
}

impl<B: AsRef<[u8]>> QuantMatrix<B> {
    /// `bytes`: `[n_out, n_in]` in blocks of `format`, each row after the other.
    pub fn new(format: Format, n_out: usize, n_in: usize, bytes: B) -> Result<Self, QuantMatrixError> {
        let row_bytes = match format.row_bytes(n_in) {
            Some(row_bytes) if row_bytes > 0 => row_bytes,
            _ => return Err(QuantMatrixError::Inputs { format, n_in }),
        };
        let found = bytes.as_ref().len();
        if n_out.checked_mul(row_bytes) != Some(found) {
            return Err(QuantMatrixError::Bytes { n_out, row_bytes, found });
        }
        Ok(Self { format, n_out, n_in, row_bytes, bytes })
    }

    /// Of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs of a row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs of a row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// The weights of output `out`, `[n_in]`.
    pub fn dequantise_row(&self, out: usize, weights: &mut [f32]) {
        let bytes = &self.bytes.as_ref()[out * self.row_bytes..][..self.row_bytes];
        self.format.dequantise(bytes, weights);
    }

    /// `x`: `[rows, n_in]` → `y`: `[rows, n_out]`.
    pub fn product(&self, x: &Activations, y: &mut [f32], threads: &Threads) {
        let rows = x.rows();
        assert_eq!((x.n_in(), y.len()), (self.n_in, rows * self.n_out), "rows of `x` and `y`");
        let (weights, row_bytes) = (self.bytes.as_ref(), self.row_bytes);
        match rows {
            _ if y.is_empty() => {}
            1 => transposed_product(self.format, weights, row_bytes, x, y, threads),
            _ => {
                let mut sums = vec![0.0; y.len()];
                transposed_product(self.format, weights, row_bytes, x, &mut sums, threads);
                each_row(y, self.n_out, threads, |row, y| {
                    for (out, y) in y.iter_mut().enumerate() {
                        *y = sums[out * rows + row];
                    }
                });
            }
        }
    }
}

impl<B> fmt::Debug for QuantMatrix<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantMatrix")
            .field("format", &self.format)
            .field("n_out", &self.n_out)
            .field("n_in", &self.n_in)
            .finish_non_exhaustive()
    }
}
