//! Activations as integers of eight bits.

use crate::cpu::{self, Kernel};
use crate::lanes::LANES;
use crate::threads::Threads;

/// The largest integer.
const LARGEST: f32 = 127.0;
/// What stands for the largest magnitude of a row that has none as large.
const SMALLEST: f32 = 1e-5;
/// Elements that are worth handing to another thread.
const PIECE_ELEMENTS: usize = 16_384;

/// Rows of activations, each as integers over one scale: 127 over its largest magnitude.
///
/// Made once for all matrices that the rows go through. A row with a number that is not finite has a scale of NaN, which reaches all
/// outputs of it and of no other.
/// Source: `ActQuant` of `integrations/bitnet.py` of transformers.
#[derive(Debug)]
pub struct Int8Activations {
    n_in: usize,
    rows: Vec<Row>,
}

/// One row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// `[n_in]`
    pub numbers: Vec<i8>,
    /// Of all numbers.
    pub sum: i32,
    /// activation = number / scale.
    pub scale: f32,
}

impl Int8Activations {
    /// Rounds `x`, `[rows, n_in]`, to the nearest integers, of two to the even one.
    pub fn new(x: &[f32], n_in: usize, threads: &Threads) -> Self {
        assert!(n_in > 0 && x.len().is_multiple_of(n_in), "whole rows");
        let mut rows = vec![Row::default(); x.len() / n_in];
        let piece_rows = (PIECE_ELEMENTS / n_in).max(1);
        threads.chunks(&mut rows, piece_rows, |piece, rows| {
            for (i, row) in rows.iter_mut().enumerate() {
                *row = Row::new(&x[(piece * piece_rows + i) * n_in..][..n_in]);
            }
        });
        Self { n_in, rows }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Inputs of a row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    pub(crate) fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }
}

impl Row {
    fn new(x: &[f32]) -> Self {
        let mut numbers = vec![0; x.len()];
        let (sum, scale) = cpu::run(Round { x, numbers: &mut numbers });
        Self { numbers, sum, scale }
    }
}

/// Writes a row's numbers and gives their sum and scale.
struct Round<'a> {
    x: &'a [f32],
    numbers: &'a mut [i8],
}

impl Kernel for Round<'_> {
    type Output = (i32, f32);

    #[inline(always)]
    fn run(self) -> (i32, f32) {
        /// Numbers from here up to twice as much have no bits behind the point: adding rounds, and the lowest bits are the integer.
        const TO_INTEGER: f32 = 1.5 * 8_388_608.0;
        let (largest, nothing) = largest(self.x);
        let scale = LARGEST / if largest < SMALLEST { SMALLEST } else { largest } + nothing;
        let mut sum = 0;
        for (number, x) in self.numbers.iter_mut().zip(self.x) {
            // At most 127 and a last bit, so that nothing is cut off but by the rounding.
            *number = (x * scale + TO_INTEGER).to_bits() as i8;
            sum += i32::from(*number);
        }
        (sum, scale)
    }
}

/// The largest magnitude, and zero where all are finite, else NaN.
#[inline(always)]
fn largest(x: &[f32]) -> (f32, f32) {
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut largest = [0.0_f32; LANES];
    let mut nothing = [0.0_f32; LANES];
    for x in whole {
        for lane in 0..LANES {
            let magnitude = x[lane].abs();
            largest[lane] = if magnitude > largest[lane] { magnitude } else { largest[lane] };
            nothing[lane] += magnitude * 0.0;
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        let magnitude = x.abs();
        largest[lane] = if magnitude > largest[lane] { magnitude } else { largest[lane] };
        nothing[lane] += magnitude * 0.0;
    }
    let mut all = (0.0, 0.0);
    for lane in 0..LANES {
        all.0 = if largest[lane] > all.0 { largest[lane] } else { all.0 };
        all.1 += nothing[lane];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_of_two_to_the_even_one() {
        // A scale of 1.
        let row = Row::new(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.49, -3.51, -127.0, 0.0]);
        assert_eq!(row.numbers, [127, 0, 2, 2, 0, -2, -2, 3, -4, -127, 0]);
        assert_eq!((row.sum, row.scale), (-1, 1.0));
    }

    #[test]
    fn every_row_has_a_number_of_127_unless_it_is_next_to_nothing() {
        for length in [1, 7, 8, 9, 300] {
            for size in [1e-4, 1.0, 3e7, 1e30] {
                let x: Vec<f32> = (1..=length).map(|i| (i as f32 * 1.3).sin() * size).collect();
                let row = Row::new(&x);
                let largest = row.numbers.iter().map(|number| number.unsigned_abs()).max();
                assert_eq!(largest, Some(127), "{length} of {size}");
                assert_eq!(row.sum, row.numbers.iter().map(|&number| i32::from(number)).sum());
            }
        }
        let row = Row::new(&[1e-6, -1e-38, 0.0, -0.0]);
        assert_eq!((row.numbers, row.scale), (vec![13, 0, 0, 0], 127.0 / 1e-5));
    }

    #[test]
    fn a_number_that_is_not_finite_spoils_its_row_and_no_other() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [10, 11, 19] {
                let mut x = [1.0; 30];
                x[at] = bad;
                let rows = Int8Activations::new(&x, 10, &Threads::new(1));
                assert!(rows.row(1).scale.is_nan(), "{bad} at {at}");
                assert_eq!((rows.row(0).scale, rows.row(2).scale), (127.0, 127.0));
            }
        }
    }
}
