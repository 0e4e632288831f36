//! AVX2 and FMA.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_prefetch, _mm_srli_epi64,
    _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_permutevar8x32_ps,
    _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_shuffle_epi8, _mm256_sll_epi64, _mm256_srl_epi64, _mm256_storeu_ps,
    _mm256_sub_epi8,
};

use super::block::{GROUP, Words, ones};
use super::vectors::Vectors;
use crate::cpu::Kernel;
use crate::lanes::{LANES, Lanes};

/// Half a page: far enough for memory to answer in time, near enough to be there still.
const PREFETCHED_AHEAD: usize = 2048;
const CACHE_LINE: usize = 64;

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
fn accumulate(_: Avx2, sums: __m256, numbers: __m256i, scale: __m256) -> __m256 {
    // SAFETY: the processor has AVX2 and FMA.
    unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(numbers), scale, sums) }
}

impl Vectors for Avx2 {
    type Words = __m256i;
    type Numbers = __m256i;
    type Wide = [__m256i; 2];
    type Sums = __m256;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { run(kernel) }
    }

    #[inline(always)]
    fn words(self, words: Words) -> __m256i {
        // SAFETY: the processor has AVX; 32 bytes are read of an array of 32, at any alignment.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast::<__m256i>()) }
    }

    #[inline(always)]
    fn bits(self, bytes: &[u8], shift: usize, width: u32) -> __m256i {
        let (bytes, mask) = (&bytes[..GROUP], ones(width).cast_signed());
        // SAFETY: the processor has AVX2; 32 bytes are read of a slice of 32, at any alignment.
        unsafe {
            let words = _mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>());
            let shifted = _mm256_srl_epi64(words, _mm_cvtsi32_si128(shift as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
        }
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..GROUP / 2];
        // SAFETY: the processor has AVX2; 16 bytes are read of a slice of 16, at any alignment.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>());
            let both = _mm256_set_m128i(_mm_srli_epi64::<4>(bytes), bytes);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        }
    }

    #[inline(always)]
    fn join(self, low: __m256i, high: __m256i, shift: u32) -> __m256i {
        // SAFETY: the processor has AVX2.
        unsafe { _mm256_or_si256(low, _mm256_sll_epi64(high, _mm_cvtsi32_si128(shift as i32))) }
    }

    #[inline(always)]
    fn signed(self, words: __m256i, offset: u8) -> __m256i {
        // SAFETY: the processor has AVX2.
        unsafe { _mm256_sub_epi8(words, _mm256_set1_epi8(offset.cast_signed())) }
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], indices: __m256i) -> __m256i {
        // SAFETY: the processor has AVX2; 16 bytes are read of an array of 16, at any alignment.
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast::<__m128i>());
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), indices)
        }
    }

    #[inline(always)]
    fn prefetch(self, block: &[u8]) {
        let ahead = block.as_ptr().wrapping_add(PREFETCHED_AHEAD);
        for line in (0..block.len()).step_by(CACHE_LINE) {
            // SAFETY: the processor has SSE; a prefetch is a hint, which reads nothing, at any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast()) };
        }
    }

    #[inline(always)]
    fn zeros(self) -> __m256 {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn load(self, numbers: &Lanes) -> __m256 {
        // SAFETY: the processor has AVX; 32 bytes are read of an array of 32, at any alignment.
        unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
    }

    #[inline(always)]
    fn splat(self, number: f32) -> __m256 {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_set1_ps(number) }
    }

    #[inline(always)]
    fn lane(self, numbers: __m256, lane: usize) -> __m256 {
        // SAFETY: the processor has AVX2.
        unsafe { _mm256_permutevar8x32_ps(numbers, _mm256_set1_epi32(lane as i32)) }
    }

    #[inline(always)]
    fn twice<const UPPER: bool>(self, numbers: __m256) -> __m256 {
        // SAFETY: the processor has AVX2.
        unsafe {
            let lanes = match UPPER {
                false => _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3),
                true => _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7),
            };
            _mm256_permutevar8x32_ps(numbers, lanes)
        }
    }

    #[inline(always)]
    fn multiply(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn widen(self, numbers: __m256i) -> [__m256i; 2] {
        // SAFETY: the processor has AVX2.
        unsafe {
            let halves = [_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers)];
            [_mm256_cvtepi8_epi16(halves[0]), _mm256_cvtepi8_epi16(halves[1])]
        }
    }

    #[inline(always)]
    fn add(self, sums: __m256, w: [__m256i; 2], x: &[i16; GROUP], scale: __m256) -> __m256 {
        // SAFETY: the processor has AVX2.
        let both = unsafe { _mm256_add_epi32(pairs(self, w[0], x, 0), pairs(self, w[1], x, 1)) };
        accumulate(self, sums, both, scale)
    }

    #[inline(always)]
    fn add_halves(self, sums: __m256, w: [__m256i; 2], x: &[i16; GROUP], scales: [__m256; 2]) -> __m256 {
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
}
