//! Products with ternary matrices against plain sums: they must be equal, whatever is computed with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use kernels::ternary::{Int8Activations, TernaryMatrix, TernaryMatrixError, TernaryScale, quantise};
use kernels::threads::Threads;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next() + next() + next()).collect()
}

fn matrix(n_out: usize, n_in: usize, scale: TernaryScale) -> TernaryMatrix<Vec<u8>> {
    let (packed, _) = quantise(&numbers(n_out * n_in, 1), n_in);
    TernaryMatrix::new(n_out, n_in, packed, scale).unwrap()
}

fn product(matrix: &TernaryMatrix<Vec<u8>>, x: &[f32], threads: &Threads) -> Vec<u32> {
    let activations = Int8Activations::new(x, matrix.n_in(), threads);
    let mut y = vec![f32::NAN; activations.rows() * matrix.n_out()];
    matrix.product(&activations, &mut y, threads);
    y.into_iter().map(f32::to_bits).collect()
}

/// As the papers and transformers write it, one output at a time.
fn expected(matrix: &TernaryMatrix<Vec<u8>>, x: &[f32]) -> Vec<u32> {
    let (n_out, n_in) = (matrix.n_out(), matrix.n_in());
    let mut weights = vec![0.0; n_out * n_in];
    weights.chunks_mut(n_in).enumerate().for_each(|(out, row)| matrix.unpack_row(out, row));
    let mut y = Vec::new();
    for x in x.chunks(n_in) {
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let x_scale = 127.0 / largest.max(1e-5);
        let x: Vec<i64> =
            x.iter().map(|x| (x * x_scale).round_ties_even().clamp(-128.0, 127.0) as i64).collect();
        for weights in weights.chunks(n_in) {
            let sum: i64 = weights.iter().zip(&x).map(|(w, x)| *w as i64 * x).sum();
            y.push(match matrix.scale() {
                TernaryScale::Times(scale) => sum as f32 / x_scale * scale,
                TernaryScale::Over(scale) => sum as f32 / (scale * x_scale),
            });
        }
    }
    y.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_output_is_the_plain_sum_whatever_the_rows_and_threads() {
    let threads = [Threads::new(1), Threads::new(3)];
    for (n_out, n_in) in [(1, 1), (4, 32), (5, 3), (6, 33), (64, 52), (203, 700), (80, 2_900)] {
        for scale in [TernaryScale::Times(0.37), TernaryScale::Over(2.7)] {
            let matrix = matrix(n_out, n_in, scale);
            let x = numbers(13 * n_in, 2);
            for rows in [0, 1, 2, 3, 8, 13] {
                let x = &x[..rows * n_in];
                let expected = expected(&matrix, x);
                for threads in &threads {
                    let what = format!("{rows} rows, {n_in} to {n_out}, {} threads", threads.count());
                    assert_eq!(product(&matrix, x, threads), expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_no_other() {
    let matrix = matrix(20, 40, TernaryScale::Times(1.0));
    let mut x = numbers(3 * 40, 4);
    let threads = Threads::new(1);
    let fine = product(&matrix, &x, &threads);
    x[40 + 7] = f32::INFINITY;
    let found = product(&matrix, &x, &threads);
    assert!(found[20..40].iter().all(|&bits| f32::from_bits(bits).is_nan()));
    assert_eq!((&found[..20], &found[40..]), (&fine[..20], &fine[40..]));
}

#[test]
fn bytes_that_are_no_matrix_are_refused() {
    let new =
        |n_out, n_in, bytes| TernaryMatrix::new(n_out, n_in, vec![0; bytes], TernaryScale::Times(1.0)).err();
    assert_eq!(new(8, 5, 10), None);
    assert_eq!(new(7, 5, 10), None, "a line for the last three");
    assert_eq!(new(0, 5, 0), None);
    for (n_out, n_in, bytes) in [(8, 5, 9), (8, 5, 11), (9, 5, 10), (usize::MAX, 4, 0)] {
        let error = TernaryMatrixError::Bytes { n_out, n_in, found: bytes };
        assert_eq!(new(n_out, n_in, bytes), Some(error));
    }
    for n_in in [0, usize::MAX, (1 << 22) + 1] {
        assert_eq!(new(4, n_in, 0), Some(TernaryMatrixError::Inputs { n_in }));
    }
}
