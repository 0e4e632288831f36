//! A weight matrix of -1, 0 and 1.

use std::fmt;

use super::activations::Int8Activations;
use super::product::transposed_product;
use crate::rows::each_row;
use crate::threads::Threads;

/// Weights of a byte.
pub(crate) const PER_BYTE: usize = 4;
/// Inputs of a row up to which a sum fits into an i32, whatever the bits: a product is at most 3 * 128.
const INPUTS_MAX: usize = 1 << 22;

/// `y = x Wᵀ`: each output is a sum of integers, which is exact, made an f32, and scaled as [`TernaryScale`] says. So it depends on
/// its row and its weights alone.
///
/// A weight has two bits, one more than its value; bits of 3 are a weight of 2, as in transformers. With `lines`, a quarter of the
/// outputs, byte `i` of line `l` has input `i` of the outputs `l`, `l + lines`, `l + 2 * lines` and `l + 3 * lines`, from its lowest
/// bits on: so an input is read once for four outputs.
/// Source of the layout: `pack_weights` of `integrations/bitnet.py` of transformers.
pub struct TernaryMatrix<B> {
    n_out: usize,
    n_in: usize,
    scale: TernaryScale,
    /// `[n_out / 4, n_in]`, with whole lines for the last outputs.
    bytes: B,
}

/// How a sum of integers becomes an output, where the activations have a scale `a`: activation = number / a.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TernaryScale {
    /// `sum / a * scale`
    Times(f32),
    /// `sum / (scale * a)`
    Over(f32),
}

/// Why bytes are no matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TernaryMatrixError {
    /// Rows are empty or too long.
    #[error("rows of `{n_in}` weights, expected 1 to {INPUTS_MAX}")]
    Inputs {
        /// Weights of a row.
        n_in: usize,
    },
    /// Too few or too many bytes.
    #[error("`{found}` bytes for `{n_out}` rows of `{n_in}` ternary weights")]
    Bytes {
        /// Rows.
        n_out: usize,
        /// Weights of each.
        n_in: usize,
        /// Bytes there are.
        found: usize,
    },
}

impl<B: AsRef<[u8]>> TernaryMatrix<B> {
    /// `bytes`: `[n_out / 4, n_in]`, rounded up.
    pub fn new(n_out: usize, n_in: usize, bytes: B, scale: TernaryScale) -> Result<Self, TernaryMatrixError> {
        if !(1..=INPUTS_MAX).contains(&n_in) {
            return Err(TernaryMatrixError::Inputs { n_in });
        }
        let found = bytes.as_ref().len();
        if n_out.div_ceil(PER_BYTE).checked_mul(n_in) != Some(found) {
            return Err(TernaryMatrixError::Bytes { n_out, n_in, found });
        }
        Ok(Self { n_out, n_in, scale, bytes })
    }

    /// Outputs of a row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs of a row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Of all weights.
    pub fn scale(&self) -> TernaryScale {
        self.scale
    }

    /// The weights of output `out` without their scale, `[n_in]`.
    pub fn unpack_row(&self, out: usize, weights: &mut [f32]) {
        assert!(out < self.n_out && weights.len() == self.n_in, "a row of `n_in` weights");
        let lines = self.lines();
        let line = &self.bytes.as_ref()[out % lines * self.n_in..][..self.n_in];
        for (weight, byte) in weights.iter_mut().zip(line) {
            *weight = f32::from(byte >> (2 * (out / lines)) & 3) - 1.0;
        }
    }

    /// `x`: `[rows, n_in]` → `y`: `[rows, n_out]`.
    pub fn product(&self, x: &Int8Activations, y: &mut [f32], threads: &Threads) {
        let rows = x.rows();
        assert_eq!((x.n_in(), y.len()), (self.n_in, rows * self.n_out), "rows of `x` and `y`");
        if y.is_empty() {
            return;
        }
        let lines = self.lines();
        // `[lines, 4, rows]`
        let mut sums = vec![0; lines * PER_BYTE * rows];
        transposed_product(self.bytes.as_ref(), x, &mut sums, threads);
        let scale = self.scale;
        each_row(y, self.n_out, threads, |row, y| {
            let x_scale = x.row(row).scale;
            for (part, y) in y.chunks_mut(lines).enumerate() {
                for (line, y) in y.iter_mut().enumerate() {
                    *y = scale.output(sums[(line * PER_BYTE + part) * rows + row], x_scale);
                }
            }
        });
    }

    fn lines(&self) -> usize {
        self.n_out.div_ceil(PER_BYTE)
    }
}

impl TernaryScale {
    #[inline(always)]
    fn output(self, sum: i32, x_scale: f32) -> f32 {
        match self {
            Self::Times(scale) => sum as f32 / x_scale * scale,
            Self::Over(scale) => sum as f32 / (scale * x_scale),
        }
    }
}

impl<B> fmt::Debug for TernaryMatrix<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TernaryMatrix")
            .field("n_out", &self.n_out)
            .field("n_in", &self.n_in)
            .field("scale", &self.scale)
            .finish_non_exhaustive()
    }
}
