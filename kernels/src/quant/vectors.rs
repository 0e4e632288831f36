//! The few operations that the compiler does not find vector instructions for by itself.

use super::block::{GROUP, Numbers, Words, signed};
use crate::cpu::Kernel;
use crate::lanes::{LANES, Lanes};

/// Operations with the same results, bit for bit, for any kind of processor.
///
/// A value is the permission to use its instructions.
pub(crate) trait Vectors: Copy + Send + Sync {
    /// 32 weights of a group.
    type Wide: Copy;
    /// Eight running sums.
    type Sums: Copy;

    /// Computes with all of the processor's instructions that this is the permission for.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Sums of nothing.
    fn zeros(self) -> Self::Sums;

    /// `numbers`, as `add` and `add_halves` take them.
    fn widen(self, numbers: &Numbers) -> Self::Wide;

    /// Adds the products of `w` and `x` to the sums, times `scale`.
    ///
    /// To lane `l` go the products of elements 2l, 2l + 1, 2l + 16 and 2l + 17, added as integers: their sum is below
    /// 2^24, so exact in f32. It is multiplied and added in one fused operation. No `x` is -32768.
    fn add(self, sums: Self::Sums, w: Self::Wide, x: &[i16; GROUP], scale: f32) -> Self::Sums;

    /// The same where each half has a scale: first elements 2l and 2l + 1 are added to lane l, then 2l + 16 and 2l + 17.
    fn add_halves(self, sums: Self::Sums, w: Self::Wide, x: &[i16; GROUP], scales: [f32; 2]) -> Self::Sums;

    /// The sums.
    fn lanes(self, sums: Self::Sums) -> Lanes;

    /// `table[index]` for each; indices are below 16.
    fn look_up(self, table: &[i8; 16], indices: Words) -> Numbers;
}

/// Any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Vectors for Portable {
    type Wide = [i16; GROUP];
    type Sums = Lanes;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run()
    }

    #[inline(always)]
    fn zeros(self) -> Lanes {
        [0.0; LANES]
    }

    #[inline(always)]
    fn widen(self, numbers: &Numbers) -> [i16; GROUP] {
        numbers.map(i16::from)
    }

    #[inline(always)]
    fn add(self, mut sums: Lanes, w: [i16; GROUP], x: &[i16; GROUP], scale: f32) -> Lanes {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = ((pair(&w, x, lane) + pair(&w, x, lane + LANES)) as f32).mul_add(scale, *sum);
        }
        sums
    }

    #[inline(always)]
    fn add_halves(self, mut sums: Lanes, w: [i16; GROUP], x: &[i16; GROUP], scales: [f32; 2]) -> Lanes {
        for (half, scale) in scales.into_iter().enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = (pair(&w, x, lane + half * LANES) as f32).mul_add(scale, *sum);
            }
        }
        sums
    }

    #[inline(always)]
    fn lanes(self, sums: Lanes) -> Lanes {
        sums
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], indices: Words) -> Numbers {
        signed(indices, 0).map(|index| table[usize::from(index.cast_unsigned() & 15)])
    }
}

/// Elements `2i` and `2i + 1`.
#[inline(always)]
fn pair(w: &[i16; GROUP], x: &[i16; GROUP], i: usize) -> i32 {
    let product = |i: usize| i32::from(w[i]) * i32::from(x[i]);
    product(2 * i) + product(2 * i + 1)
}
