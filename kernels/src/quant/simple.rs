//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: 32 weights with one scale, and for `_1` one offset.
//!
//! Source of layouts and rounding: `gguf/quants.py` of the gguf Python package 0.19, `ggml-common.h`.

use super::block::{BlockFormat, GROUP, Layout, Unpacked, f16_at, pack_nibbles, put_f16, single_bits};
use super::vectors::Vectors;

/// No offset: see [`Unpacked::offsets`].
const NONE: [f32; 1] = [-0.0];

#[inline(always)]
fn unpacked<const OFFSETS: bool, N: Copy + Send + Sync>(
    numbers: N,
    scale: f32,
    offsets: [f32; 1],
) -> Unpacked<Layout<1, 1, OFFSETS>, N> {
    Unpacked { numbers: [numbers], scales: [scale], offsets }
}

/// d: f16, then 32 halves of bytes: `d * (q - 8)`.
pub(crate) struct Q4_0;

impl BlockFormat for Q4_0 {
    type Shape = Layout<1, 1, false>;
    const BYTES: usize = 18;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        unpacked(vectors.signed(vectors.nibbles(&block[2..]), 8), f16_at(block, 0), NONE)
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, numbers) = symmetric(weights, 16.0);
        put_f16(block, 0, scale);
        pack_nibbles(&numbers, &mut block[2..]);
    }
}

/// d: f16, m: f16, then 32 halves of bytes: `d * q + m`.
pub(crate) struct Q4_1;

impl BlockFormat for Q4_1 {
    type Shape = Layout<1, 1, true>;
    const BYTES: usize = 20;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        unpacked(vectors.signed(vectors.nibbles(&block[4..]), 0), f16_at(block, 0), [f16_at(block, 2)])
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, offset, numbers) = affine(weights, 15.0);
        put_f16(block, 0, scale);
        put_f16(block, 2, offset);
        pack_nibbles(&numbers, &mut block[4..]);
    }
}

/// d: f16, a fifth bit of each: u32, then the lower four bits: `d * (q - 16)`.
pub(crate) struct Q5_0;

impl BlockFormat for Q5_0 {
    type Shape = Layout<1, 1, false>;
    const BYTES: usize = 22;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        unpacked(vectors.signed(fives(vectors, &block[2..]), 16), f16_at(block, 0), NONE)
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, numbers) = symmetric(weights, 32.0);
        put_f16(block, 0, scale);
        pack_fives(&numbers, &mut block[2..]);
    }
}

/// d: f16, m: f16, a fifth bit of each: u32, then the lower four bits: `d * q + m`.
pub(crate) struct Q5_1;

impl BlockFormat for Q5_1 {
    type Shape = Layout<1, 1, true>;
    const BYTES: usize = 24;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        unpacked(vectors.signed(fives(vectors, &block[4..]), 0), f16_at(block, 0), [f16_at(block, 2)])
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (scale, offset, numbers) = affine(weights, 31.0);
        put_f16(block, 0, scale);
        put_f16(block, 2, offset);
        pack_fives(&numbers, &mut block[4..]);
    }
}

/// d: f16, then 32 signed bytes: `d * q`.
pub(crate) struct Q8_0;

impl BlockFormat for Q8_0 {
    type Shape = Layout<1, 1, false>;
    const BYTES: usize = 34;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        unpacked(vectors.signed(vectors.bytes(&block[2..]), 0), f16_at(block, 0), NONE)
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        let scale = largest / 127.0;
        put_f16(block, 0, scale);
        let inverse = inverse(scale);
        for (byte, weight) in block[2..].iter_mut().zip(weights) {
            *byte = ((weight * inverse).round() as i8).cast_unsigned();
        }
    }
}

/// Numbers of five bits: 32 upper bits, then the lower four bits.
#[inline(always)]
fn fives<V: Vectors>(vectors: V, bytes: &[u8]) -> V::Words {
    vectors.join(vectors.nibbles(&bytes[4..]), vectors.words(single_bits(bytes)), 4)
}

#[inline(always)]
fn pack_fives(numbers: &[u8; GROUP], bytes: &mut [u8]) {
    bytes[..4].fill(0);
    for (i, number) in numbers.iter().enumerate() {
        bytes[i / 8] |= (number >> 4) << (i % 8);
    }
    pack_nibbles(numbers, &mut bytes[4..]);
}

/// `1 / scale`, or 0 for a scale of 0.
#[inline(always)]
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// A scale with which the weight that is farthest from 0 becomes 0 of `levels`, and 0 becomes their half.
#[inline(always)]
fn symmetric(weights: &[f32], levels: f32) -> (f32, [u8; GROUP]) {
    let farthest =
        weights.iter().fold(weights[0], |far, weight| if weight.abs() > far.abs() { *weight } else { far });
    let scale = farthest / (levels / -2.0);
    let inverse = inverse(scale);
    let number = |weight: f32| (weight * inverse + (levels / 2.0 + 0.5)).clamp(0.0, levels - 1.0) as u8;
    (scale, std::array::from_fn(|i| number(weights[i])))
}

/// A scale and an offset with which the weights span `0..=largest`.
#[inline(always)]
fn affine(weights: &[f32], largest: f32) -> (f32, f32, [u8; GROUP]) {
    let (min, max) = weights
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), weight| (weight.min(min), weight.max(max)));
    let scale = (max - min) / largest;
    let inverse = inverse(scale);
    let number = |weight: f32| ((weight - min) * inverse + 0.5).clamp(0.0, largest) as u8;
    (scale, min, std::array::from_fn(|i| number(weights[i])))
}
