//! The same source compiled for more than one kind of processor, chosen at run time.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A computation to be compiled for each kind of processor.
///
/// `run`, and what it calls in its loops, must be `#[inline(always)]`, and loops must be written as such: only what is
/// inlined is compiled for the better processor, and a closure given to `fold` may not be. Rust neither reorders nor fuses floating-point operations, so the result has the same bits on each.
pub trait Kernel {
    /// What comes out.
    type Output;

    /// Computes.
    fn run(self) -> Self::Output;
}

/// Runs `kernel` with the vector instructions of this processor.
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if has_avx2_and_fma() {
        // SAFETY: the processor has the features that the function is compiled for.
        return unsafe { run_avx2(kernel) };
    }
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2_and_fma() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Products<'a>(&'a [f32], &'a [f32]);

    impl Kernel for Products<'_> {
        type Output = u32;

        #[inline(always)]
        fn run(self) -> u32 {
            crate::lanes::dot(self.0, self.1).to_bits()
        }
    }

    #[test]
    fn vector_instructions_do_not_change_a_bit() {
        let numbers: Vec<f32> = (1..500_u16).map(|i| (f32::from(i) * 0.7).sin() / f32::from(i)).collect();
        for length in [0, 1, 7, 8, 9, 100, 250] {
            let (a, b) = (&numbers[..length], &numbers[249..249 + length]);
            assert_eq!(run(Products(a, b)), Products(a, b).run(), "{length}");
        }
    }
}
