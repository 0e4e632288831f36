//! AVX2 and FMA.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm_shuffle_epi8, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::block::{GROUP, Numbers, Words};
use super::vectors::Vectors;
use crate::cpu::Kernel;
use crate::lanes::{LANES, Lanes};

/// Only `detect` makes one: so wherever there is one, the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Nothing on a processor without.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// Sums of the products of pairs.
#[inline(always)]
fn pairs(_: Avx2, w: __m256i, x: &[i16; GROUP], half: usize) -> __m256i {
    let x = &x.as_chunks::<16>().0[half];
    // SAFETY: the processor has AVX2; 32 bytes are read of an array of 32, at any alignment.
    unsafe { _mm256_madd_epi16(w, _mm256_loadu_si256(x.as_ptr().cast::<__m256i>())) }
}

/// Adds `numbers * scale` to `sums`.
#[inline(always)]
fn accumulate(_: Avx2, sums: __m256, numbers: __m256i, scale: f32) -> __m256 {
    // SAFETY: the processor has AVX2 and FMA.
    unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(numbers), _mm256_set1_ps(scale), sums) }
}

impl Vectors for Avx2 {
    type Wide = [__m256i; 2];
    type Sums = __m256;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { run(kernel) }
    }

    #[inline(always)]
    fn zeros(self) -> __m256 {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn widen(self, numbers: &Numbers) -> [__m256i; 2] {
        let [low, high] = [0, 1].map(|half| numbers.as_chunks::<16>().0[half].as_ptr().cast::<__m128i>());
        // SAFETY: the processor has AVX2; 16 bytes are read of each array of 16, at any alignment.
        unsafe { [_mm256_cvtepi8_epi16(_mm_loadu_si128(low)), _mm256_cvtepi8_epi16(_mm_loadu_si128(high))] }
    }

    #[inline(always)]
    fn add(self, sums: __m256, w: [__m256i; 2], x: &[i16; GROUP], scale: f32) -> __m256 {
        // SAFETY: the processor has AVX2.
        let both = unsafe { _mm256_add_epi32(pairs(self, w[0], x, 0), pairs(self, w[1], x, 1)) };
        accumulate(self, sums, both, scale)
    }

    #[inline(always)]
    fn add_halves(self, sums: __m256, w: [__m256i; 2], x: &[i16; GROUP], scales: [f32; 2]) -> __m256 {
        let sums = accumulate(self, sums, pairs(self, w[0], x, 0), scales[0]);
        accumulate(self, sums, pairs(self, w[1], x, 1), scales[1])
    }

    #[inline(always)]
    fn lanes(self, sums: __m256) -> Lanes {
        let mut lanes = [0.0; LANES];
        // SAFETY: the processor has AVX; 32 bytes are written to an array of 32, at any alignment.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
        lanes
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], indices: Words) -> Numbers {
        let mut numbers = [0; GROUP];
        // By halves, as what makes `indices` computes them: a load of what two stores wrote would wait for both.
        for (numbers, indices) in numbers.as_chunks_mut::<16>().0.iter_mut().zip(indices.as_chunks::<2>().0) {
            // SAFETY: the processor has SSSE3; 16 bytes are read and written of arrays of 16, at any alignment.
            unsafe {
                let table = _mm_loadu_si128(table.as_ptr().cast::<__m128i>());
                let indices = _mm_loadu_si128(indices.as_ptr().cast::<__m128i>());
                _mm_storeu_si128(numbers.as_mut_ptr().cast::<__m128i>(), _mm_shuffle_epi8(table, indices));
            }
        }
        numbers
    }
}
