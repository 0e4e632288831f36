//! How a model wants an image's pixels, as its `preprocessor_config.json` says.
//!
//! Sources: `CLIPImageProcessor`, `SiglipImageProcessor`, `Idefics3ImageProcessor` and `Qwen2VLImageProcessor` of transformers 5.

use serde_json::{Value, json};

use crate::config_fields::{ConfigError, ConfigFields};
use crate::patches::PatchRules;

const SIDE_MAX: usize = 1 << 14;
/// How many times longer than wide an image may be, or wider than long. Resizing by the shorter side makes a line of one pixel by
/// thousands into gigabytes.
pub(crate) const ASPECT_MAX: u32 = 200;

/// Why no model gets to see an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefusal {
    /// It has no pixels, or one side is many times the other.
    #[error("one side may be {ASPECT_MAX} times the other")]
    TooThin,
    /// At the size that the model wants, it would be more than the encoder takes.
    #[error(
        "which come to {patches} patches, the encoder takes {patches_max}: `max_pixels` of the model is larger"
    )]
    TooLarge {
        /// Patches of the resized image.
        patches: u64,
        /// Patches that the encoder takes.
        patches_max: u64,
    },
}

/// How a resize weighs pixels. Both widen with the scale when an image shrinks, as Pillow's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Catmull-Rom.
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos,
}

/// To which size an image is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// To this width and height.
    Exact(u32, u32),
    /// The shorter side to this length, the other in proportion.
    ShortestEdge(u32),
    /// The longer side to this length, the other in proportion.
    LongestEdge(u32),
    /// To whole patches, as near to its own size as there may be pixels.
    Patches(PatchRules),
}

/// The rules of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRules {
    resize: Resize,
    /// How a resize weighs pixels.
    pub filter: Filter,
    /// Width and height cut out of the middle.
    crop: Option<(u32, u32)>,
    /// How an image becomes tiles, where the model takes tiles.
    tiles: Option<Tiles>,
    /// Multiplies pixel values of 0 to 255.
    pub rescale: f32,
    /// Subtracted after that, by channel.
    pub mean: [f32; 3],
    /// Divides after that, by channel.
    pub std: [f32; 3],
}

/// Square pictures that an image is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiles {
    /// Of a tile.
    side: u32,
    /// Whether a large image is cut into several.
    split: bool,
}

/// How one image is cut: resized, then, with a grid, into tiles with a small whole image behind them, else cropped to one tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    /// Widths and heights that the image is resized to, one after the other.
    pub resizes: Vec<(u32, u32)>,
    /// Rows and columns of tiles.
    pub grid: Option<(u32, u32)>,
    /// Width and height of a tile.
    pub tile: (u32, u32),
}

impl Tiling {
    /// Pictures that the encoder gets.
    pub fn tiles(&self) -> u32 {
        1 + self.grid.map_or(0, |(rows, columns)| rows * columns)
    }
}

impl ImageRules {
    /// Reads the rules; `split` for a model that cuts images into tiles.
    pub(crate) fn read(fields: &ConfigFields, split: bool) -> Result<Self, ConfigError> {
        for field in ["do_rescale", "do_normalize", "do_resize", "do_convert_rgb"] {
            fields.only(field, &[json!(true)])?;
        }
        let tiles = match split {
            true => Some(Tiles {
                side: tile_side(fields)?,
                split: fields.bool("do_image_splitting")?.unwrap_or(true),
            }),
            false => None,
        };
        let resize = read_resize(fields)?;
        if split && !matches!(resize, Resize::LongestEdge(_)) {
            // The number of tiles would have no bound.
            return Err(fields.unsupported("size", fields.get("size").unwrap_or(&Value::Null)));
        }
        if !split {
            // Tiles fill their frames, so that padding has nothing to add there.
            fields.only("do_pad", &[json!(false)])?;
        }
        Ok(Self {
            resize,
            filter: read_filter(fields)?,
            crop: if split { None } else { read_crop(fields)? },
            tiles,
            rescale: fields.positive("rescale_factor")?.unwrap_or(1.0 / 255.0) as f32,
            mean: fields.three("image_mean")?.unwrap_or([0.5; 3]),
            std: fields.three("image_std")?.unwrap_or([0.5; 3]),
        })
    }

    /// Reads the rules of a model that sees images at their own size, as `patches`.
    pub(crate) fn read_patches(fields: &ConfigFields, patches: PatchRules) -> Result<Self, ConfigError> {
        for field in ["do_rescale", "do_normalize", "do_resize", "do_convert_rgb"] {
            fields.only(field, &[json!(true)])?;
        }
        for field in ["do_center_crop", "do_pad"] {
            fields.only(field, &[json!(false)])?;
        }
        Ok(Self {
            resize: Resize::Patches(patches),
            filter: read_filter(fields)?,
            crop: None,
            tiles: None,
            rescale: fields.positive("rescale_factor")?.unwrap_or(1.0 / 255.0) as f32,
            mean: fields.three("image_mean")?.unwrap_or(CLIP_MEAN),
            std: fields.three("image_std")?.unwrap_or(CLIP_STD),
        })
    }

    /// How the encoder cuts pictures into patches; none of one that takes pictures of one size.
    pub fn patches(&self) -> Option<&PatchRules> {
        match &self.resize {
            Resize::Patches(patches) => Some(patches),
            Resize::Exact(..) | Resize::ShortestEdge(_) | Resize::LongestEdge(_) => None,
        }
    }

    /// Width and height of every picture that the encoder gets, where all have the same.
    pub(crate) fn tile(&self) -> (u32, u32) {
        match (self.tiles, self.crop, self.resize) {
            (Some(tiles), _, _) => (tiles.side, tiles.side),
            (None, Some(crop), _) => crop,
            (None, None, Resize::Exact(width, height)) => (width, height),
            (None, None, _) => (0, 0),
        }
    }

    /// How an image of this size is cut.
    pub fn tiling(&self, width: u32, height: u32) -> Result<Tiling, ImageRefusal> {
        let (shorter, longer) = (width.min(height), width.max(height));
        if shorter == 0 || longer / shorter > ASPECT_MAX {
            return Err(ImageRefusal::TooThin);
        }
        let resized = match self.resize {
            Resize::Patches(patches) => {
                let resized = patches.resized(width, height)?;
                return Ok(Tiling { resizes: vec![resized], grid: None, tile: resized });
            }
            Resize::Exact(width, height) => (width, height),
            Resize::ShortestEdge(edge) => shortest_edge(width, height, edge),
            Resize::LongestEdge(edge) => longest_edge(width, height, edge),
        };
        let (resizes, grid) = match self.tiles {
            None => (vec![resized], None),
            Some(Tiles { side, split: false }) => (vec![resized, (side, side)], None),
            Some(Tiles { side, split: true }) => {
                let whole = whole_tiles(resized, side);
                let is_split = whole.0 > side || whole.1 > side;
                (vec![resized, whole], is_split.then_some((whole.1 / side, whole.0 / side)))
            }
        };
        Ok(Tiling { resizes, grid, tile: self.tile() })
    }
}

/// Of CLIP, and of models whose processors have these where a file leaves them out.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The other side is rounded down.
fn shortest_edge(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let scaled = |long: u32, short: u32| (u64::from(edge) * u64::from(long) / u64::from(short.max(1))) as u32;
    match width <= height {
        true => (edge, scaled(height, width).max(1)),
        false => (scaled(width, height).max(1), edge),
    }
}

/// Longest side that Idefics3 ever resizes to.
const LONGEST_EDGE_MAX: u32 = 4096;

/// The other side is rounded down, then up to an even number. Smaller images are enlarged.
fn longest_edge(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height.max(1));
    let (wide, edge) = (width >= height, edge.min(LONGEST_EDGE_MAX));
    let other = if wide { f64::from(edge) / aspect } else { f64::from(edge) * aspect };
    let other = (other as u32).max(1).next_multiple_of(2);
    if wide { (edge, other) } else { (other, edge) }
}

/// The longer side up to whole tiles, the other one in proportion and then up to whole tiles.
fn whole_tiles((width, height): (u32, u32), tile: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height.max(1));
    if width >= height {
        let width = width.next_multiple_of(tile);
        (width, ((f64::from(width) / aspect) as u32).max(1).next_multiple_of(tile))
    } else {
        let height = height.next_multiple_of(tile);
        (((f64::from(height) * aspect) as u32).max(1).next_multiple_of(tile), height)
    }
}

fn read_resize(fields: &ConfigFields) -> Result<Resize, ConfigError> {
    if let Some(side) = fields.get("size").and_then(Value::as_u64) {
        return Ok(Resize::ShortestEdge(side.clamp(1, SIDE_MAX as u64) as u32));
    }
    let size = fields.object("size")?.ok_or_else(|| fields.missing("size"))?;
    let side = |field: &str| Ok(size.whole(field, 1..=SIDE_MAX)?.map(|side| side as u32));
    match (side("height")?, side("width")?, side("shortest_edge")?, side("longest_edge")?) {
        (Some(height), Some(width), None, None) => Ok(Resize::Exact(width, height)),
        (None, None, Some(edge), None) => Ok(Resize::ShortestEdge(edge)),
        (None, None, None, Some(edge)) => Ok(Resize::LongestEdge(edge)),
        _ => Err(fields.unsupported("size", fields.get("size").unwrap_or(&Value::Null))),
    }
}

fn read_crop(fields: &ConfigFields) -> Result<Option<(u32, u32)>, ConfigError> {
    if !fields.bool("do_center_crop")?.unwrap_or(false) {
        return Ok(None);
    }
    if let Some(side) = fields.get("crop_size").and_then(Value::as_u64) {
        let side = side.clamp(1, SIDE_MAX as u64) as u32;
        return Ok(Some((side, side)));
    }
    let size = fields.object("crop_size")?.ok_or_else(|| fields.missing("crop_size"))?;
    let side = |field: &str| size.whole(field, 1..=SIDE_MAX)?.ok_or_else(|| size.missing(field));
    Ok(Some((side("width")? as u32, side("height")? as u32)))
}

fn tile_side(fields: &ConfigFields) -> Result<u32, ConfigError> {
    let size = fields.object("max_image_size")?.ok_or_else(|| fields.missing("max_image_size"))?;
    let side = size.whole("longest_edge", 1..=SIDE_MAX)?.ok_or_else(|| size.missing("longest_edge"))?;
    Ok(side as u32)
}

/// By Pillow's number.
fn read_filter(fields: &ConfigFields) -> Result<Filter, ConfigError> {
    match fields.whole("resample", 0..=5)? {
        None | Some(3) => Ok(Filter::Bicubic),
        Some(2) => Ok(Filter::Bilinear),
        Some(1) => Ok(Filter::Lanczos),
        Some(other) => Err(fields.unsupported("resample", &json!(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: Value, split: bool) -> Result<ImageRules, ConfigError> {
        let json = serde_json::to_vec(&json).unwrap();
        ImageRules::read(&ConfigFields::parse("preprocessor_config.json", &json).unwrap(), split)
    }

    #[test]
    fn a_shorter_side_is_resized_and_the_middle_cut_out() {
        let rules = rules(
            json!({ "size": { "shortest_edge": 336 }, "do_center_crop": true, "crop_size": { "height": 336, "width": 336 } }),
            false,
        )
        .unwrap();
        assert_eq!(rules.tile(), (336, 336));
        let tiling = rules.tiling(1000, 333).unwrap();
        assert_eq!((&tiling.resizes[..], tiling.tiles()), (&[(1009, 336)][..], 1));
        assert_eq!(rules.tiling(1, 200).unwrap().resizes, [(336, 67_200)]);
        for thin in [(1, 201), (65_535, 1), (1, u32::MAX), (0, 5), (5, 0)] {
            assert_eq!(rules.tiling(thin.0, thin.1), Err(ImageRefusal::TooThin), "{thin:?}");
        }
    }

    #[test]
    fn a_large_image_is_cut_into_tiles_with_the_whole_behind_them() {
        let rules = rules(
            json!({ "size": { "longest_edge": 1536 }, "max_image_size": { "longest_edge": 512 }, "resample": 1 }),
            true,
        )
        .unwrap();
        assert_eq!(rules.filter, Filter::Lanczos);
        let tiling = rules.tiling(1200, 600).unwrap();
        assert_eq!((tiling.resizes[1], tiling.grid, tiling.tiles()), ((1536, 1024), Some((2, 3)), 7));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_its_field() {
        for (field, value) in
            [("resample", json!(0)), ("do_rescale", json!(false)), ("size", json!({ "width": 3 }))]
        {
            let mut config = json!({ "size": { "height": 8, "width": 8 } });
            config[field] = value;
            assert!(rules(config, false).unwrap_err().to_string().contains(field));
        }
    }
}
