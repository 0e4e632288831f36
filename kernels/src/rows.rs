//! What a decoder layer does with each row by itself.

use crate::cpu::{self, Kernel};
use crate::element::Element;
use crate::exp::exp;
use crate::lanes;
use crate::threads::Threads;

/// Elements that are worth handing to another thread.
const PIECE_ELEMENTS: usize = 16_384;

/// Calls `row` with the number and the `width` outputs of each row, on several threads where there are many.
pub(crate) fn each_row<T: Send>(
    out: &mut [T],
    width: usize,
    threads: &Threads,
    row: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = (PIECE_ELEMENTS / width).max(1);
    threads.chunks(out, rows * width, |piece, out| {
        out.chunks_mut(width).enumerate().for_each(|(i, out)| row(piece * rows + i, out));
    });
}

/// Divides each row of `x`, `[rows, width]`, by its root mean square and scales it by `weight`, `[width]`.
/// Source: arXiv:1910.07467, eq. 4.
pub fn rms_norm<E: Element>(x: &[E], weight: &[E], epsilon: f32, out: &mut [f32], threads: &Threads) {
    assert_eq!(x.len(), out.len());
    let width = weight.len();
    each_row(out, width, threads, |row, out| {
        cpu::run(RmsNorm { x: &x[row * width..][..width], weight, epsilon, out });
    });
}

struct RmsNorm<'a, E> {
    x: &'a [E],
    weight: &'a [E],
    epsilon: f32,
    out: &'a mut [f32],
}

impl<E: Element> Kernel for RmsNorm<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = x.to_f32();
        }
        let mean_square = lanes::dot(self.out, self.out) / self.out.len() as f32;
        let scale = 1.0 / (mean_square + self.epsilon).sqrt();
        for (out, weight) in self.out.iter_mut().zip(self.weight) {
            *out = *out * scale * weight.to_f32();
        }
    }
}

/// `silu(gate) * up`. `gate_up`: `[rows, 2 * width]`, gate first → `[rows, width]`.
pub fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32], threads: &Threads) {
    assert_eq!(gate_up.len(), 2 * out.len());
    each_row(out, width, threads, |row, out| {
        let (gate, up) = gate_up[2 * row * width..][..2 * width].split_at(width);
        cpu::run(Swiglu { gate, up, out });
    });
}

struct Swiglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

/// `x + y`, rounded to `x`'s type.
pub fn add<E: Element>(x: &[E], y: &[f32], out: &mut [E], threads: &Threads) {
    assert_eq!((x.len(), y.len()), (out.len(), out.len()));
    threads.chunks(out, PIECE_ELEMENTS, |piece, out| {
        let range = piece * PIECE_ELEMENTS..piece * PIECE_ELEMENTS + out.len();
        cpu::run(Add { x: &x[range.clone()], y: &y[range], out });
    });
}

struct Add<'a, E> {
    x: &'a [E],
    y: &'a [f32],
    out: &'a mut [E],
}

impl<E: Element> Kernel for Add<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((out, x), y) in self.out.iter_mut().zip(self.x).zip(self.y) {
            *out = E::from_f32(x.to_f32() + y);
        }
    }
}

/// The angles of each row: cosines and sines, `[rows, head_dim]` each, the sines negative in the first half.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
    /// Elements of a head.
    pub head_dim: usize,
}

/// Rotates the first heads of each row, as many as `out` has.
///
/// `x`: `[rows, n_heads, head_dim]` → `[rows, fewer heads, head_dim]`.
/// Pairs are (i, i + head_dim/2), as in the Hugging Face checkpoints. Source: RoFormer, arXiv:2104.09864, eq. 34.
pub fn rotate(x: &[f32], angles: &Angles<'_>, out: &mut [f32], threads: &Threads) {
    let rows = angles.cos.len() / angles.head_dim;
    let (width_in, width_out) = (x.len() / rows.max(1), out.len() / rows.max(1));
    each_row(out, width_out, threads, |row, out| {
        let heads = &x[row * width_in..][..width_out];
        let own = row * angles.head_dim..(row + 1) * angles.head_dim;
        cpu::run(Rotate { heads, cos: &angles.cos[own.clone()], sin: &angles.sin[own], out });
    });
}

struct Rotate<'a> {
    heads: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let head_dim = self.cos.len();
        let ((cos_a, cos_b), (sin_a, sin_b)) =
            (self.cos.split_at(head_dim / 2), self.sin.split_at(head_dim / 2));
        for (head, out) in self.heads.chunks_exact(head_dim).zip(self.out.chunks_exact_mut(head_dim)) {
            let (a, b) = head.split_at(head_dim / 2);
            let (out_a, out_b) = out.split_at_mut(head_dim / 2);
            for i in 0..head_dim / 2 {
                out_a[i] = a[i] * cos_a[i] + b[i] * sin_a[i];
                out_b[i] = b[i] * cos_b[i] + a[i] * sin_b[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.618).sin() * 3.0).collect()
    }

    #[test]
    fn rows_of_unit_mean_square_come_out_scaled() {
        let x: Vec<bf16> = numbers(3 * 50).into_iter().map(Element::from_f32).collect();
        let weight = vec![bf16::from_f32(2.0); 50];
        let mut out = vec![0.0; 150];
        rms_norm(&x, &weight, 0.0, &mut out, &Threads::new(1));
        for (x, out) in x.chunks(50).zip(out.chunks(50)) {
            let mean_square = out.iter().map(|y| y * y).sum::<f32>() / 50.0;
            assert!((mean_square - 4.0).abs() < 1e-4, "{mean_square}");
            let ratio = out[1] / Element::to_f32(x[1]);
            assert!(out.iter().zip(x).all(|(y, x)| (y - ratio * Element::to_f32(*x)).abs() < 1e-4));
        }
    }

    #[test]
    fn swiglu_is_its_formula() {
        let gate_up = numbers(4 * 20);
        let mut out = vec![0.0; 2 * 20];
        swiglu(&gate_up, 20, &mut out, &Threads::new(1));
        for (row, out) in gate_up.chunks(40).zip(out.chunks(20)) {
            for i in 0..20 {
                let (gate, up) = (f64::from(row[i]), f64::from(row[20 + i]));
                assert!((f64::from(out[i]) - gate / (1.0 + (-gate).exp()) * up).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_rotation_keeps_lengths_and_leaves_other_heads_out() {
        let (head_dim, rows) = (6, 2);
        let x = numbers(rows * 4 * head_dim);
        let angles = [0.3_f32, 1.0, 2.0];
        let cos: Vec<f32> = angles.iter().chain(&angles).map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| -a.sin()).chain(angles.iter().map(|a| a.sin())).collect();
        let mut rotated = vec![0.0; rows * 3 * head_dim];
        let angles_of_rows = Angles { cos: &cos.repeat(rows), sin: &sin.repeat(rows), head_dim };
        rotate(&x, &angles_of_rows, &mut rotated, &Threads::new(1));
        for (x, y) in x.chunks(4 * head_dim).zip(rotated.chunks(3 * head_dim)) {
            let turned = x[6] * angles[0].cos() - x[9] * angles[0].sin();
            assert!((y[6] - turned).abs() < 1e-6);
            let length = |x: &[f32]| x[..3 * head_dim].iter().map(|x| x * x).sum::<f32>();
            assert!((length(x) - length(y)).abs() < 1e-3);
        }
    }

    #[test]
    fn many_rows_on_many_threads_are_each_row_alone() {
        let (rows, width) = (300, 200);
        let x: Vec<f32> = numbers(rows * width);
        let weight = numbers(width);
        let mut together = vec![0.0; rows * width];
        rms_norm(&x, &weight, 1e-5, &mut together, &Threads::new(3));
        let mut sums = vec![0.0; rows * width];
        add(&x, &together, &mut sums, &Threads::new(3));
        for row in (0..rows).step_by(37) {
            let (mut alone, mut sum) = (vec![0.0; width], vec![0.0; width]);
            let x = &x[row * width..][..width];
            rms_norm(x, &weight, 1e-5, &mut alone, &Threads::new(1));
            assert_eq!(alone, together[row * width..][..width]);
            add(x, &alone, &mut sum, &Threads::new(1));
            assert_eq!(sum, sums[row * width..][..width]);
        }
    }
}
