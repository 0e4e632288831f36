//! Element types that memory holds; all arithmetic is in f32.

use std::fmt::Debug;

use half::bf16;

/// Elements that are packed together.
pub(crate) const COLUMNS: usize = 16;

/// f32 or bf16.
pub trait Element: Copy + Debug + Send + Sync + 'static {
    /// One weight of each of 16 outputs, as [`crate::matrix::Matrix`] keeps them.
    type Columns: Copy + Debug + Send + Sync;

    /// The same number.
    fn to_f32(self) -> f32;

    /// The nearest number, of two the one with an even last bit.
    fn from_f32(number: f32) -> Self;

    /// Packs columns.
    fn pack(columns: [Self; COLUMNS]) -> Self::Columns;

    /// Unpacks what `pack` packed.
    fn unpack(columns: Self::Columns) -> [f32; COLUMNS];
}

/// In order.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub struct F32Columns([f32; COLUMNS]);

/// Columns `i` in the lower and `i + 8` in the upper halves, so that a shift and a mask make f32s of them.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub struct Bf16Columns([u32; COLUMNS / 2]);

impl Element for f32 {
    type Columns = F32Columns;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(number: f32) -> Self {
        number
    }

    fn pack(columns: [f32; COLUMNS]) -> F32Columns {
        F32Columns(columns)
    }

    #[inline(always)]
    fn unpack(columns: F32Columns) -> [f32; COLUMNS] {
        columns.0
    }
}

impl Element for bf16 {
    type Columns = Bf16Columns;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(number: f32) -> Self {
        let bits = number.to_bits();
        // Half of the last kept bit, less one where that bit is 0, carries into it when the rest is more than half.
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        // The payload of a NaN could be rounded away, or carry into the sign.
        let quiet = bits >> 16 | 0x40;
        bf16::from_bits(if number.is_nan() { quiet as u16 } else { rounded as u16 })
    }

    fn pack(columns: [bf16; COLUMNS]) -> Bf16Columns {
        let half = |column: usize| u32::from(columns[column].to_bits());
        Bf16Columns(std::array::from_fn(|i| half(i) | half(i + COLUMNS / 2) << 16))
    }

    #[inline(always)]
    fn unpack(packed: Bf16Columns) -> [f32; COLUMNS] {
        let mut columns = [0.0; COLUMNS];
        for i in 0..COLUMNS / 2 {
            columns[i] = f32::from_bits(packed.0[i] << 16);
            columns[i + COLUMNS / 2] = f32::from_bits(packed.0[i] & 0xFFFF_0000);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        for bits in (0..u32::MAX).step_by(9_973) {
            let number = f32::from_bits(bits);
            let ours: bf16 = Element::from_f32(number);
            assert_eq!(ours.to_bits(), bf16::from_f32(number).to_bits(), "{bits:x}");
            assert_eq!(ours.is_nan(), number.is_nan(), "{bits:x}");
            assert_eq!(Element::to_f32(ours).to_bits(), f32::from(ours).to_bits(), "{bits:x}");
        }
    }
}
