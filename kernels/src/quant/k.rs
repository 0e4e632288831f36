//! Q2_K to Q6_K: blocks of 256 weights in which the scales are quantised too.
//!
//! Source of layouts: `gguf/quants.py` of the gguf Python package 0.19, `ggml-common.h`.

use super::block::{BlockFormat, GROUP, Layout, Unpacked, each, f16_at, put_f16, word_at};
use super::k_search::{self, Affine};
use super::vectors::Vectors;

const ELEMENTS: usize = 256;
const GROUPS: usize = ELEMENTS / GROUP;
const HALVES: usize = 2 * GROUPS;

/// 16 bytes of a half's scale (lower four bits) and minimum (upper), 64 bytes of 2-bit numbers; d, dmin: f16.
/// `d * scale * q - dmin * minimum`.
pub(crate) struct Q2_K;

impl BlockFormat for Q2_K {
    type Shape = Layout<GROUPS, HALVES, true>;
    const BYTES: usize = 84;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        let (mut scales, mut offsets) = ([0.0; HALVES], [0.0; HALVES]);
        for (half, packed) in block[..HALVES].iter().enumerate() {
            scales[half] = d * f32::from(packed & 15);
            offsets[half] = -(dmin * f32::from(packed >> 4));
        }
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            *numbers = vectors.signed(twos(vectors, &block[16..80], j), 0);
        }
        Unpacked { numbers, scales, offsets }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let found: Affine<HALVES> = k_search::affine(weights, 3.0, 15.0);
        block.fill(0);
        for (packed, (scale, minimum)) in block.iter_mut().zip(found.scales.iter().zip(&found.minima)) {
            *packed = scale | minimum << 4;
        }
        put_twos(&found.numbers, &mut block[16..80]);
        put_f16(block, 80, found.d);
        put_f16(block, 82, found.dmin);
    }
}

/// A third bit of each number: 32 bytes, group `j` in bit `j`; 64 bytes of the lower two; 12 bytes of 6-bit scales, one for
/// each half; d: f16. `d * (scale - 32) * (q - 4)`.
pub(crate) struct Q3_K;

impl BlockFormat for Q3_K {
    type Shape = Layout<GROUPS, HALVES, false>;
    const BYTES: usize = 110;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let d = f16_at(block, 108);
        let mut scales = [0.0; HALVES];
        for (scales, word) in scales.as_chunks_mut::<8>().0.iter_mut().zip(three_scales(&block[96..108])) {
            for (scale, byte) in scales.iter_mut().zip(word.to_le_bytes()) {
                *scale = d * f32::from(byte.cast_signed() - 32);
            }
        }
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            let (low, high) = (twos(vectors, &block[32..96], j), vectors.bits(block, j, 1));
            *numbers = vectors.signed(vectors.join(low, high, 2), 4);
        }
        Unpacked { numbers, scales, offsets: [-0.0; HALVES] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let found = k_search::symmetric(weights, 4.0, 32.0);
        block.fill(0);
        for (half, scale) in found.scales.into_iter().enumerate() {
            let scale = (scale + 32).cast_unsigned();
            block[96 + half % 8] |= (scale & 15) << (half / 8 * 4);
            block[96 + 8 + half % 4] |= (scale >> 4) << (half / 4 * 2);
        }
        put_twos(&found.numbers.map(|number| number & 3), &mut block[32..96]);
        for (i, number) in found.numbers.iter().enumerate() {
            block[i % GROUP] |= (number >> 2) << (i / GROUP);
        }
        put_f16(block, 108, found.d);
    }
}

/// Scales 0 to 7 and 8 to 15 of Q3_K, a byte each. Their lower four bits are halves of eight bytes, their upper two quarters
/// of four more, of which the lowest bits belong to scales 0 to 3, and so on.
#[inline(always)]
fn three_scales(packed: &[u8]) -> [u64; 2] {
    let low = word_at(packed, 0);
    let high = word_at(packed, 4) >> 32;
    // A quarter for scale 0 and the next for scale 4.
    let high = high | high << 30;
    let join = |low: u64, high: u64| low & each(15) | (high & each(3)) << 4;
    [join(low, high), join(low >> 4, high >> 4)]
}

/// d, dmin: f16; 12 bytes of a group's 6-bit scale and minimum; 128 bytes of 4-bit numbers.
/// `d * scale * q - dmin * minimum`.
pub(crate) struct Q4_K;

impl BlockFormat for Q4_K {
    type Shape = Layout<GROUPS, GROUPS, true>;
    const BYTES: usize = 144;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let (scales, offsets) = scales_and_offsets(block);
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            *numbers = vectors.signed(fours(vectors, &block[16..], j), 0);
        }
        Unpacked { numbers, scales, offsets }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let found: Affine<GROUPS> = k_search::affine(weights, 15.0, 63.0);
        block.fill(0);
        put_scales_and_minima(&found, block);
        put_fours(&found.numbers, &mut block[16..]);
    }
}

/// As Q4_K, with a fifth bit of each number in 32 bytes before the other four, group `j` in bit `j`.
pub(crate) struct Q5_K;

impl BlockFormat for Q5_K {
    type Shape = Layout<GROUPS, GROUPS, true>;
    const BYTES: usize = 176;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let (scales, offsets) = scales_and_offsets(block);
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            let (low, high) = (fours(vectors, &block[48..], j), vectors.bits(&block[16..48], j, 1));
            *numbers = vectors.signed(vectors.join(low, high, 4), 0);
        }
        Unpacked { numbers, scales, offsets }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let found: Affine<GROUPS> = k_search::affine(weights, 31.0, 63.0);
        block.fill(0);
        put_scales_and_minima(&found, block);
        for (i, number) in found.numbers.iter().enumerate() {
            block[16 + i % GROUP] |= (number >> 4) << (i / GROUP);
        }
        put_fours(&found.numbers.map(|number| number & 15), &mut block[48..]);
    }
}

/// 128 bytes of the lower four bits, 64 of the upper two, 16 signed bytes of the halves' scales; d: f16.
/// `d * scale * (q - 32)`.
pub(crate) struct Q6_K;

impl BlockFormat for Q6_K {
    type Shape = Layout<GROUPS, HALVES, false>;
    const BYTES: usize = 210;

    #[inline(always)]
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers> {
        let d = f16_at(block, 208);
        let mut scales = [0.0; HALVES];
        for (scale, byte) in scales.iter_mut().zip(&block[192..208]) {
            *scale = d * f32::from(byte.cast_signed());
        }
        let mut numbers = [vectors.zero_numbers(); GROUPS];
        for (j, numbers) in numbers.iter_mut().enumerate() {
            let (low, high) =
                (vectors.bits(&block[six_low(j)..], six_shift(j), 4), twos(vectors, &block[128..192], j));
            *numbers = vectors.signed(vectors.join(low, high, 4), 32);
        }
        Unpacked { numbers, scales, offsets: [-0.0; HALVES] }
    }

    #[inline(always)]
    fn quantise(weights: &[f32], block: &mut [u8]) {
        let found = k_search::symmetric(weights, 32.0, 128.0);
        block.fill(0);
        for (i, number) in found.numbers.iter().enumerate() {
            block[six_low(i / GROUP) + i % GROUP] |= (number & 15) << six_shift(i / GROUP);
        }
        put_twos(&found.numbers.map(|number| number >> 4), &mut block[128..192]);
        for (byte, scale) in block[192..208].iter_mut().zip(found.scales) {
            *byte = scale.cast_unsigned();
        }
        put_f16(block, 208, found.d);
    }
}

/// The first byte with the lower bits of group `j` of Q6_K: groups 0 and 2, 1 and 3, and so on, share bytes.
#[inline(always)]
fn six_low(j: usize) -> usize {
    j / 4 * 64 + j % 2 * GROUP
}

/// And the bits in them.
#[inline(always)]
fn six_shift(j: usize) -> usize {
    j / 2 % 2 * 4
}

/// Numbers of two bits: four groups in 32 bytes.
#[inline(always)]
fn twos<V: Vectors>(vectors: V, bytes: &[u8], j: usize) -> V::Words {
    vectors.bits(&bytes[j / 4 * GROUP..], j % 4 * 2, 2)
}

fn put_twos(numbers: &[u8; ELEMENTS], bytes: &mut [u8]) {
    for (i, number) in numbers.iter().enumerate() {
        bytes[i / 128 * GROUP + i % GROUP] |= number << (i / GROUP % 4 * 2);
    }
}

/// Numbers of four bits: two groups in 32 bytes.
#[inline(always)]
fn fours<V: Vectors>(vectors: V, bytes: &[u8], j: usize) -> V::Words {
    vectors.bits(&bytes[j / 2 * GROUP..], j % 2 * 4, 4)
}

fn put_fours(numbers: &[u8; ELEMENTS], bytes: &mut [u8]) {
    for (i, number) in numbers.iter().enumerate() {
        bytes[i / 64 * GROUP + i % GROUP] |= number << (i / GROUP % 2 * 4);
    }
}

/// What Q4_K and Q5_K begin with: d, dmin, and 12 bytes with eight scales and eight minima. Bytes 0 to 3 are the first four
/// scales, 4 to 7 the first four minima; the others' lower four bits are in bytes 8 to 11 and their upper two in the upper
/// two of the first eight.
#[inline(always)]
fn scales_and_offsets(block: &[u8]) -> ([f32; GROUPS], [f32; GROUPS]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (first, second, low) = (word(4), word(8), word(12));
    let whole = |word: u32| word & 0x3F3F_3F3F;
    let upper = |word: u32| word >> 2 & 0x3030_3030;
    let lower = |word: u32| word & 0x0F0F_0F0F;
    let bytes = |first: u32, second: u32| (u64::from(first) | u64::from(second) << 32).to_le_bytes();
    let six_bits = bytes(whole(first), lower(low) | upper(first));
    let minima = bytes(whole(second), lower(low >> 4) | upper(second));
    let (mut scales, mut offsets) = ([0.0; GROUPS], [0.0; GROUPS]);
    for j in 0..GROUPS {
        scales[j] = d * f32::from(six_bits[j]);
        offsets[j] = -(dmin * f32::from(minima[j]));
    }
    (scales, offsets)
}

/// Writes what `scales_and_offsets` reads, onto zeros.
fn put_scales_and_minima(found: &Affine<GROUPS>, block: &mut [u8]) {
    put_f16(block, 0, found.d);
    put_f16(block, 2, found.dmin);
    let packed = &mut block[4..16];
    for j in 0..GROUPS {
        let (scale, minimum) = (found.scales[j], found.minima[j]);
        if j < 4 {
            packed[j] |= scale;
            packed[j + 4] |= minimum;
        } else {
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= minimum >> 4 << 6;
            packed[j + 4] |= scale & 15 | (minimum & 15) << 4;
        }
    }
}
