//! From an image's pixels to the pictures that the encoder takes: resized and cut as the model's rules say, then scaled to
//! numbers.

use image::RgbImage;
use models::{Filter, ImageRules, Tiling};

use crate::resample::resize;

const CHANNELS: usize = 3;

/// Pictures of one size, one after the other: `[tiles, height, width, 3]`, u8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// How many.
    pub tiles: usize,
    /// The pixels.
    pub pixels: Vec<u8>,
}

/// Cuts `image` as `tiling` says.
pub fn cut(image: RgbImage, tiling: &Tiling, filter: Filter) -> Pictures {
    let mut resized = image;
    for size in &tiling.resizes {
        resized = resize(resized, *size, filter);
    }
    let (width, height) = tiling.tile;
    let mut pixels = Vec::with_capacity(tiling.tiles() as usize * (width * height) as usize * CHANNELS);
    let Some((rows, columns)) = tiling.grid else {
        let middle = |whole: u32, part: u32| (i64::from(whole) - i64::from(part)).div_euclid(2);
        let left = middle(resized.width(), width);
        copy_window(&resized, (left, middle(resized.height(), height)), tiling.tile, &mut pixels);
        return Pictures { tiles: 1, pixels };
    };
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let corner = (i64::from(column * width), i64::from(row * height));
        copy_window(&resized, corner, tiling.tile, &mut pixels);
    }
    // The whole, small, behind its parts.
    pixels.extend_from_slice(&resize(resized, tiling.tile, filter));
    Pictures { tiles: tiling.tiles() as usize, pixels }
}

/// Appends the window of `image` at `(left, top)`; what lies outside is black.
fn copy_window(image: &RgbImage, (left, top): (i64, i64), (width, height): (u32, u32), out: &mut Vec<u8>) {
    let (image_width, image_height) = (i64::from(image.width()), i64::from(image.height()));
    for y in top..top + i64::from(height) {
        let (from, to) = (left.clamp(0, image_width), (left + i64::from(width)).clamp(0, image_width));
        let row_start = out.len();
        if (0..image_height).contains(&y) && from < to {
            out.resize(row_start + (from - left) as usize * CHANNELS, 0);
            let at = |x: i64| (y * image_width + x) as usize * CHANNELS;
            out.extend_from_slice(&image.as_raw()[at(from)..at(to)]);
        }
        out.resize(row_start + width as usize * CHANNELS, 0);
    }
}

/// Turns bytes into the numbers that the encoder takes, by a table for each channel.
#[derive(Debug)]
pub struct Scale([[f32; 256]; CHANNELS]);

impl Scale {
    /// The scale of `rules`: `(byte * rescale - mean) / std`.
    pub fn new(rules: &ImageRules) -> Self {
        let number = |channel: usize, byte: usize| {
            (byte as f32 * rules.rescale - rules.mean[channel]) / rules.std[channel]
        };
        Self(std::array::from_fn(|channel| std::array::from_fn(|byte| number(channel, byte))))
    }

    /// Appends `[tiles, height, width, 3]` bytes as `[tiles, 3, height, width]` f32; `plane` is height times width.
    pub fn append(&self, pixels: &[u8], plane: usize, out: &mut Vec<f32>) {
        for tile in pixels.chunks_exact(plane * CHANNELS) {
            for (channel, table) in self.0.iter().enumerate() {
                out.extend(tile.iter().skip(channel).step_by(CHANNELS).map(|&byte| table[usize::from(byte)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]))
    }

    fn tiling(resized: (u32, u32), grid: Option<(u32, u32)>, tile: (u32, u32)) -> Tiling {
        Tiling { resizes: vec![resized], grid, tile }
    }

    #[test]
    fn the_middle_is_cut_out_and_what_is_missing_is_black() {
        let cut = |size: (u32, u32), tile| {
            super::cut(gradient(size.0, size.1), &tiling(size, None, tile), Filter::Bicubic).pixels
        };
        assert_eq!(cut((5, 3), (3, 1))[..3], [1, 1, 9]);
        let padded = cut((2, 2), (4, 2));
        assert_eq!(padded[..3], [0, 0, 0]);
        assert_eq!(padded[3..9], [0, 0, 9, 1, 0, 9]);
        assert_eq!(padded.len(), 4 * 2 * 3);
    }

    #[test]
    fn tiles_come_row_by_row_with_the_whole_behind_them() {
        let cut = cut(gradient(4, 4), &tiling((4, 4), Some((2, 2)), (2, 2)), Filter::Lanczos);
        assert_eq!(cut.tiles, 5);
        let first_pixels: Vec<&[u8]> = cut.pixels.chunks(12).map(|tile| &tile[..2]).take(4).collect();
        assert_eq!(first_pixels, [[0, 0], [2, 0], [0, 2], [2, 2]]);
    }

    #[test]
    fn channels_are_scaled_and_set_apart() {
        let mut tables = [[0.0; 256]; 3];
        for (channel, table) in tables.iter_mut().enumerate() {
            table.iter_mut().enumerate().for_each(|(byte, number)| *number = (byte * 10 + channel) as f32);
        }
        let mut out = Vec::new();
        Scale(tables).append(&[1, 2, 3, 4, 5, 6], 2, &mut out);
        assert_eq!(out, [10.0, 40.0, 21.0, 51.0, 32.0, 62.0]);
    }
}
