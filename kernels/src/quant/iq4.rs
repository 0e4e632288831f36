//! IQ4_NL and IQ4_XS: 4-bit indices of 16 levels that are closer together around zero.
//!
//! Source of layouts and levels: `gguf/quants.py` of the gguf Python package 0.19, `ggml-common.h`.

use super::block::{BlockFormat, GROUP, Layout, Unpacked, f16_at, pack_nibbles, put_f16};
use super::k_search;
use super::simple::inverse;
use super::vectors::Vectors;

/// What the indices stand for, ascending.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What lies between two levels.
const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < middles.len() {
        middles[i] = (LEVELS[i] as f32 + LEVELS[i + 1] as f32) / 2.0;
        i += 1;
    }
    middles
};

/// How far guesses of a scale are apart: levels are about ten apart.
const STEP: f32 = 1.0;

const ELEMENTS: usize = 256;
const GROUPS: usize = ELEMENTS / GROUP;

/// d: f16, then 32 indices: `d * LEVELS[q]`.
pub(crate) struct IQ4_NL;

impl BlockFormat for IQ4_NL {
    type Shape = Layout<1, 1, false>;
    const BYTES: usize = 18;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let numbers = [vectors.look_up(&LEVELS, vectors.nibbles(&block[2..]))];
        Unpacked { numbers, scales: [f16_at(block, 0)], offsets: [-0.0] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        put_f16(block, 0, wanted_scale(weights));
        pack_nibbles(&nearest_levels(weights, f16_at(block, 0)), &mut block[2..]);
    }
}

/// d: f16; the upper two bits of eight 6-bit scales: u16; their lower four: 4 bytes; indices as in IQ4_NL.
/// `d * (scale - 32) * LEVELS[q]`.
pub(crate) struct IQ4_XS;

impl BlockFormat for IQ4_XS {
    type Shape = Layout<GROUPS, GROUPS, false>;
    const BYTES: usize = 136;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let d = f16_at(block, 0);
        let upper = u16::from_le_bytes([block[2], block[3]]);
        let mut scales = [0.0; GROUPS];
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for j in 0..GROUPS {
            let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
            let high = (upper >> (2 * j) & 3) as u8;
            scales[j] = d * f32::from((low | high << 4).cast_signed() - 32);
            numbers[j] = vectors.look_up(&LEVELS, vectors.nibbles(&block[8 + j * GROUP / 2..]));
        }
        Unpacked { numbers, scales, offsets: [-0.0; GROUPS] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let (groups, _) = weights.as_chunks::<GROUP>();
        let mut wanted = [0.0; GROUPS];
        for (wanted, group) in wanted.iter_mut().zip(groups) {
            *wanted = wanted_scale(group);
        }
        block.fill(0);
        let (d, scales) = k_search::quantise_scales(&wanted, 32.0);
        put_f16(block, 0, d);
        let d = f16_at(block, 0);
        let mut upper = 0_u16;
        for (j, (scale, group)) in scales.into_iter().zip(groups).enumerate() {
            let numbers = nearest_levels(group, d * f32::from(scale));
            pack_nibbles(&numbers, &mut block[8 + j * GROUP / 2..]);
            let scale = (scale + 32).cast_unsigned();
            block[4 + j / 2] |= (scale & 15) << (j % 2 * 4);
            upper |= u16::from(scale >> 4) << (2 * j);
        }
        block[2..4].copy_from_slice(&upper.to_le_bytes());
    }
}

/// The scale of the least error.
#[inline(always)]
fn wanted_scale(x: &[f32]) -> f32 {
    let level = |x: f32, inverse: f32| f32::from(LEVELS[usize::from(nearest_level(x * inverse))]);
    k_search::search_scale(x, -f32::from(LEVELS[0]), STEP, level)
}

#[inline(always)]
fn nearest_levels(x: &[f32], scale: f32) -> [u8; GROUP] {
    let inverse = inverse(scale);
    std::array::from_fn(|i| nearest_level(x[i] * inverse))
}

/// By halving.
#[inline(always)]
fn nearest_level(x: f32) -> u8 {
    [8, 4, 2, 1].into_iter().fold(0, |level, step| {
        let above = x > MIDDLES[usize::from(level + step - 1)];
        level + step * u8::from(above)
    })
}
