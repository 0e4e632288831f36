//! TQ1_0 and TQ2_0: 256 weights of -1, 0 and 1 times one scale.
//!
//! Source of layouts and rounding: `gguf/quants.py` of the gguf Python package 0.19, `ggml-common.h`.

use super::block::{BlockFormat, GROUP, Layout, Unpacked, f16_at, put_f16, word_at};
use super::simple::inverse;
use super::vectors::Vectors;

const ELEMENTS: usize = 256;
const GROUPS: usize = ELEMENTS / GROUP;

/// Five digits of base 3 a byte, as the fraction `byte / 256`: times 3, the whole part is a digit and the rest goes on.
///
/// 32 bytes with digits of weights `0..160`, weight `32 n + byte` in digit `n`; likewise 16 bytes for `160..240`, and 4
/// with four digits for the last 16; d: f16.
pub(crate) struct TQ1_0;

/// First byte, first weight, how many bytes and how many digits in each.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4)];
/// The bytes at even places of a word.
const EVEN: u64 = 0x00FF_00FF_00FF_00FF;

impl BlockFormat for TQ1_0 {
    type Shape = Layout<GROUPS, GROUPS, false>;
    const BYTES: usize = 54;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let mut first = Fractions::new([0, 8, 16, 24].map(|at| word_at(block, at)));
        let mut second = Fractions::new([32, 40].map(|at| word_at(block, at)));
        // Bytes 48 to 51.
        let mut third = Fractions::new([word_at(block, 46) >> 16 & u64::from(u32::MAX)]);
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for numbers in &mut numbers[..5] {
            *numbers = vectors.signed(vectors.words(first.next_digits()), 1);
        }
        for numbers in &mut numbers[5..7] {
            let ([a, b], [c, d]) = (second.next_digits(), second.next_digits());
            *numbers = vectors.signed(vectors.words([a, b, c, d]), 1);
        }
        let [a, b] = second.next_digits();
        let mut four_and_four = || third.next_digits()[0] | third.next_digits()[0] << 32;
        numbers[7] = vectors.signed(vectors.words([a, b, four_and_four(), four_and_four()]), 1);
        Unpacked { numbers, scales: [f16_at(block, 52); GROUPS], offsets: [-0.0; GROUPS] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, numbers) = ternary(weights);
        for (byte, weight, bytes, digits) in RUNS {
            for i in 0..bytes {
                let digit = |n| if n < digits { u32::from(numbers[weight + n * bytes + i]) } else { 0 };
                let number = (0..5).fold(0, |number, n| number * 3 + digit(n));
                // Rounded up, so that the digits come out again; at most 242 * 256 / 243, below 256.
                block[byte + i] = (number * 256).div_ceil(243) as u8;
            }
        }
        put_f16(block, 52, scale);
    }
}

/// Bytes that digits are taken of: those at even places and those at odd ones, each in 16 bits, so that all of a word are
/// multiplied at once.
struct Fractions<const WORDS: usize>([[u64; WORDS]; 2]);

impl<const WORDS: usize> Fractions<WORDS> {
    #[inline(always)]
    fn new(bytes: [u64; WORDS]) -> Self {
        Self([bytes.map(|word| word & EVEN), bytes.map(|word| word >> 8 & EVEN)])
    }

    /// The next digit of each byte: 0, 1 or 2.
    #[inline(always)]
    fn next_digits(&mut self) -> [u64; WORDS] {
        let mut digits = [0; WORDS];
        for (shift, fractions) in [0, 8].into_iter().zip(&mut self.0) {
            for (digits, fractions) in digits.iter_mut().zip(fractions) {
                // At most 3 * 255: no carry.
                let tripled = *fractions + (*fractions << 1);
                *digits |= (tripled >> 8 & EVEN) << shift;
                *fractions = tripled & EVEN;
            }
        }
        digits
    }
}

/// Two bits a weight, `d * (q - 1)`: bits `2n` of 32 bytes are group `n` of each half; d: f16.
pub(crate) struct TQ2_0;

impl BlockFormat for TQ2_0 {
    type Shape = Layout<GROUPS, GROUPS, false>;
    const BYTES: usize = 66;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            *numbers = vectors.signed(vectors.bits(&block[j / 4 * GROUP..], j % 4 * 2, 2), 1);
        }
        Unpacked { numbers, scales: [f16_at(block, 64); GROUPS], offsets: [-0.0; GROUPS] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, numbers) = ternary(weights);
        block.fill(0);
        for (i, number) in numbers.iter().enumerate() {
            block[i / 128 * GROUP + i % GROUP] |= number << (i / GROUP % 4 * 2);
        }
        put_f16(block, 64, scale);
    }
}

/// A scale, and the nearest of -1, 0 and 1 as 0, 1 and 2.
#[inline(always)]
fn ternary(weights: &[f32]) -> (f32, [u8; ELEMENTS]) {
    let scale = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    let inverse = inverse(scale);
    let number = |weight: f32| ((weight * inverse).round().clamp(-1.0, 1.0) + 1.0) as u8;
    (scale, std::array::from_fn(|i| number(weights[i])))
}
