//! How the elements of a tensor are stored.

use std::fmt;

/// Elements that are stored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// How many elements a block holds, neighbours in a row.
    pub elements: usize,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// Declares the enum and its table, so that a type is one line.
macro_rules! tensor_types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $block:expr;)*) => {
        /// A tensor type of ggml. Those whose bytes tokenway reads have a [`Block`]; the rest are known by name.
        /// Source: `enum ggml_type` of `ggml.h`, and the block structs of `ggml-common.h`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[allow(non_camel_case_types)]
        pub enum TensorType {
            $($(#[$doc])* $variant = $id,)*
        }

        impl TensorType {
            /// All of them, by rising number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The type that has this number in a file.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its number in a file.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// Its name, as ggml has it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How its elements are stored; none where that is not read.
            pub const fn block(self) -> Option<Block> {
                match self { $(Self::$variant => $block,)* }
            }
        }
    };
}

const fn block(elements: usize, bytes: usize) -> Option<Block> {
    Some(Block { elements, bytes })
}

tensor_types! {
    /// IEEE 754, 32 bits.
    F32 = 0, "F32", block(1, 4);
    /// IEEE 754, 16 bits.
    F16 = 1, "F16", block(1, 2);
    /// 4 bits and a scale.
    Q4_0 = 2, "Q4_0", block(32, 18);
    /// 4 bits, a scale and a minimum.
    Q4_1 = 3, "Q4_1", block(32, 20);
    /// Was removed.
    Q4_2 = 4, "Q4_2", None;
    /// Was removed.
    Q4_3 = 5, "Q4_3", None;
    /// 5 bits and a scale.
    Q5_0 = 6, "Q5_0", block(32, 22);
    /// 5 bits, a scale and a minimum.
    Q5_1 = 7, "Q5_1", block(32, 24);
    /// 8 bits and a scale.
    Q8_0 = 8, "Q8_0", block(32, 34);
    /// 8 bits of activations; not in files.
    Q8_1 = 9, "Q8_1", None;
    /// 2 bits, of 16 sub-blocks.
    Q2_K = 10, "Q2_K", block(256, 84);
    /// 3 bits, of 16 sub-blocks.
    Q3_K = 11, "Q3_K", block(256, 110);
    /// 4 bits, of 8 sub-blocks.
    Q4_K = 12, "Q4_K", block(256, 144);
    /// 5 bits, of 8 sub-blocks.
    Q5_K = 13, "Q5_K", block(256, 176);
    /// 6 bits, of 16 sub-blocks.
    Q6_K = 14, "Q6_K", block(256, 210);
    /// 8 bits of activations; not in files.
    Q8_K = 15, "Q8_K", None;
    /// 2.06 bits, by a grid.
    IQ2_XXS = 16, "IQ2_XXS", None;
    /// 2.31 bits, by a grid.
    IQ2_XS = 17, "IQ2_XS", None;
    /// 3.06 bits, by a grid.
    IQ3_XXS = 18, "IQ3_XXS", None;
    /// 1.56 bits, by a grid.
    IQ1_S = 19, "IQ1_S", None;
    /// 4 bits by a table, and a scale.
    IQ4_NL = 20, "IQ4_NL", block(32, 18);
    /// 3.44 bits, by a grid.
    IQ3_S = 21, "IQ3_S", None;
    /// 2.5 bits, by a grid.
    IQ2_S = 22, "IQ2_S", None;
    /// 4 bits by a table, of 8 sub-blocks.
    IQ4_XS = 23, "IQ4_XS", block(256, 136);
    /// Signed, 8 bits.
    I8 = 24, "I8", block(1, 1);
    /// Signed, 16 bits.
    I16 = 25, "I16", block(1, 2);
    /// Signed, 32 bits.
    I32 = 26, "I32", block(1, 4);
    /// Signed, 64 bits.
    I64 = 27, "I64", block(1, 8);
    /// IEEE 754, 64 bits.
    F64 = 28, "F64", block(1, 8);
    /// 1.75 bits, by a grid.
    IQ1_M = 29, "IQ1_M", None;
    /// The upper half of an F32.
    BF16 = 30, "BF16", block(1, 2);
    /// Was removed from files.
    Q4_0_4_4 = 31, "Q4_0_4_4", None;
    /// Was removed from files.
    Q4_0_4_8 = 32, "Q4_0_4_8", None;
    /// Was removed from files.
    Q4_0_8_8 = 33, "Q4_0_8_8", None;
    /// Ternary, five to a byte.
    TQ1_0 = 34, "TQ1_0", block(256, 54);
    /// Ternary, four to a byte.
    TQ2_0 = 35, "TQ2_0", block(256, 66);
    /// Was removed from files.
    IQ4_NL_4_4 = 36, "IQ4_NL_4_4", None;
    /// Was removed from files.
    IQ4_NL_4_8 = 37, "IQ4_NL_4_8", None;
    /// Was removed from files.
    IQ4_NL_8_8 = 38, "IQ4_NL_8_8", None;
    /// 4-bit floats and a power of two.
    MXFP4 = 39, "MXFP4", None;
    /// 4-bit floats and 8-bit scales.
    NVFP4 = 40, "NVFP4", None;
    /// 1 bit and a scale.
    Q1_0 = 41, "Q1_0", None;
    /// 2 bits and a scale.
    Q2_0 = 42, "Q2_0", None;
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TensorType {
    /// How many bytes a tensor takes; none where the type's blocks are not known, the rows are not whole blocks, or the number is
    /// beyond what a computer can address. `shape`: outermost first; a tensor of no dimensions is one element.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let block = self.block()?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block.elements) {
            return None;
        }
        let elements = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n))?;
        (elements / block.elements).checked_mul(block.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_number() {
        for tensor_type in TensorType::ALL {
            assert_eq!(TensorType::from_id(tensor_type.id()), Some(*tensor_type));
        }
        assert_eq!(TensorType::from_id(43), None);
        assert_eq!(TensorType::from_id(u32::MAX), None);
    }

    #[test]
    fn bytes_are_those_of_whole_blocks() {
        assert_eq!(TensorType::F32.bytes(&[2, 3]), Some(24));
        assert_eq!(TensorType::Q4_K.bytes(&[3, 512]), Some(3 * 2 * 144));
        assert_eq!(TensorType::Q4_K.bytes(&[256, 3]), None);
        assert_eq!(TensorType::IQ1_M.bytes(&[256, 256]), None);
        assert_eq!(TensorType::I8.bytes(&[usize::MAX, 2]), None);
        assert_eq!(TensorType::F64.bytes(&[usize::MAX / 2]), None);
        assert_eq!(TensorType::F64.bytes(&[]), Some(8));
    }
}
