//! Pictures as patches, of models that see an image at its own size.
//!
//! Source: `smart_resize` of `Qwen2VLImageProcessor` and `get_vision_window_index` of transformers 5; arXiv:2502.13923, sec. 2.1.

use serde_json::json;

use crate::config_fields::{ConfigError, ConfigFields};
use crate::image_rules::{ASPECT_MAX, ImageRefusal};

/// Largest side of a patch, and of a square of them: with it the pixels of as many patches as there may be fit a u32.
const SIDE_MAX: usize = 1 << 8;
const PIXELS_MAX: usize = 1 << 32;
/// Patches of a picture. Some layers let each see all others, a head after the other: 1 GiB of scores, twice.
const PATCHES_MAX: u64 = 1 << 14;

/// How an encoder cuts a picture into patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchRules {
    /// Side of a patch, in pixels.
    pub patch: u32,
    /// Side of the square of patches that become one embedding, in patches.
    pub merge: u32,
    /// How many times each picture is given: the encoder takes that many frames of a video together.
    pub frames: u32,
    /// Side of the windows within which most layers attend, in patches; a multiple of `merge`.
    pub window: u32,
    /// Pixels that a picture has at least, but for rounding to whole squares.
    pixels_min: u64,
    /// Pixels that a picture has at most, but for rounding to whole squares.
    pixels_max: u64,
}

impl PatchRules {
    /// Reads what `vision_config` and the preprocessor say; they must agree.
    pub(crate) fn read(vision: &ConfigFields, preprocessor: &ConfigFields) -> Result<Self, ConfigError> {
        for field in ["in_channels", "in_chans"] {
            vision.only(field, &[json!(3)])?;
        }
        let side = |of_vision: &str, of_preprocessor: &str, usual: usize| {
            let side = vision.whole(of_vision, 1..=SIDE_MAX)?.unwrap_or(usual);
            match preprocessor.whole(of_preprocessor, 1..=SIDE_MAX)?.unwrap_or(usual) {
                same if same == side => Ok(side as u32),
                other => Err(preprocessor.invalid(
                    of_preprocessor,
                    &json!(other),
                    &format!("the encoder's {side}"),
                )),
            }
        };
        let patch = side("patch_size", "patch_size", 14)?;
        let merge = side("spatial_merge_size", "merge_size", 2)?;
        let frames = side("temporal_patch_size", "temporal_patch_size", 2)?;
        let window_pixels = vision.whole("window_size", 1..=SIDE_MAX * SIDE_MAX)?.unwrap_or(112);
        // Rounded down twice, as transformers does.
        let window = window_pixels as u32 / merge / patch * merge;
        if window == 0 {
            let expected = format!("at least {} pixels", patch * merge);
            return Err(vision.invalid("window_size", &json!(window_pixels), &expected));
        }
        let (pixels_min, pixels_max) = read_pixels(preprocessor)?;
        Ok(Self { patch, merge, frames, window, pixels_min, pixels_max })
    }

    /// Width and height that an image of this size is brought to: whole squares of patches.
    pub(crate) fn resized(&self, width: u32, height: u32) -> Result<(u32, u32), ImageRefusal> {
        let (shorter, longer) = (width.min(height), width.max(height));
        if shorter == 0 || u64::from(longer) > u64::from(ASPECT_MAX) * u64::from(shorter) {
            return Err(ImageRefusal::TooThin);
        }
        let square = f64::from(self.patch * self.merge);
        let (width, height) = (f64::from(width), f64::from(height));
        let (least, most) = (self.pixels_min as f64, self.pixels_max as f64);
        let nearest = |side: f64| (side / square).round_ties_even() * square;
        let pixels = nearest(width) * nearest(height);
        let resized = if pixels > most {
            let shrink = (width * height / most).sqrt();
            [width, height].map(|side| square.max((side / shrink / square).floor() * square))
        } else if pixels < least {
            let grow = (least / (width * height)).sqrt();
            [width, height].map(|side| (side * grow / square).ceil() * square)
        } else {
            [width, height].map(nearest)
        };
        let patch = f64::from(self.patch);
        let patches = (resized[0] / patch * (resized[1] / patch)) as u64;
        if patches > PATCHES_MAX {
            return Err(ImageRefusal::TooLarge { patches, patches_max: PATCHES_MAX });
        }
        Ok((resized[0] as u32, resized[1] as u32))
    }

    /// Rows and columns of embeddings of a picture of this width and height, whole squares of patches.
    pub fn grid(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let square = self.patch * self.merge;
        (height / square, width / square)
    }
}

/// Fewest and most pixels: `min_pixels` and `max_pixels`, or as `size`.
fn read_pixels(preprocessor: &ConfigFields) -> Result<(u64, u64), ConfigError> {
    let size = preprocessor.object("size")?;
    let pixels = |own: &'static str, in_size: &str, usual: usize| {
        if let Some(pixels) = preprocessor.whole(own, 1..=PIXELS_MAX)? {
            return Ok(pixels as u64);
        }
        let Some(size) = &size else { return Ok(usual as u64) };
        let pixels = size.whole(in_size, 1..=PIXELS_MAX)?.ok_or_else(|| size.missing(in_size))?;
        Ok(pixels as u64)
    };
    let least = pixels("min_pixels", "shortest_edge", 56 * 56)?;
    let most = pixels("max_pixels", "longest_edge", 28 * 28 * 1280)?;
    if least <= most {
        return Ok((least, most));
    }
    Err(preprocessor.invalid("max_pixels", &json!(most), &format!("at least the {least} of `min_pixels`")))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fields(file: &'static str, json: &Value) -> ConfigFields {
        ConfigFields::parse(file, &serde_json::to_vec(json).unwrap()).unwrap()
    }

    fn rules(vision: Value, preprocessor: Value) -> Result<PatchRules, ConfigError> {
        PatchRules::read(&fields("config.json", &vision), &fields("preprocessor_config.json", &preprocessor))
    }

    #[test]
    fn sizes_are_those_of_smart_resize() {
        let rules = rules(json!({}), json!({})).unwrap();
        // By `smart_resize(height, width)` of transformers 5.24 with its default limits.
        for ((width, height), expected) in SMART_RESIZE {
            assert_eq!(rules.resized(width, height).unwrap(), expected, "{width} by {height}");
        }
        assert_eq!(rules.grid((56, 84)), (3, 2));
    }

    /// Width and height before and after.
    const SMART_RESIZE: [((u32, u32), (u32, u32)); 11] = [
        ((1, 1), (56, 56)),
        ((14, 400), (28, 308)),
        ((42, 42), (56, 56)),
        ((70, 98), (56, 112)),
        ((640, 480), (644, 476)),
        ((1920, 1080), (1316, 728)),
        ((4000, 3000), (1148, 840)),
        ((3000, 15), (2996, 28)),
        ((29, 5800), (28, 5796)),
        ((1003, 1000), (980, 980)),
        ((1001, 1003), (980, 980)),
    ];

    #[test]
    fn images_of_which_nothing_could_be_seen_or_too_much_are_refused() {
        let large = json!({ "max_pixels": 1u64 << 32, "min_pixels": 3136 });
        let rules = rules(json!({}), large).unwrap();
        for thin in [(1, 201), (401, 2), (0, 5), (u32::MAX, 1)] {
            assert_eq!(rules.resized(thin.0, thin.1), Err(ImageRefusal::TooThin), "{thin:?}");
        }
        assert!(rules.resized(200, 1).is_ok());
        assert_eq!(rules.resized(1792, 1792), Ok((1792, 1792)));
        let refusal = ImageRefusal::TooLarge { patches: 128 * 130, patches_max: PATCHES_MAX };
        assert_eq!(rules.resized(1792, 1820), Err(refusal));
        assert!(rules.resized(u32::MAX, u32::MAX).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_its_field() {
        for (vision, preprocessor, field) in [
            (json!({ "patch_size": 16 }), json!({}), "patch_size"),
            (json!({}), json!({ "merge_size": 3 }), "merge_size"),
            (json!({ "window_size": 27 }), json!({}), "window_size"),
            (json!({ "in_chans": 1 }), json!({}), "in_chans"),
            (json!({}), json!({ "min_pixels": 0 }), "min_pixels"),
            (json!({}), json!({ "min_pixels": 100, "max_pixels": 99 }), "max_pixels"),
            (json!({}), json!({ "size": { "shortest_edge": 100 } }), "size.longest_edge"),
        ] {
            let error = rules(vision, preprocessor).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{field}` ")), "{error}");
        }
    }
}
