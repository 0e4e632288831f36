//! Activations as integers.

use super::block::GROUP;
use crate::cpu::{self, Kernel};
use crate::lanes::LANES;
use crate::threads::Threads;

/// The largest integer.
const LARGEST: f32 = 32_767.0;
/// Groups whose numbers are all smaller become zeros: the inverse of their scale might not be finite.
const SMALLEST: f32 = 1e-33;
/// Elements that are worth handing to another thread.
const PIECE_ELEMENTS: usize = 16_384;

/// Rows of activations, each group of 32 as integers times a scale: 16 bits, so that what is lost is little beside what the
/// weights have lost.
///
/// Made once for all matrices that the rows go through. A group with a number that is not finite has a scale of NaN, which
/// reaches all outputs of its row and of no other.
#[derive(Debug)]
pub struct Activations {
    n_in: usize,
    rows: Vec<Row>,
}

/// One row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// `[n_in / 32]`, from -32767 to 32767.
    pub numbers: Vec<[i16; GROUP]>,
    /// `[n_in / 32]`: activation = number * scale.
    pub scales: Vec<f32>,
    /// `[n_in / 32]`: of a group's numbers, times the scale.
    pub sums: Vec<f32>,
    /// `[n_in / 16]`: the same of each half.
    pub half_sums: Vec<f32>,
}

impl Activations {
    /// Rounds `x`, `[rows, n_in]`, to the nearest integers. `n_in` is a multiple of 32, as in every [`super::Format`].
    pub fn new(x: &[f32], n_in: usize, threads: &Threads) -> Self {
        assert!(n_in > 0 && n_in.is_multiple_of(GROUP), "whole groups");
        assert!(x.len().is_multiple_of(n_in), "whole rows");
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
        let (x, _) = x.as_chunks::<GROUP>();
        let mut row = Self {
            numbers: vec![[0; GROUP]; x.len()],
            scales: vec![0.0; x.len()],
            sums: vec![0.0; x.len()],
            half_sums: vec![0.0; 2 * x.len()],
        };
        cpu::run(Round { x, row: &mut row });
        row
    }
}

/// Fills a row.
struct Round<'a> {
    x: &'a [[f32; GROUP]],
    row: &'a mut Row,
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, x) in self.x.iter().enumerate() {
            let (largest, nothing) = largest(x);
            let scale = if largest < SMALLEST { 0.0 } else { largest / LARGEST } + nothing;
            let inverse = if largest < SMALLEST { 0.0 } else { LARGEST / largest };
            let numbers = round(x, inverse);
            let mut halves = [0_i32; 2];
            for (half, sum) in halves.iter_mut().enumerate() {
                for number in &numbers[half * GROUP / 2..][..GROUP / 2] {
                    *sum += i32::from(*number);
                }
            }
            self.row.numbers[i] = numbers;
            self.row.scales[i] = scale;
            // Both sums are below 2^24: exact.
            self.row.sums[i] = (halves[0] + halves[1]) as f32 * scale;
            self.row.half_sums[2 * i] = halves[0] as f32 * scale;
            self.row.half_sums[2 * i + 1] = halves[1] as f32 * scale;
        }
    }
}

/// The largest absolute value, and zero where all are finite, else NaN.
#[inline(always)]
fn largest(x: &[f32; GROUP]) -> (f32, f32) {
    let mut largest = [0.0_f32; LANES];
    let mut nothing = [0.0_f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let magnitude = x[lane].abs();
            largest[lane] = if magnitude > largest[lane] { magnitude } else { largest[lane] };
            nothing[lane] += magnitude * 0.0;
        }
    }
    let mut all = (0.0, 0.0);
    for lane in 0..LANES {
        all.0 = if largest[lane] > all.0 { largest[lane] } else { all.0 };
        all.1 += nothing[lane];
    }
    all
}

/// The nearest integers, of two the even one.
#[inline(always)]
fn round(x: &[f32; GROUP], inverse: f32) -> [i16; GROUP] {
    /// Numbers from here up to twice as much have no bits behind the point: adding rounds, and the lowest bits are the integer.
    const TO_INTEGER: f32 = 1.5 * 8_388_608.0;
    let mut numbers = [0; GROUP];
    for i in 0..GROUP {
        numbers[i] = (x[i] * inverse + TO_INTEGER).to_bits() as i16;
    }
    // A NaN has any bits, and so perhaps these, which no product may meet.
    for number in &mut numbers {
        *number = (*number).max(-i16::MAX);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(x: &[f32]) -> Row {
        Row::new(x)
    }

    #[test]
    fn numbers_are_the_nearest_and_sums_are_theirs() {
        let x: Vec<f32> =
            (0..64_u8).map(|i| (f32::from(i) * 1.3).sin() * if i < 32 { 1e-20 } else { 300.0 }).collect();
        let row = row(&x);
        for (i, x) in x.iter().enumerate() {
            let (number, scale) = (row.numbers[i / GROUP][i % GROUP], row.scales[i / GROUP]);
            assert!((f32::from(number) * scale - x).abs() <= 0.501 * scale, "{i}");
        }
        for (half, sum) in row.half_sums.iter().enumerate() {
            let expected: i32 =
                row.numbers.as_flattened()[half * 16..][..16].iter().map(|&n| i32::from(n)).sum();
            assert_eq!(*sum, expected as f32 * row.scales[half / 2]);
        }
        assert!(row.numbers.iter().all(|numbers| numbers.iter().any(|number| number.abs() == i16::MAX)));
    }

    #[test]
    fn zeros_and_the_smallest_numbers_are_finite() {
        for x in [0.0, -0.0, f32::from_bits(1), 1e-38, 1e-33, 1e36] {
            let row = row(&[x; GROUP]);
            assert!(row.scales[0].is_finite() && row.sums[0].is_finite(), "{x}");
            assert!(
                (f32::from(row.numbers[0][0]) * row.scales[0] - x).abs() <= 1e-33_f32.max(x * 1e-4),
                "{x}"
            );
        }
    }

    #[test]
    fn a_number_that_is_not_finite_spoils_its_group_and_nothing_else() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 3 * GROUP];
            x[40] = bad;
            let row = row(&x);
            assert!(row.scales[1].is_nan() && row.scales[0] == row.scales[2] && row.scales[0].is_finite());
            assert!(row.numbers.as_flattened().iter().all(|&number| number > i16::MIN));
        }
    }
}
