//! Weights as they were trained, made ternary.

use super::matrix::PER_BYTE;

/// What stands for the mean magnitude of weights that have none as large.
const SMALLEST: f32 = 1e-5;

/// Rounds `weights`, `[n_out, n_in]`, times a scale to the nearest of -1, 0 and 1, of two to the even one; the scale is one over
/// their mean magnitude. Gives them packed, as [`super::TernaryMatrix`] has them, and the scale, which is NaN where a weight is.
///
/// The mean is rounded once, so it may differ from that of transformers, which adds in f32, in its last bits.
/// Source: `WeightQuant` and `pack_weights` of `integrations/bitnet.py` of transformers.
pub fn quantise(weights: &[f32], n_in: usize) -> (Vec<u8>, f32) {
    let n_out = weights.len() / n_in;
    assert_eq!(weights.len(), n_out * n_in, "whole rows of weights");
    let sum: f64 = weights.iter().map(|weight| f64::from(weight.abs())).sum();
    let mean = (sum / weights.len() as f64) as f32;
    let scale = 1.0 / if mean < SMALLEST { SMALLEST } else { mean };
    let lines = n_out.div_ceil(PER_BYTE);
    // Rows that there are not are of zeros: the bits of 1.
    let mut packed = vec![0b01_01_01_01; lines * n_in];
    for (out, weights) in weights.chunks_exact(n_in).enumerate() {
        let shift = 2 * (out / lines);
        for (byte, weight) in packed[out % lines * n_in..][..n_in].iter_mut().zip(weights) {
            *byte = *byte & !(3 << shift) | bits(weight * scale) << shift;
        }
    }
    (packed, scale)
}

/// One more than the nearest of -1, 0 and 1.
fn bits(weight: f32) -> u8 {
    match weight {
        _ if weight > 0.5 => 2,
        _ if weight < -0.5 => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ternary::{TernaryMatrix, TernaryScale};

    #[test]
    fn weights_become_the_nearest_of_three() {
        // A mean magnitude of 1.
        let weights = [0.5, 1.5, -0.5, -1.5, 0.51, 2.49, -0.51, -0.49, 1.0, 1.0];
        let (packed, scale) = quantise(&weights, 2);
        assert_eq!(scale, 1.0);
        let matrix = TernaryMatrix::new(5, 2, packed, TernaryScale::Times(1.0)).unwrap();
        let mut rows = [0.0; 10];
        rows.chunks_mut(2).enumerate().for_each(|(out, row)| matrix.unpack_row(out, row));
        assert_eq!(rows, [0.0, 1.0, 0.0, -1.0, 1.0, 1.0, -1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn weights_are_packed_as_transformers_does() {
        // pack_weights(torch.tensor([[-1, 0], [1, -1], [0, 1], [1, 1], [-1, 0], [0, 0], [1, 1], [-1, 0]]))
        let weights = [-1, 0, 1, -1, 0, 1, 1, 1, -1, 0, 0, 0, 1, 1, -1, 0].map(|weight| weight as f32);
        let (packed, _) = quantise(&weights, 2);
        assert_eq!(packed, [132, 153, 26, 88]);
    }

    #[test]
    fn zeros_and_what_is_not_finite_give_a_matrix() {
        assert_eq!(quantise(&[0.0; 4], 2), (vec![85; 2], 1.0 / 1e-5));
        assert!(quantise(&[f32::NAN, 1.0, 1.0, 1.0], 2).1.is_nan());
        assert_eq!(quantise(&[f32::INFINITY, 1.0, 1.0, 1.0], 2).1, 0.0);
    }
}
