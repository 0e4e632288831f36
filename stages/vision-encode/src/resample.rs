//! Resizing to the very bytes that Pillow gives, which the processors of transformers resize with. Libraries that we tried
//! differ from it by one of 256 levels here and there, and models of random weights show it.
//!
//! Source: Pillow 13, `Resample.c`: two passes over bytes, each with weights of 22 fractional bits.

use image::RgbImage;
use models::Filter;

const CHANNELS: usize = 3;
/// Fractional bits of a weight: the sum of 255 times weights up to 2 still fits an i32.
const PRECISION_BITS: u32 = 22;

/// `image` with this width and height.
pub fn resize(image: RgbImage, (width, height): (u32, u32), filter: Filter) -> RgbImage {
    let (from_width, from_height) = (i64::from(image.width()), i64::from(image.height()));
    let (shrinks_by, narrows_by) = (from_height - i64::from(height), from_width - i64::from(width));
    // The pass that leaves less goes first.
    if shrinks_by > 0 && shrinks_by > 2 * narrows_by {
        return horizontally(vertically(image, height, filter), width, filter);
    }
    vertically(horizontally(image, width, filter), height, filter)
}

fn horizontally(image: RgbImage, width: u32, filter: Filter) -> RgbImage {
    if image.width() == width {
        return image;
    }
    let weights = Weights::new(image.width(), width, filter);
    let mut resized = RgbImage::new(width, image.height());
    let from_row = image.width() as usize * CHANNELS;
    let rows = image.as_raw().chunks_exact(from_row).zip(resized.chunks_exact_mut(width as usize * CHANNELS));
    for (from, to) in rows {
        for (pixel, (start, weights)) in to.chunks_exact_mut(CHANNELS).zip(weights.iter()) {
            let window = from[start * CHANNELS..].chunks_exact(CHANNELS);
            let mut sums = [HALF; CHANNELS];
            for (near, weight) in window.zip(weights) {
                for (sum, byte) in sums.iter_mut().zip(near) {
                    *sum += i32::from(*byte) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(to_byte));
        }
    }
    resized
}

fn vertically(image: RgbImage, height: u32, filter: Filter) -> RgbImage {
    if image.height() == height {
        return image;
    }
    let weights = Weights::new(image.height(), height, filter);
    let row = image.width() as usize * CHANNELS;
    let mut resized = RgbImage::new(image.width(), height);
    let mut sums = vec![HALF; row];
    for (to, (start, weights)) in resized.chunks_exact_mut(row).zip(weights.iter()) {
        sums.fill(HALF);
        for (from, weight) in image.as_raw()[start * row..].chunks_exact(row).zip(weights) {
            for (sum, byte) in sums.iter_mut().zip(from) {
                *sum += i32::from(*byte) * weight;
            }
        }
        to.iter_mut().zip(&sums).for_each(|(byte, sum)| *byte = to_byte(*sum));
    }
    resized
}

/// One half, for rounding.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// For each place along one side, where its window begins and what each place in the window weighs.
struct Weights {
    starts: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Weights {
    fn new(from: u32, to: u32, filter: Filter) -> Self {
        let scale = f64::from(from) / f64::from(to);
        let stretch = scale.max(1.0);
        let support = reach(filter) * stretch;
        let mut all = Self { starts: Vec::with_capacity(to as usize), weights: Vec::new() };
        for place in 0..to {
            let center = (f64::from(place) + 0.5) * scale;
            let start = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(i64::from(from));
            let at = |near: i64| weight((near as f64 - center + 0.5) / stretch, filter);
            let window: Vec<f64> = (start..end).map(at).collect();
            let sum: f64 = window.iter().sum();
            let normed = |weight: &f64| if sum == 0.0 { *weight } else { weight / sum };
            all.starts.push((start as usize, window.len()));
            all.weights.extend(window.iter().map(|weight| fixed_point(normed(weight))));
        }
        all
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.starts.iter().map(move |(start, length)| {
            let (own, others) = rest.split_at(*length);
            rest = others;
            (*start, own)
        })
    }
}

fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION_BITS) + 0.5_f64.copysign(weight)) as i32
}

/// How far a filter looks, in places of the smaller side.
fn reach(filter: Filter) -> f64 {
    match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

fn weight(x: f64, filter: Filter) -> f64 {
    let distance = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - distance).max(0.0),
        Filter::Bicubic => bicubic(distance),
        Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        Filter::Lanczos => 0.0,
    }
}

/// Catmull-Rom: the parameter is -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    let angle = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { angle.sin() / angle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_color_stays_what_it_is() {
        let image = RgbImage::from_pixel(50, 30, image::Rgb([7, 130, 255]));
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for size in [(11, 8), (64, 64), (1, 1), (50, 3), (200, 30)] {
                let resized = resize(image.clone(), size, filter);
                assert_eq!(resized.dimensions(), size);
                assert!(resized.pixels().all(|pixel| pixel.0 == [7, 130, 255]), "{filter:?} {size:?}");
            }
        }
    }
}
