//! Products with a weight matrix.

use crate::cpu::{self, Kernel};
use crate::element::{COLUMNS, Element};
use crate::rows::each_row;
use crate::threads::Threads;

/// Rows of `x` whose sums are in registers at once.
const ROWS_MAX: usize = 6;
/// Bytes of weights that one piece of work reads, once for each `ROWS_MAX` rows: they should stay in a core's cache.
const PIECE_BYTES: usize = 128 << 10;

/// `y = x Wᵀ + b`, each element by itself: from the bias on, the products are added in the order of the inputs, each in
/// one fused multiply-add in f32.
///
/// The weights are copied, transposed in panels of 16 outputs: then a sum of each output is a vector's lane.
#[derive(Debug)]
pub struct Matrix<E: Element> {
    n_out: usize,
    n_in: usize,
    /// `[n_out]`, zeros up to whole panels.
    bias: Vec<[f32; COLUMNS]>,
    /// `[n_out / 16, n_in]`
    panels: Vec<E::Columns>,
}

impl<E: Element> Matrix<E> {
    /// `weights`: `[n_out, n_in]`, `bias`: `[n_out]` or empty.
    pub fn new(weights: &[E], bias: &[E], n_in: usize) -> Self {
        let n_out = weights.len() / n_in;
        assert_eq!(weights.len(), n_out * n_in, "whole rows of weights");
        assert!(bias.is_empty() || bias.len() == n_out, "a bias for each output");
        let mut padded = vec![[0.0; COLUMNS]; n_out.div_ceil(COLUMNS)];
        for (padded, bias) in padded.as_flattened_mut().iter_mut().zip(bias) {
            *padded = bias.to_f32();
        }
        Self { n_out, n_in, bias: padded, panels: pack(weights, n_in) }
    }

    /// Outputs of a row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs of a row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// `x`: `[rows, n_in]` → `y`: `[rows, n_out]`.
    pub fn product(&self, x: &[f32], y: &mut [f32], threads: &Threads) {
        let rows = x.len() / self.n_in;
        assert_eq!((x.len(), y.len()), (rows * self.n_in, rows * self.n_out), "rows of `x` and `y`");
        if rows == 0 {
            return;
        }
        let panel_bytes = self.n_in * size_of::<E::Columns>();
        // As many panels as are cached together, but several pieces for each thread.
        let spread = self.bias.len().div_ceil(4 * threads.count());
        let panels = (PIECE_BYTES / panel_bytes).min(spread).next_multiple_of(4).max(4);
        // `[panels, rows, 16]`
        let mut sums = vec![[0.0; COLUMNS]; self.bias.len() * rows];
        threads.chunks(&mut sums, panels * rows, |piece, sums| {
            let first = piece * panels;
            let last = (first + panels).min(self.bias.len());
            let weights = &self.panels[first * self.n_in..last * self.n_in];
            cpu::run(Piece::<E> { weights, bias: &self.bias[first..last], x, n_in: self.n_in, sums });
        });
        each_row(y, self.n_out, threads, |row, y| {
            for (panel, y) in y.chunks_mut(COLUMNS).enumerate() {
                y.copy_from_slice(&sums[panel * rows + row][..y.len()]);
            }
        });
    }
}

fn pack<E: Element>(weights: &[E], n_in: usize) -> Vec<E::Columns> {
    let zero = E::from_f32(0.0);
    let panels = weights.chunks(COLUMNS * n_in).flat_map(|panel| {
        let weight = move |column, i| panel.get(column * n_in + i).copied().unwrap_or(zero);
        (0..n_in).map(move |i| E::pack(std::array::from_fn(|column| weight(column, i))))
    });
    panels.collect()
}

/// All rows of some panels.
struct Piece<'a, E: Element> {
    /// `[panels, n_in]`
    weights: &'a [E::Columns],
    /// `[panels]`
    bias: &'a [[f32; COLUMNS]],
    /// `[rows, n_in]`
    x: &'a [f32],
    n_in: usize,
    /// `[panels, rows, 16]`
    sums: &'a mut [[f32; COLUMNS]],
}

impl<E: Element> Kernel for Piece<'_, E> {
    type Output = ();

    /// Sums are kept in registers over all inputs: those of few rows for several panels, of many for one.
    #[inline(always)]
    fn run(mut self) {
        let rows = self.x.len() / self.n_in;
        // Blocks as equal as possible: eight rows are four and four, not six and two.
        let blocks = rows.div_ceil(ROWS_MAX);
        for block in 0..blocks {
            let (from, to) = (rows * block / blocks, rows * (block + 1) / blocks);
            match to - from {
                1 => self.block::<1, 4>(from),
                2 => self.block::<2, 2>(from),
                3 => self.block::<3, 2>(from),
                4 => self.block::<4, 1>(from),
                5 => self.block::<5, 1>(from),
                _ => self.block::<ROWS_MAX, 1>(from),
            }
        }
    }
}

impl<E: Element> Piece<'_, E> {
    /// `R` rows from `row` on, of all panels, `P` at a time.
    #[inline(always)]
    fn block<const R: usize, const P: usize>(&mut self, row: usize) {
        let rows = self.x.len() / self.n_in;
        let n_in = self.n_in;
        let x: [&[f32]; R] = std::array::from_fn(|r| &self.x[(row + r) * n_in..][..n_in]);
        let whole = self.bias.len() / P * P;
        for panel in (0..whole).step_by(P) {
            let weights: [&[E::Columns]; P] =
                std::array::from_fn(|p| &self.weights[(panel + p) * n_in..][..n_in]);
            let bias: [[f32; COLUMNS]; P] = std::array::from_fn(|p| self.bias[panel + p]);
            let sums = sums::<E, R, P>(weights, bias, x);
            for (p, sums) in sums.iter().enumerate() {
                self.sums[(panel + p) * rows + row..][..R].copy_from_slice(sums);
            }
        }
        for panel in whole..self.bias.len() {
            let weights = [&self.weights[panel * n_in..][..n_in]];
            let [sums] = sums::<E, R, 1>(weights, [self.bias[panel]], x);
            self.sums[panel * rows + row..][..R].copy_from_slice(&sums);
        }
    }
}

/// The sums of `R` rows for `P` panels: here is the order that [`Matrix`] promises.
#[inline(always)]
fn sums<E: Element, const R: usize, const P: usize>(
    weights: [&[E::Columns]; P],
    bias: [[f32; COLUMNS]; P],
    x: [&[f32]; R],
) -> [[[f32; COLUMNS]; R]; P] {
    let n_in = weights[0].len();
    assert!(weights.iter().all(|weights| weights.len() == n_in) && x.iter().all(|x| x.len() == n_in));
    let mut sums = bias.map(|bias| [bias; R]);
    for i in 0..n_in {
        for p in 0..P {
            let weights = E::unpack(weights[p][i]);
            for r in 0..R {
                for column in 0..COLUMNS {
                    sums[p][r][column] = x[r][i].mul_add(weights[column], sums[p][r][column]);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Numbers of very different sizes, so that another order of additions would show.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        (0..count).map(|_| (next() as f32 / 8_388_608.0 - 1.0) * 2.0_f32.powi(next() as i32 % 12)).collect()
    }

    /// The promised order, one output at a time.
    fn expected(weights: &[f32], bias: &[f32], x: &[f32], n_in: usize) -> Vec<u32> {
        let n_out = weights.len() / n_in;
        let outputs = x.chunks(n_in).flat_map(|x| {
            (0..n_out).map(move |out| {
                let start = bias.get(out).copied().unwrap_or(0.0);
                let weights = &weights[out * n_in..][..n_in];
                x.iter().zip(weights).fold(start, |sum, (x, w)| x.mul_add(*w, sum))
            })
        });
        outputs.map(f32::to_bits).collect()
    }

    fn product<E: Element>(matrix: &Matrix<E>, x: &[f32], threads: &Threads) -> Vec<u32> {
        let mut y = vec![f32::NAN; x.len() / matrix.n_in() * matrix.n_out()];
        matrix.product(x, &mut y, threads);
        y.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn every_output_is_summed_in_the_promised_order() {
        let threads = [Threads::new(1), Threads::new(3)];
        for (n_out, n_in) in [(1, 1), (5, 3), (16, 64), (40, 33), (200, 96)] {
            let weights = numbers(n_out * n_in, 1);
            let half: Vec<bf16> = weights.iter().map(|&w| Element::from_f32(w)).collect();
            let rounded: Vec<f32> = half.iter().map(|&w| Element::to_f32(w)).collect();
            let bias = numbers(n_out, 2);
            let full = Matrix::new(&weights, &bias, n_in);
            let half = Matrix::new(&half, &[], n_in);
            for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 40] {
                let x = numbers(rows * n_in, 3);
                for threads in &threads {
                    let what = format!("{rows} rows, {n_in} to {n_out}, {} threads", threads.count());
                    assert_eq!(product(&full, &x, threads), expected(&weights, &bias, &x, n_in), "{what}");
                    assert_eq!(
                        product(&half, &x, threads),
                        expected(&rounded, &[], &x, n_in),
                        "{what}, bf16"
                    );
                }
            }
        }
    }

    #[test]
    fn vector_instructions_do_not_change_a_bit() {
        let (n_out, n_in, rows) = (48, 70, 11);
        let (weights, x) = (numbers(n_out * n_in, 1), numbers(rows * n_in, 2));
        let packed = pack(&weights, n_in);
        let compute = |with: fn(Piece<'_, f32>)| {
            let mut sums = vec![[0.0; COLUMNS]; n_out / COLUMNS * rows];
            let bias = [[0.5; COLUMNS]; 3];
            with(Piece { weights: &packed, bias: &bias, x: &x, n_in, sums: &mut sums });
            sums.into_iter().flatten().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(compute(|piece| cpu::run(piece)), compute(|piece| piece.run()));
    }
}
