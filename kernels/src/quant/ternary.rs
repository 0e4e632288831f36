//! TQ1_0 and TQ2_0: 256 weights of -1, 0 and 1 times one scale.
//!
//! Source of layouts and rounding: `gguf/quants.py` of the gguf Python package 0.19, `ggml-common.h`.

use super::block::{BlockFormat, GROUP, Layout, Unpacked, bits, f16_at, put_f16, signed};
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
/// Digit `n` is the first after so many multiplications by 3.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

impl BlockFormat for TQ1_0 {
    type Shape = Layout<GROUPS, GROUPS, false>;
    const BYTES: usize = 54;

    #[inline(always)]
    fn unpack<V: Vectors>(_: V, block: &[u8]) -> Unpacked<Self::Shape> {
        let mut numbers = [[0; GROUP]; GROUPS];
        let (first, rest) = numbers.as_flattened_mut().split_at_mut(RUNS[1].1);
        let (second, third) = rest.split_at_mut(RUNS[2].1 - RUNS[1].1);
        unpack_digits::<32>(&block[RUNS[0].0..], first);
        unpack_digits::<16>(&block[RUNS[1].0..], second);
        unpack_digits::<4>(&block[RUNS[2].0..], third);
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

/// All digits of `BYTES` bytes: the first of each, then the second.
#[inline(always)]
fn unpack_digits<const BYTES: usize>(bytes: &[u8], numbers: &mut [i8]) {
    let (bytes, _) = bytes.split_at(BYTES);
    for (numbers, power) in numbers.as_chunks_mut::<BYTES>().0.iter_mut().zip(POWERS) {
        for i in 0..BYTES {
            let fraction = bytes[i].wrapping_mul(power);
            // Its upper byte is 0, 1 or 2.
            numbers[i] = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
        }
    }
}

/// Two bits a weight, `d * (q - 1)`: bits `2n` of 32 bytes are group `n` of each half; d: f16.
pub(crate) struct TQ2_0;

impl BlockFormat for TQ2_0 {
    type Shape = Layout<GROUPS, GROUPS, false>;
    const BYTES: usize = 66;

    #[inline(always)]
    fn unpack<V: Vectors>(_: V, block: &[u8]) -> Unpacked<Self::Shape> {
        let mut numbers = [[0; GROUP]; GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            *numbers = signed(bits(&block[j / 4 * GROUP..], j % 4 * 2, 2), 1);
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
