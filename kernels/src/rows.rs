//! What a decoder layer does with each row by itself.

use crate::cpu::{self, Kernel};
use crate::element::Element;
use crate::exp::{exp, tanh};
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
pub fn rms_norm<X: Element, W: Element>(
    x: &[X],
    weight: &[W],
    epsilon: f32,
    out: &mut [f32],
    threads: &Threads,
) {
    assert_eq!(x.len(), out.len());
    let width = weight.len();
    each_row(out, width, threads, |row, out| {
        cpu::run(RmsNorm { x: &x[row * width..][..width], weight, epsilon, out });
    });
}

struct RmsNorm<'a, X, W> {
    x: &'a [X],
    weight: &'a [W],
    epsilon: f32,
    out: &'a mut [f32],
}

impl<X: Element, W: Element> Kernel for RmsNorm<'_, X, W> {
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

/// What a gate goes through.
#[derive(Debug, Clone, Copy)]
pub enum Gate {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by the tangent. Source: arXiv:1606.08415, sec. 2.
    GeluTanh,
    /// The square of what is above zero. Source: arXiv:2109.08668, sec. 3.
    Relu2,
}

/// The gate, gone through its function, times up. `gate_up`: `[rows, 2 * width]`, gate first → `[rows, width]`.
pub fn gated(gate_up: &[f32], width: usize, function: Gate, out: &mut [f32], threads: &Threads) {
    assert_eq!(gate_up.len(), 2 * out.len());
    each_row(out, width, threads, |row, out| {
        let (gate, up) = gate_up[2 * row * width..][..2 * width].split_at(width);
        match function {
            Gate::Silu => cpu::run(Gated { gate, up, function: silu, out }),
            Gate::GeluTanh => cpu::run(Gated { gate, up, function: gelu_tanh, out }),
            Gate::Relu2 => cpu::run(Gated { gate, up, function: relu2, out }),
        }
    });
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Half of 1 + tanh(y) is the sigmoid of 2 y.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT_OF_2_OVER_PI: f32 = 1.595_769_2;
    x / (1.0 + exp(-(TWICE_ROOT_OF_2_OVER_PI * (0.044_715 * x * x * x + x))))
}

/// A NaN stays one.
#[inline(always)]
fn relu2(x: f32) -> f32 {
    let above = if x < 0.0 { 0.0 } else { x };
    above * above
}

/// `function(gate) * up`.
struct Gated<'a, F> {
    gate: &'a [f32],
    up: &'a [f32],
    function: F,
    out: &'a mut [f32],
}

impl<F: Fn(f32) -> f32> Kernel for Gated<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = (self.function)(*gate) * up;
        }
    }
}

/// `cap * tanh(x / cap)` of each element.
pub fn softcap(x: &[f32], cap: f32, out: &mut [f32], threads: &Threads) {
    assert_eq!(x.len(), out.len());
    threads.chunks(out, PIECE_ELEMENTS, |piece, out| {
        let x = &x[piece * PIECE_ELEMENTS..][..out.len()];
        cpu::run(Softcap { x, cap, out });
    });
}

struct Softcap<'a> {
    x: &'a [f32],
    cap: f32,
    out: &'a mut [f32],
}

impl Kernel for Softcap<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = self.cap * tanh(x / self.cap);
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

/// The angles of each row: cosines and sines, `[rows, rotary_dim]` each, the sines negative in the first half.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
    /// Elements of a head that are turned, from its first on.
    pub rotary_dim: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Rotates the heads of each row: `[rows, n_heads, head_dim]`.
///
/// Pairs are (i, i + rotary_dim/2), as in the Hugging Face checkpoints. Source: RoFormer, arXiv:2104.09864, eq. 34.
pub fn rotate(x: &[f32], angles: &Angles<'_>, out: &mut [f32], threads: &Threads) {
    assert_eq!(x.len(), out.len());
    let width = x.len() * angles.rotary_dim / angles.cos.len().max(1);
    each_row(out, width, threads, |row, out| {
        let heads = &x[row * width..][..width];
        let own = row * angles.rotary_dim..(row + 1) * angles.rotary_dim;
        let (cos, sin) = (&angles.cos[own.clone()], &angles.sin[own]);
        cpu::run(Rotate { heads, cos, sin, head_dim: angles.head_dim, out });
    });
}

struct Rotate<'a> {
    heads: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    head_dim: usize,
    out: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (head_dim, rotary_dim) = (self.head_dim, self.cos.len());
        let half = rotary_dim / 2;
        let ((cos_a, cos_b), (sin_a, sin_b)) = (self.cos.split_at(half), self.sin.split_at(half));
        for (head, out) in self.heads.chunks_exact(head_dim).zip(self.out.chunks_exact_mut(head_dim)) {
            let ((head, unturned), (out, out_unturned)) =
                (head.split_at(rotary_dim), out.split_at_mut(rotary_dim));
            out_unturned.copy_from_slice(unturned);
            let (a, b) = head.split_at(half);
            let (out_a, out_b) = out.split_at_mut(half);
            for i in 0..half {
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
    fn gates_are_their_formulas() {
        let gate_up = numbers(4 * 20);
        let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865 * (x + 0.044_715 * x.powi(3))).tanh());
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let relu2 = |x: f64| x.max(0.0).powi(2);
        let gates =
            [(Gate::Silu, &silu as &dyn Fn(f64) -> f64), (Gate::GeluTanh, &gelu), (Gate::Relu2, &relu2)];
        for (gate, function) in gates {
            let mut out = vec![0.0; 2 * 20];
            gated(&gate_up, 20, gate, &mut out, &Threads::new(1));
            for (row, out) in gate_up.chunks(40).zip(out.chunks(20)) {
                for i in 0..20 {
                    let (gate, up) = (f64::from(row[i]), f64::from(row[20 + i]));
                    assert!((f64::from(out[i]) - function(gate) * up).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_softcap_bends_what_is_large() {
        let x = [-1e6, -40.0, -1.0, 0.0, 1e-3, 25.0, 1e6];
        let mut out = [0.0; 7];
        softcap(&x, 30.0, &mut out, &Threads::new(1));
        for (x, out) in x.iter().zip(out) {
            assert!((f64::from(out) - 30.0 * f64::from(x / 30.0).tanh()).abs() < 1e-5, "{x}: {out}");
        }
    }

    #[test]
    fn a_rotation_keeps_lengths_and_leaves_the_rest_of_a_head() {
        let (head_dim, rotary_dim, rows) = (8, 6, 2);
        let x = numbers(rows * 3 * head_dim);
        let angles = [0.3_f32, 1.0, 2.0];
        let cos: Vec<f32> = angles.iter().chain(&angles).map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| -a.sin()).chain(angles.iter().map(|a| a.sin())).collect();
        let mut rotated = vec![0.0; rows * 3 * head_dim];
        let angles_of_rows = Angles { cos: &cos.repeat(rows), sin: &sin.repeat(rows), rotary_dim, head_dim };
        rotate(&x, &angles_of_rows, &mut rotated, &Threads::new(1));
        for (x, y) in x.chunks(head_dim).zip(rotated.chunks(head_dim)) {
            let turned = x[0] * angles[0].cos() - x[3] * angles[0].sin();
            assert!((y[0] - turned).abs() < 1e-6);
            assert_eq!(x[rotary_dim..], y[rotary_dim..]);
            let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
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
