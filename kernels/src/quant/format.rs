//! The formats by name.

use super::block::{BlockFormat, Shape};
use super::vectors::Portable;
use crate::cpu::{self, Kernel};

/// The list of all formats: each is a [`BlockFormat`] of the same name.
macro_rules! formats {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// How blocks of weights are stored. Variants are called as in GGUF files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Format {
            $(#[doc = concat!("`", stringify!($name), "`")] $name,)*
        }

        impl Format {
            /// Every format.
            pub const ALL: &[Format] = &[$(Format::$name),*];

            /// GGUF's name of the format, such as `Q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Format::$name => stringify!($name),)*
                }
            }

            /// Calls `visitor` with the format's type.
            pub(crate) fn visit<V: Visitor>(self, visitor: V) -> V::Output {
                match self {
                    $(Format::$name => visitor.visit::<super::$module::$name>(),)*
                }
            }
        }
    };
}

formats! {
    simple::Q4_0, simple::Q4_1, simple::Q5_0, simple::Q5_1, simple::Q8_0,
    k::Q2_K, k::Q3_K, k::Q4_K, k::Q5_K, k::Q6_K,
    ternary::TQ1_0, ternary::TQ2_0,
    iq4::IQ4_NL, iq4::IQ4_XS,
}

/// Something to do with any format.
pub(crate) trait Visitor {
    type Output;

    fn visit<F: BlockFormat>(self) -> Self::Output;
}

impl Format {
    /// Weights of a block: 32 or 256.
    pub fn block_elements(self) -> usize {
        self.visit(Sizes).0
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.visit(Sizes).1
    }

    /// Bytes of a row of `n_in` weights; none where they are no whole blocks, or too many.
    pub fn row_bytes(self, n_in: usize) -> Option<usize> {
        let (elements, bytes) = self.visit(Sizes);
        n_in.is_multiple_of(elements).then_some(n_in / elements)?.checked_mul(bytes)
    }

    /// Writes the weights of whole `blocks`, with the bits that the gguf Python package's `dequantize` gives.
    pub fn dequantise(self, blocks: &[u8], weights: &mut [f32]) {
        self.assert_sizes(blocks.len(), weights.len());
        self.visit(Dequantise { blocks, weights });
    }

    /// Writes blocks of the weights.
    ///
    /// Q4_0 to Q8_0 and TQ are the bytes that the gguf Python package's `quantize` gives. The others search for the scales of
    /// the least error, which weighs more where a weight is large. Weights that are not finite spoil their block only.
    pub fn quantise(self, weights: &[f32], blocks: &mut [u8]) {
        self.assert_sizes(blocks.len(), weights.len());
        self.visit(Quantise { weights, blocks });
    }

    fn assert_sizes(self, bytes: usize, weights: usize) {
        assert_eq!(self.row_bytes(weights), Some(bytes), "whole blocks of {}", self.name());
    }
}

struct Sizes;

impl Visitor for Sizes {
    type Output = (usize, usize);

    fn visit<F: BlockFormat>(self) -> (usize, usize) {
        (F::Shape::ELEMENTS, F::BYTES)
    }
}

struct Dequantise<'a> {
    blocks: &'a [u8],
    weights: &'a mut [f32],
}

impl Visitor for Dequantise<'_> {
    type Output = ();

    fn visit<F: BlockFormat>(self) {
        cpu::run(Blocks::<_, F>(self, std::marker::PhantomData));
    }
}

struct Quantise<'a> {
    weights: &'a [f32],
    blocks: &'a mut [u8],
}

impl Visitor for Quantise<'_> {
    type Output = ();

    fn visit<F: BlockFormat>(self) {
        cpu::run(Blocks::<_, F>(self, std::marker::PhantomData));
    }
}

/// Either, of one format.
struct Blocks<T, F>(T, std::marker::PhantomData<F>);

impl<F: BlockFormat> Kernel for Blocks<Dequantise<'_>, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Dequantise { blocks, weights } = self.0;
        for (block, weights) in
            blocks.chunks_exact(F::BYTES).zip(weights.chunks_exact_mut(F::Shape::ELEMENTS))
        {
            F::unpack(Portable, block).dequantise(weights);
        }
    }
}

impl<F: BlockFormat> Kernel for Blocks<Quantise<'_>, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Quantise { weights, blocks } = self.0;
        for (weights, block) in
            weights.chunks_exact(F::Shape::ELEMENTS).zip(blocks.chunks_exact_mut(F::BYTES))
        {
            F::quantise(weights, block);
        }
    }
}
