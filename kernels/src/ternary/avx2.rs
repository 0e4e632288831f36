//! AVX2.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
    _mm256_storeu_si256,
};

use super::matrix::PER_BYTE;
use super::product::{Dots, rest_dots};
use crate::cpu::Kernel;

/// Bytes of a vector.
const STEP: usize = 32;
/// Pairs of products of a lane whose sum fits into 16 bits: each is at most 2 * 3 * 128.
const STEPS_MAX: usize = 42;

/// Only `detect` makes one: so wherever there is one, the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// Nothing on a processor without.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    #[inline(always)]
    fn zeros(self) -> __m256i {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_setzero_si256() }
    }

    /// Bits `2p` and `2p + 1` of each byte: `[p]`.
    #[inline(always)]
    fn parts(self, packed: &[u8; STEP]) -> [__m256i; PER_BYTE] {
        // SAFETY: the processor has AVX2; 32 bytes are read of an array of 32, at any alignment.
        unsafe {
            let packed = _mm256_loadu_si256(packed.as_ptr().cast::<__m256i>());
            let low_bits = _mm256_set1_epi8(3);
            // A shift of 16 bits moves bits of the next byte only to where they are masked out.
            [
                _mm256_and_si256(packed, low_bits),
                _mm256_and_si256(_mm256_srli_epi16::<2>(packed), low_bits),
                _mm256_and_si256(_mm256_srli_epi16::<4>(packed), low_bits),
                _mm256_and_si256(_mm256_srli_epi16::<6>(packed), low_bits),
            ]
        }
    }

    #[inline(always)]
    fn load(self, x: &[i8; STEP]) -> __m256i {
        // SAFETY: the processor has AVX; 32 bytes are read of an array of 32, at any alignment.
        unsafe { _mm256_loadu_si256(x.as_ptr().cast::<__m256i>()) }
    }

    /// `sums`, of 16 bits, with the products of `bits` and `x` added to them, of which it takes two each.
    #[inline(always)]
    fn add(self, sums: __m256i, bits: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the processor has AVX2.
        unsafe { _mm256_add_epi16(sums, _mm256_maddubs_epi16(bits, x)) }
    }

    /// `totals`, of 32 bits, with `sums`, of 16 bits, added to them.
    #[inline(always)]
    fn widen(self, totals: __m256i, sums: __m256i) -> __m256i {
        // SAFETY: the processor has AVX2.
        unsafe { _mm256_add_epi32(totals, _mm256_madd_epi16(sums, _mm256_set1_epi16(1))) }
    }

    /// The sum of eight.
    #[inline(always)]
    fn sum(self, totals: __m256i) -> i32 {
        let mut lanes = [0; 8];
        // SAFETY: the processor has AVX; 32 bytes are written to an array of 32, at any alignment.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), totals) };
        lanes.iter().sum()
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

impl Dots for Avx2 {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { run(kernel) }
    }

    #[inline(always)]
    fn dots<const R: usize>(self, packed: &[u8], x: [&[i8]; R]) -> [[i32; R]; PER_BYTE] {
        let (packed, rest) = packed.as_chunks::<STEP>();
        let x_rest = x.map(|x| &x[packed.len() * STEP..]);
        let x = x.map(|x| &x.as_chunks::<STEP>().0[..packed.len()]);
        let mut totals = [[self.zeros(); R]; PER_BYTE];
        for start in (0..packed.len()).step_by(STEPS_MAX) {
            let end = (start + STEPS_MAX).min(packed.len());
            let mut sums = [[self.zeros(); R]; PER_BYTE];
            for i in start..end {
                let parts = self.parts(&packed[i]);
                for r in 0..R {
                    let x = self.load(&x[r][i]);
                    for p in 0..PER_BYTE {
                        sums[p][r] = self.add(sums[p][r], parts[p], x);
                    }
                }
            }
            for p in 0..PER_BYTE {
                for r in 0..R {
                    totals[p][r] = self.widen(totals[p][r], sums[p][r]);
                }
            }
        }
        let mut found = rest_dots(rest, x_rest);
        for p in 0..PER_BYTE {
            for r in 0..R {
                found[p][r] += self.sum(totals[p][r]);
            }
        }
        found
    }
}
