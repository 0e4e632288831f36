//! A picture as patches, for encoders that take an image at its own size: its numbers in their order, and what the encoder's layers
//! must know of the patches' places.
//!
//! Source: `patchify` of `Qwen2VLImageProcessor`, `get_vision_position_ids` and `get_vision_window_index` of transformers 5. Windows
//! are given as places of patches instead of by a new order of them, which attention does not depend on.

use models::PatchRules;

const CHANNELS: usize = 3;
/// Stands for a place in a window that lies outside of the picture.
const OUTSIDE: i64 = -1;

/// One picture as the encoder takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// How many.
    pub count: usize,
    /// `[count, 3 * frames * patch * patch]`: channel by channel, the same for every frame.
    pub pixels: Vec<f32>,
    /// `[count, 2]`: row and column of each patch.
    pub positions: Vec<i64>,
    /// `[windows, window * window]`: which patches see each other, filled up with −1.
    pub windows: Vec<i64>,
    /// Places of a window.
    pub window_len: usize,
    /// `[count]`: where each patch stands in `windows`.
    pub places: Vec<i64>,
}

impl Patches {
    /// The patches of a picture `width` wide and `height` high, whole squares of patches; `pixels`: `[3, height, width]`.
    pub fn of(pixels: &[f32], (width, height): (u32, u32), rules: &PatchRules) -> Self {
        let PatchRules { patch, frames, window, .. } = *rules;
        let (rows, columns) = (height / patch, width / patch);
        let order: Vec<(u32, u32)> = in_order(rows, columns, rules.merge).collect();
        let mut patches = Self {
            count: order.len(),
            pixels: Vec::with_capacity(pixels.len() * frames as usize),
            positions: Vec::with_capacity(2 * order.len()),
            windows: Vec::new(),
            window_len: (window * window) as usize,
            places: Vec::with_capacity(order.len()),
        };
        let windows_a_row = columns.div_ceil(window);
        let windows = (windows_a_row * rows.div_ceil(window)) as usize;
        patches.windows.resize(windows * patches.window_len, OUTSIDE);
        for (index, (row, column)) in order.into_iter().enumerate() {
            patches.push_pixels(pixels, (width, height), (row, column), rules);
            patches.positions.extend([i64::from(row), i64::from(column)]);
            let number = (row / window * windows_a_row + column / window) as usize;
            let inside = (row % window * window + column % window) as usize;
            let place = number * patches.window_len + inside;
            patches.windows[place] = index as i64;
            patches.places.push(place as i64);
        }
        patches
    }

    fn push_pixels(
        &mut self,
        pixels: &[f32],
        (width, height): (u32, u32),
        (row, column): (u32, u32),
        rules: &PatchRules,
    ) {
        let (width, side) = (width as usize, rules.patch as usize);
        for channel in pixels.chunks_exact(width * height as usize).take(CHANNELS) {
            for _ in 0..rules.frames {
                let lines = channel.chunks_exact(width).skip(row as usize * side).take(side);
                lines.for_each(|line| self.pixels.extend_from_slice(&line[column as usize * side..][..side]));
            }
        }
    }
}

/// Rows and columns of patches: square after square of those that become one embedding, each row by row.
fn in_order(rows: u32, columns: u32, merge: u32) -> impl Iterator<Item = (u32, u32)> {
    let squares =
        (0..rows / merge).flat_map(move |row| (0..columns / merge).map(move |column| (row, column)));
    squares.flat_map(move |(row, column)| {
        let inside = (0..merge).flat_map(move |down| (0..merge).map(move |right| (down, right)));
        inside.map(move |(down, right)| (row * merge + down, column * merge + right))
    })
}
