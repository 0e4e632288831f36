//! Exponentials, by additions and multiplications alone, so that they are the same everywhere.

use crate::cpu::{self, Kernel};
use crate::lanes::{self, LANES};

/// Below it e^x is less than the smallest normal number; taken for 0.
const LOWEST: f32 = -87.0;
/// Above it the exponent would not fit; taken for it.
const HIGHEST: f32 = 88.0;
/// 1.5 × 2²³: adding it leaves the nearest integer in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts: the first has few enough bits that its multiples by an exponent are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients of x² to x⁷ for e^x on ±ln 2 / 2, the highest first. Source: Cephes, `expf.c`.
const COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// e to the power of `x`, to two units in the last place between e^-87 and e^88. NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > HIGHEST { HIGHEST } else { x };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let power = shifted - ROUNDER;
    let rest = power.mul_add(-LN_2_LOW, power.mul_add(-LN_2_HIGH, clamped));
    let mut polynomial = 0.0_f32;
    for coefficient in COEFFICIENTS {
        polynomial = polynomial.mul_add(rest, coefficient);
    }
    let mantissa = polynomial.mul_add(rest * rest, rest) + 1.0;
    // The integer in the low bits of `shifted`, shifted into the place of an exponent; the rest falls out at the top.
    let exponent = (shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits());
    let result = mantissa * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { result }
}

/// The hyperbolic tangent, to a millionth.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The log of the summed exponentials of `numbers`; not finite when one of them is NaN or +∞, −∞ when all are −∞.
pub fn logsumexp(numbers: &[f32]) -> f32 {
    cpu::run(LogSumExp(numbers))
}

struct LogSumExp<'a>(&'a [f32]);

impl Kernel for LogSumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        /// Numbers that are summed in f32 before their sum goes to an f64.
        const PIECE: usize = 64 * LANES;
        let max = max(self.0);
        if max == f32::NEG_INFINITY {
            // A NaN among them comes out as NaN.
            return self.0.iter().fold(max, |sum, number| sum + number);
        }
        let mut sum = 0.0_f64;
        for piece in self.0.chunks(PIECE) {
            let (chunks, rest) = piece.as_chunks::<LANES>();
            let mut partial = [0.0; LANES];
            for chunk in chunks {
                for lane in 0..LANES {
                    partial[lane] += exp(chunk[lane] - max);
                }
            }
            for (lane, number) in partial.iter_mut().zip(rest) {
                *lane += exp(number - max);
            }
            sum += f64::from(lanes::sum(partial));
        }
        (f64::from(max) + sum.ln()) as f32
    }
}

/// The largest of `numbers`, NaN left out; −∞ when there are none.
#[inline(always)]
pub(crate) fn max(numbers: &[f32]) -> f32 {
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &number in largest.iter().chain(rest) {
        max = if number > max { number } else { max };
    }
    max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_two_units_in_the_last_place() {
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        }
        assert_eq!([0.0, -88.0, f32::NEG_INFINITY].map(exp), [1.0, 0.0, 0.0]);
        assert!(exp(f32::INFINITY) > 1e38 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_of_exponentials_are_those_of_f64() {
        let numbers: Vec<f32> = (0..33_333_u16).map(|i| (f32::from(i) * 0.37).sin() * 9.0).collect();
        for length in [1, 5, 8, 513, 33_333] {
            let exact = numbers[..length].iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let found = logsumexp(&numbers[..length]);
            assert!((f64::from(found) - exact).abs() < 1e-6, "{length}: {found} for {exact}");
            assert_eq!(found.to_bits(), LogSumExp(&numbers[..length]).run().to_bits());
        }
        assert_eq!(logsumexp(&[f32::NEG_INFINITY, 1.0]), 1.0);
        assert_eq!(logsumexp(&[f32::NEG_INFINITY; 9]), f32::NEG_INFINITY);
        let not_finite = [[1.0, f32::NAN], [f32::NEG_INFINITY, f32::NAN], [f32::INFINITY, 1.0]];
        assert!(not_finite.iter().all(|numbers| logsumexp(numbers).is_nan()));
    }
}
