//! Where a sequence's tokens are for the rotary embedding: a function of their place in it, of the prompt's images and of how many
//! tokens it was opened with, so that it is the same in whatever chunks, after whatever resume, and on every shard.

use schemas::hidden::Slice;
use schemas::prompt::Grid;
use tch::{Device, Tensor};

/// The positions of a step's rows.
#[derive(Debug)]
pub(super) enum Positions {
    /// Those of text, the same on every axis: `[rows]`, i64.
    Line(Tensor),
    /// Time, row and column: `[rows]`, i64, each.
    Axes([Tensor; 3]),
}

impl Positions {
    /// Those of the rows of `slices`, and a number that all are below. `grids`: the images of each slice's prompt, or nothing where
    /// positions count tokens.
    pub(super) fn new(slices: &[Slice], grids: &[&[Grid]], device: Device) -> (Self, u32) {
        let mut axes: [Vec<i64>; 3] = Default::default();
        let mut end = 0;
        for (i, slice) in slices.iter().enumerate() {
            let images = grids.get(i).copied().unwrap_or_default();
            let slice_end = slice.start + slice.ids.len() as u32;
            for place in slice.start..slice_end {
                let position = position(images, place);
                axes.iter_mut().zip(position).for_each(|(axis, position)| axis.push(i64::from(position)));
            }
            end = end.max(slice_end);
        }
        let on_device = |axis: &Vec<i64>| Tensor::from_slice(axis).to_device(device);
        let is_line = axes[0] == axes[1] && axes[0] == axes[2];
        let positions = if is_line {
            Self::Line(on_device(&axes[0]))
        } else {
            Self::Axes(axes.each_ref().map(on_device))
        };
        (positions, end)
    }
}

/// Which rows belong to sequences that are longer than the first training.
#[derive(Debug)]
pub(super) enum Lengths {
    /// None.
    Short,
    /// All.
    Long,
    /// Those where this is true: `[rows, 1, 1]`, bool.
    Mixed(Tensor),
}

impl Lengths {
    /// Those of the rows of `slices`; `opened` as in [`StepBatch`](super::StepBatch).
    pub(super) fn new(slices: &[Slice], opened: &[u32], short_length: Option<u32>, device: Device) -> Self {
        let Some(short_length) = short_length else { return Self::Short };
        let length = |(i, slice): (usize, &Slice)| {
            let end = slice.start + slice.ids.len() as u32;
            (slice.ids.len(), opened.get(i).copied().unwrap_or(end) > short_length)
        };
        let slices: Vec<(usize, bool)> = slices.iter().enumerate().map(length).collect();
        match slices.iter().filter(|(_, is_long)| *is_long).count() {
            0 => Self::Short,
            n if n == slices.len() => Self::Long,
            _ => {
                let rows = slices.iter().flat_map(|&(rows, is_long)| std::iter::repeat_n(is_long, rows));
                let rows: Vec<bool> = rows.collect();
                Self::Mixed(Tensor::from_slice(&rows).view([-1, 1, 1]).to_device(device))
            }
        }
    }
}

/// Time, row and column of the token at `place`, none beyond `place`, in a prompt with `images`, which are ascending and apart.
///
/// Within an image time stands still; what comes behind it goes on from the largest of its positions.
/// Source: `get_rope_index` of transformers' Qwen2.5-VL; arXiv:2409.12191, fig. 3.
fn position(images: &[Grid], place: u32) -> [u32; 3] {
    // By how much positions stay behind places.
    let mut behind = 0;
    for image in images {
        let Some(offset) = place.checked_sub(image.start) else { break };
        let first = image.start.saturating_sub(behind);
        if u64::from(offset) < image.len() {
            return [first, first + offset / image.columns, first + offset % image.columns];
        }
        let saved = image.len().saturating_sub(u64::from(image.rows.max(image.columns)));
        behind = u32::try_from(saved).map_or(u32::MAX, |saved| behind.saturating_add(saved));
    }
    [place.saturating_sub(behind); 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_on_from_an_image_s_largest_position() {
        let grid = |start, rows, columns| Grid { start, rows, columns };
        let images = [grid(2, 2, 3), grid(8, 1, 1), grid(10, 3, 1)];
        let places: Vec<[u32; 3]> = (0..15).map(|place| position(&images, place)).collect();
        let expected = [
            [0, 0, 0],
            [1, 1, 1],
            [2, 2, 2],
            [2, 2, 3],
            [2, 2, 4],
            [2, 3, 2],
            [2, 3, 3],
            [2, 3, 4],
            [5, 5, 5],
            [6, 6, 6],
            [7, 7, 7],
            [7, 8, 7],
            [7, 9, 7],
            [10, 10, 10],
            [11, 11, 11],
        ];
        assert_eq!(places, expected);
        assert_eq!(position(&[], 7), [7; 3]);
    }
}
