//! The search for scales and offsets with which little of the weights is lost.
//!
//! As in ggml (`ggml-quants.c`), many first guesses are each made better by one step of weighted least squares; a larger
//! weight counts more, since more hangs on it. The scales are then rounded, and the numbers chosen for the rounded scales.

use super::simple::inverse;
use crate::lanes::{LANES, Lanes, sum};

const ELEMENTS: usize = 256;
/// Guesses to each side of the first one.
const GUESSES: u8 = 15;
/// How far they are apart, in evenly spaced levels.
const STEP: f32 = 0.1;

/// A block of a format with scales and minima, one for each of `N` parts.
pub(crate) struct Affine<const N: usize> {
    /// As f16 holds them.
    pub d: f32,
    pub dmin: f32,
    pub scales: [u8; N],
    pub minima: [u8; N],
    pub numbers: [u8; ELEMENTS],
}

/// Numbers from 0 to `largest`, scales and minima from 0 to `largest_scale`: `d * scale * number - dmin * minimum`.
#[inline(always)]
pub(crate) fn affine<const N: usize>(weights: &[f32], largest: f32, largest_scale: f32) -> Affine<N> {
    let length = ELEMENTS / N;
    let (mut scales, mut minima) = ([0.0; N], [0.0; N]);
    for (part, weights) in weights.chunks_exact(length).enumerate() {
        (scales[part], minima[part]) = affine_part(weights, largest);
    }
    let (d, scales) = round_scales(&scales, largest_scale);
    let (dmin, minima) = round_scales(&minima, largest_scale);
    let mut numbers = [0; ELEMENTS];
    for (i, (number, weight)) in numbers.iter_mut().zip(weights).enumerate() {
        let (scale, minimum) = (d * f32::from(scales[i / length]), dmin * f32::from(minima[i / length]));
        *number = nearest(((weight + minimum) * inverse(scale)).clamp(0.0, largest)) as u8;
    }
    Affine { d, dmin, scales, minima, numbers }
}

/// Numbers that are not negative, in steps of an f16 number.
#[inline(always)]
fn round_scales<const N: usize>(scales: &[f32; N], largest: f32) -> (f32, [u8; N]) {
    let step = as_f16(scales.iter().fold(0.0_f32, |max, scale| max.max(*scale)) / largest);
    let inverse = inverse(step);
    (step, scales.map(|scale| nearest((scale * inverse).clamp(0.0, largest)) as u8))
}

/// A scale and a minimum, both not negative.
#[inline(always)]
fn affine_part(x: &[f32], largest: f32) -> (f32, f32) {
    let (min, max) = x.iter().fold((0.0_f32, f32::NEG_INFINITY), |(min, max), x| (x.min(min), x.max(max)));
    let range = max - min;
    if !(range > 0.0 && range.is_finite()) {
        return (0.0, -min);
    }
    let mut best = (range / largest, -min);
    let mut best_gain = f32::NEG_INFINITY;
    let rms = root_mean_square(x);
    for guess in 0..=2 * GUESSES {
        let inverse = (largest + (f32::from(guess) - f32::from(GUESSES)) * STEP) / range;
        let sums = affine_sums(x, rms, min, inverse, largest);
        let (scale, offset) = sums.solve();
        let gain = sums.gain(scale, offset);
        if scale > 0.0 && gain > best_gain {
            (best, best_gain) = ((scale, -offset), gain);
        }
    }
    best
}

/// Weighted sums of products, where `l` is the number that stands for `x`.
struct AffineSums {
    one: f32,
    x: f32,
    l: f32,
    xl: f32,
    ll: f32,
}

impl AffineSums {
    /// The scale and the offset of the least error; the offset is not positive.
    #[inline(always)]
    fn solve(&self) -> (f32, f32) {
        let determinant = self.one * self.ll - self.l * self.l;
        let offset = (self.ll * self.x - self.l * self.xl) / determinant;
        if determinant > 0.0 && offset <= 0.0 {
            ((self.one * self.xl - self.x * self.l) / determinant, offset)
        } else {
            (self.xl * inverse(self.ll), 0.0)
        }
    }

    /// How much less the error is than that of zeros.
    #[inline(always)]
    fn gain(&self, scale: f32, offset: f32) -> f32 {
        scale * self.xl + offset * self.x
    }
}

#[inline(always)]
fn affine_sums(x: &[f32], rms: f32, min: f32, inverse: f32, largest: f32) -> AffineSums {
    let mut sums: [Lanes; 5] = [[0.0; LANES]; 5];
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let x = x[lane];
            let weight = rms + x.abs();
            let l = nearest(((x - min) * inverse).clamp(0.0, largest));
            sums[0][lane] += weight;
            sums[1][lane] += weight * x;
            sums[2][lane] += weight * l;
            sums[3][lane] += weight * x * l;
            sums[4][lane] += weight * l * l;
        }
    }
    let [one, x, l, xl, ll] = sums.map(sum);
    AffineSums { one, x, l, xl, ll }
}

/// A block of a format with one scale for each 16 weights and no offsets.
pub(crate) struct Symmetric {
    /// As f16 holds it.
    pub d: f32,
    pub scales: [i8; ELEMENTS / 16],
    /// From 0: `d * scale * (number - levels)`.
    pub numbers: [u8; ELEMENTS],
}

/// Numbers from `-levels` to `levels - 1`, scales likewise.
#[inline(always)]
pub(crate) fn symmetric(weights: &[f32], levels: f32, scale_levels: f32) -> Symmetric {
    let (parts, _) = weights.as_chunks::<16>();
    let mut wanted = [0.0; ELEMENTS / 16];
    for (wanted, x) in wanted.iter_mut().zip(parts) {
        *wanted =
            search_scale(x, levels, STEP, |x, inverse| nearest((x * inverse).clamp(-levels, levels - 1.0)));
    }
    let (d, scales) = quantise_scales(&wanted, scale_levels);
    let mut numbers = [0; ELEMENTS];
    for (i, (number, weight)) in numbers.iter_mut().zip(weights).enumerate() {
        let inverse = inverse(d * f32::from(scales[i / 16]));
        *number = (nearest((weight * inverse).clamp(-levels, levels - 1.0)) + levels) as u8;
    }
    Symmetric { d, scales, numbers }
}

/// A step, as f16 holds it, and the nearest multiples from `-levels` to `levels - 1`: the farthest becomes `-levels`.
#[inline(always)]
pub(crate) fn quantise_scales<const N: usize>(scales: &[f32; N], levels: f32) -> (f32, [i8; N]) {
    let step = as_f16(-farthest(scales) / levels);
    let inverse = inverse(step);
    (step, scales.map(|scale| nearest((scale * inverse).clamp(-levels, levels - 1.0)) as i8))
}

/// The scale of the least error for numbers that `number` chooses of `x` and the scale's inverse. Guesses make the farthest
/// `-levels`, or less or more by steps.
#[inline(always)]
pub(crate) fn search_scale(x: &[f32], levels: f32, step: f32, number: impl Fn(f32, f32) -> f32) -> f32 {
    let farthest = farthest(x);
    if !(farthest.abs() > 1e-30 && farthest.is_finite()) {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    let rms = root_mean_square(x);
    for guess in 0..=2 * GUESSES {
        let inverse = -(levels + (f32::from(guess) - f32::from(GUESSES)) * step) / farthest;
        let (mut xl, mut ll) = ([0.0; LANES], [0.0; LANES]);
        for x in x.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let x = x[lane];
                let weight = rms + x.abs();
                let l = number(x, inverse);
                xl[lane] += weight * x * l;
                ll[lane] += weight * l * l;
            }
        }
        let (xl, ll) = (sum(xl), sum(ll));
        if xl * xl > best.1 * ll {
            best = (xl / ll, xl * xl / ll);
        }
    }
    best.0
}

/// The number with the largest absolute value, of two the first.
#[inline(always)]
fn farthest(x: &[f32]) -> f32 {
    x.iter().fold(0.0_f32, |far, x| if x.abs() > far.abs() { *x } else { far })
}

#[inline(always)]
fn root_mean_square(x: &[f32]) -> f32 {
    (x.iter().fold(0.0, |sum, x| sum + x * x) / x.len() as f32).sqrt()
}

/// The nearest integer, of two the even one, of numbers below 2^22. NaN is NaN.
#[inline(always)]
fn nearest(number: f32) -> f32 {
    const TO_INTEGER: f32 = 1.5 * 8_388_608.0;
    number + TO_INTEGER - TO_INTEGER
}

/// The nearest f16 number.
fn as_f16(number: f32) -> f32 {
    half::f16::from_f32(number).to_f32()
}
