//! What a block of weights is made of, whatever its format.

use super::vectors::Vectors;

/// Weights that are unpacked together. A scale belongs to all of them, or to one half.
pub(crate) const GROUP: usize = 32;

/// The integers of one group.
pub(crate) type Numbers = [i8; GROUP];

/// How many groups, scales and offsets a block has: what a product needs to know of a format.
pub(crate) trait Shape: Sized + Send + Sync + 'static {
    /// Weights of a block.
    const ELEMENTS: usize;
    /// Scales of a group: 1, or 2 where each half has one.
    const PER_GROUP: usize;
    /// Whether there are offsets other than zero.
    const OFFSETS: bool;

    /// `[N; ELEMENTS / 32]`
    type Groups<N: Copy + Send + Sync>: AsRef<[N]> + Copy + Send + Sync;
    /// `[f32; ELEMENTS / 32 * PER_GROUP]`
    type Scales: AsRef<[f32]> + Copy;
}

/// The shape of blocks of `GROUPS` groups.
pub(crate) struct Layout<const GROUPS: usize, const SCALES: usize, const OFFSETS: bool>;

impl<const GROUPS: usize, const SCALES: usize, const OFFSETS: bool> Shape
    for Layout<GROUPS, SCALES, OFFSETS>
{
    const ELEMENTS: usize = GROUPS * GROUP;
    const PER_GROUP: usize = SCALES / GROUPS;
    const OFFSETS: bool = OFFSETS;
    type Groups<N: Copy + Send + Sync> = [N; GROUPS];
    type Scales = [f32; SCALES];
}

/// A format: how a block of bytes becomes small integers, scales and offsets, and how weights become a block.
///
/// All functions take slices of exactly `BYTES` bytes or `Shape::ELEMENTS` weights.
pub(crate) trait BlockFormat: Send + Sync + 'static {
    /// What a block is unpacked to.
    type Shape: Shape;
    /// Bytes of a block.
    const BYTES: usize;

    /// Any bytes are a block; some have scales that are not finite.
    fn unpack<V: Vectors>(vectors: V, block: &[u8]) -> Unpacked<Self::Shape, V::Numbers>;

    /// Weights that are not finite make some block or other.
    fn quantise(weights: &[f32], block: &mut [u8]);
}

/// A block: weight `i` is `scale * number + offset` in f32, rounded after each operation.
pub(crate) struct Unpacked<S: Shape, N: Copy + Send + Sync> {
    /// Those of each group, in the order of the weights.
    pub numbers: S::Groups<N>,
    /// In the order of the groups and halves.
    pub scales: S::Scales,
    /// As `scales`. Where the format has none, negative zeros: to add them changes nothing, not even a zero's sign.
    pub offsets: S::Scales,
}

impl<S: Shape> Unpacked<S, Numbers> {
    /// Writes the block's weights.
    #[inline(always)]
    pub fn dequantise(&self, weights: &mut [f32]) {
        let per_scale = GROUP / S::PER_GROUP;
        let parts = weights
            .chunks_exact_mut(per_scale)
            .zip(self.numbers.as_ref().as_flattened().chunks_exact(per_scale));
        for ((weights, numbers), (scale, offset)) in
            parts.zip(self.scales.as_ref().iter().zip(self.offsets.as_ref()))
        {
            for (weight, number) in weights.iter_mut().zip(numbers) {
                *weight = scale * f32::from(*number) + offset;
            }
        }
    }
}

/// The f16 number at byte `at`.
#[inline(always)]
pub(crate) fn f16_at(block: &[u8], at: usize) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let magnitude = (bits & 0x7FFF) << 13;
    // The exponents' biases differ by 112; subnormal numbers become right, too.
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let magnitude = if bits & 0x7C00 == 0x7C00 { magnitude | 0x7F80_0000 } else { finite };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// Writes the f16 number nearest to `number` at byte `at`.
pub(crate) fn put_f16(block: &mut [u8], at: usize, number: f32) {
    block[at..at + 2].copy_from_slice(&half::f16::from_f32(number).to_le_bytes());
}

/// 32 bytes in words, first bytes lowest: what is done with all of them at once the compiler turns into vector instructions.
pub(crate) type Words = [u64; 4];

/// A byte, eight times.
pub(crate) const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The word at byte `at`.
#[inline(always)]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = &bytes[at..at + 8];
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// The lower halves of 16 bytes, then the upper.
#[inline(always)]
pub(crate) fn nibbles(bytes: &[u8]) -> Words {
    let (first, second) = (word_at(bytes, 0), word_at(bytes, 8));
    let lower = |word| word & each(15);
    [lower(first), lower(second), lower(first >> 4), lower(second >> 4)]
}

/// What `nibbles` takes apart.
#[inline(always)]
pub(crate) fn pack_nibbles(nibbles: &[u8; GROUP], bytes: &mut [u8]) {
    for (i, byte) in bytes[..GROUP / 2].iter_mut().enumerate() {
        *byte = nibbles[i] & 15 | nibbles[i + GROUP / 2] << 4;
    }
}

/// A byte whose lowest `width` bits are set.
pub(crate) const fn ones(width: u32) -> u8 {
    u8::MAX >> (8 - width)
}

/// Bits `shift..shift + width` of 32 bytes.
#[inline(always)]
pub(crate) fn bits(bytes: &[u8], shift: usize, width: u32) -> Words {
    let bytes = &bytes[..GROUP];
    [0, 8, 16, 24].map(|at| word_at(bytes, at) >> shift & each(ones(width)))
}

/// Each bit of four bytes.
#[inline(always)]
pub(crate) fn single_bits(bytes: &[u8]) -> Words {
    /// Bit `i` of byte `i`.
    const DIAGONAL: u64 = 0x8040_2010_0804_0201;
    [bytes[0], bytes[1], bytes[2], bytes[3]].map(|byte| {
        let apart = (u64::from(byte) * each(1)) & DIAGONAL;
        // A byte that is not zero gets bit 7, without a carry: it is at most 128.
        (apart + each(127)) >> 7 & each(1)
    })
}

/// Numbers whose upper bits, from bit `shift` on, are in `high`: they fit into a byte.
#[inline(always)]
pub(crate) fn join(low: Words, high: Words, shift: u32) -> Words {
    std::array::from_fn(|i| low[i] | high[i] << shift)
}

/// `bytes - offset`, as signed numbers: without an offset any, else both are below 128.
#[inline(always)]
pub(crate) fn signed(bytes: Words, offset: u8) -> Numbers {
    let mut out = [0; GROUP];
    for (out, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(bytes) {
        // With bit 7 set no byte borrows of the next, and without again it is the difference.
        let difference = if offset == 0 { word } else { ((word | each(128)) - each(offset)) ^ each(128) };
        *out = difference.to_le_bytes().map(u8::cast_signed);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_apart_and_put_together() {
        let bytes: Vec<u8> = (0..32_u8).map(|i| i.wrapping_mul(89) ^ 0x5A).collect();
        let flat = |words: Words| signed(words, 0).map(i8::cast_unsigned);
        for i in 0..GROUP {
            assert_eq!(flat(bits(&bytes, 3, 4))[i], bytes[i] >> 3 & 15);
            assert_eq!(flat(single_bits(&bytes))[i], bytes[i / 8] >> (i % 8) & 1);
            assert_eq!(flat(nibbles(&bytes))[i], if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 });
            let joined = join(bits(&bytes, 0, 4), bits(&bytes, 5, 2), 4);
            assert_eq!(
                signed(joined, 32)[i],
                ((bytes[i] & 15) | (bytes[i] >> 5 & 3) << 4).cast_signed() - 32
            );
        }
        let mut packed = [0; 16];
        pack_nibbles(&flat(nibbles(&bytes)), &mut packed);
        assert_eq!(packed, bytes[..16]);
    }

    #[test]
    fn every_f16_number_is_read_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f16_at(&bits.to_le_bytes(), 0);
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:x}: {found} instead of {expected}"
            );
        }
    }
}
