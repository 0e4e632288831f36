//! The few operations that the compiler does not find vector instructions for by itself.

use super::block::{self, GROUP, Numbers, Words};
use crate::cpu::Kernel;
use crate::lanes::{LANES, Lanes};

/// Operations with the same results, bit for bit, for any kind of processor.
///
/// A value is the permission to use its instructions.
pub(crate) trait Vectors: Copy + Send + Sync {
    /// 32 bytes.
    type Words: Copy;
    /// The integers of one group, as they are kept until they are multiplied.
    type Numbers: Copy + Send + Sync;
    /// The same as they are multiplied.
    type Wide: Copy;
    /// Eight running sums.
    type Sums: Copy;

    /// Computes with all of the processor's instructions that this is the permission for.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Bytes in words, first bytes lowest.
    fn words(self, words: Words) -> Self::Words;

    /// Bits `shift..shift + width` of each of 32 bytes.
    fn bits(self, bytes: &[u8], shift: usize, width: u32) -> Self::Words;

    /// 32 bytes.
    #[inline(always)]
    fn bytes(self, bytes: &[u8]) -> Self::Words {
        self.bits(bytes, 0, 8)
    }

    /// The lower halves of 16 bytes, then the upper.
    fn nibbles(self, bytes: &[u8]) -> Self::Words;

    /// Numbers whose upper bits, from bit `shift` on, are in `high`: they fit into a byte.
    fn join(self, low: Self::Words, high: Self::Words, shift: u32) -> Self::Words;

    /// `words - offset`, as signed numbers.
    fn signed(self, words: Self::Words, offset: u8) -> Self::Numbers;

    /// `table[index]` for each; indices are below 16.
    fn look_up(self, table: &[i8; 16], indices: Self::Words) -> Self::Numbers;

    /// Zeros.
    #[inline(always)]
    fn zero_numbers(self) -> Self::Numbers {
        self.signed(self.words([0; 4]), 0)
    }

    /// Has the processor fetch what lies a while behind `block`, which it would not do over the end of a page: rows that are
    /// longer than one are read a third faster.
    #[inline(always)]
    fn prefetch(self, _block: &[u8]) {}

    /// Sums of nothing.
    fn zeros(self) -> Self::Sums;

    /// Eight numbers.
    fn load(self, numbers: &Lanes) -> Self::Sums;

    /// A number in each lane.
    fn splat(self, number: f32) -> Self::Sums;

    /// The number of one lane in each.
    fn lane(self, numbers: Self::Sums, lane: usize) -> Self::Sums;

    /// The lower four, or the upper, twice each.
    fn twice<const UPPER: bool>(self, numbers: Self::Sums) -> Self::Sums;

    /// Products.
    fn multiply(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;

    /// `numbers`, as `add` and `add_halves` take them.
    fn widen(self, numbers: Self::Numbers) -> Self::Wide;

    /// Adds the products of `w` and `x` to the sums, times `scale`.
    ///
    /// To lane `l` go the products of elements 2l, 2l + 1, 2l + 16 and 2l + 17, added as integers: their sum is below
    /// 2^24, so exact in f32. It is multiplied and added in one fused operation. No `x` is -32768.
    fn add(self, sums: Self::Sums, w: Self::Wide, x: &[i16; GROUP], scale: Self::Sums) -> Self::Sums;

    /// The same where each half has a scale: first elements 2l and 2l + 1 are added to lane l, then 2l + 16 and 2l + 17.
    fn add_halves(
        self,
        sums: Self::Sums,
        w: Self::Wide,
        x: &[i16; GROUP],
        scales: [Self::Sums; 2],
    ) -> Self::Sums;

    /// The sums.
    fn lanes(self, sums: Self::Sums) -> Lanes;
}

/// Any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Vectors for Portable {
    type Words = Words;
    type Numbers = Numbers;
    type Wide = [i16; GROUP];
    type Sums = Lanes;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run()
    }

    #[inline(always)]
    fn words(self, words: Words) -> Words {
        words
    }

    #[inline(always)]
    fn bits(self, bytes: &[u8], shift: usize, width: u32) -> Words {
        block::bits(bytes, shift, width)
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8]) -> Words {
        block::nibbles(bytes)
    }

    #[inline(always)]
    fn join(self, low: Words, high: Words, shift: u32) -> Words {
        block::join(low, high, shift)
    }

    #[inline(always)]
    fn signed(self, words: Words, offset: u8) -> Numbers {
        block::signed(words, offset)
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], indices: Words) -> Numbers {
        self.signed(indices, 0).map(|index| table[usize::from(index.cast_unsigned() & 15)])
    }

    #[inline(always)]
    fn zeros(self) -> Lanes {
        [0.0; LANES]
    }

    #[inline(always)]
    fn load(self, numbers: &Lanes) -> Lanes {
        *numbers
    }

    #[inline(always)]
    fn splat(self, number: f32) -> Lanes {
        [number; LANES]
    }

    #[inline(always)]
    fn lane(self, numbers: Lanes, lane: usize) -> Lanes {
        [numbers[lane]; LANES]
    }

    #[inline(always)]
    fn twice<const UPPER: bool>(self, numbers: Lanes) -> Lanes {
        let first = if UPPER { LANES / 2 } else { 0 };
        std::array::from_fn(|i| numbers[first + i / 2])
    }

    #[inline(always)]
    fn multiply(self, a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn widen(self, numbers: Numbers) -> [i16; GROUP] {
        numbers.map(i16::from)
    }

    #[inline(always)]
    fn add(self, mut sums: Lanes, w: [i16; GROUP], x: &[i16; GROUP], scale: Lanes) -> Lanes {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = ((pair(&w, x, lane) + pair(&w, x, lane + LANES)) as f32).mul_add(scale[lane], *sum);
        }
        sums
    }

    #[inline(always)]
    fn add_halves(self, mut sums: Lanes, w: [i16; GROUP], x: &[i16; GROUP], scales: [Lanes; 2]) -> Lanes {
        for (half, scale) in scales.into_iter().enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = (pair(&w, x, lane + half * LANES) as f32).mul_add(scale[lane], *sum);
            }
        }
        sums
    }

    #[inline(always)]
    fn lanes(self, sums: Lanes) -> Lanes {
        sums
    }
}

/// Elements `2i` and `2i + 1`.
#[inline(always)]
fn pair(w: &[i16; GROUP], x: &[i16; GROUP], i: usize) -> i32 {
    let product = |i: usize| i32::from(w[i]) * i32::from(x[i]);
    product(2 * i) + product(2 * i + 1)
}
