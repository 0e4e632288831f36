//! The vision side of a vision-language model: which token an image stands at, how many embeddings it has, and how its
//! pixels are prepared.

use std::path::Path;

use serde_json::{Value, json};

use crate::config_fields::{ConfigError, ConfigFields};
use crate::image_rules::{ImageRefusal, ImageRules, Tiling};
use crate::patches::PatchRules;

/// The encoder with its projector in ONNX form, in the model folder. `tokenway convert --vision` makes it.
///
/// Input `pixel_values`: f32, `[tiles, 3, height, width]`; output `embeddings`: f32, `[tiles, rows, hidden_size]`. That of a model
/// which sees images at their own size has other inputs, and one picture at a time: `scripts/convert_vision.py` says which.
pub const ENCODER_FILE: &str = "vision.onnx";

/// The encoder's weights, where they do not fit into [`ENCODER_FILE`], which names this file.
pub(crate) const ENCODER_DATA_FILE: &str = "vision.onnx.data";

const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";
const ROWS_MAX: usize = 1 << 16;

/// How a checkpoint lays its vision side out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// One square image, its patches in a row (`llava`).
    Llava {
        /// Embeddings of an image.
        rows: u32,
    },
    /// Tiles and a small whole image, each between marks (`idefics3`, `smolvlm`).
    Idefics3 {
        /// Embeddings of a tile.
        rows: u32,
    },
    /// Patches of the image at its own size (`qwen2_5_vl`).
    Qwen2_5Vl {
        /// How it is cut.
        patches: PatchRules,
        /// Stands for a video, which is not seen.
        video_token_id: u32,
    },
}

/// The vision side of a model folder.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    layout: Layout,
    image_token_id: u32,
    rules: ImageRules,
}

/// What becomes of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// How its pixels are cut.
    pub tiling: Tiling,
    /// Embeddings of each tile.
    pub rows_per_tile: u32,
    /// Rows and columns of its embeddings, where the model's positions count them.
    pub grid: Option<(u32, u32)>,
}

impl ImagePlan {
    /// Embeddings of the image.
    pub fn rows(&self) -> u32 {
        self.tiling.tiles() * self.rows_per_tile
    }
}

impl VisionConfig {
    /// Reads the vision side of the model in `folder`, whose `config.json` is `fields`; none for a text model.
    pub(crate) fn read(folder: &Path, fields: &ConfigFields) -> Result<Option<Self>, ConfigError> {
        let model_type = fields.string("model_type")?.unwrap_or_default().to_owned();
        if !["llava", "idefics3", "smolvlm", "qwen2_5_vl"].contains(&model_type.as_str()) {
            return Ok(None);
        }
        let vision = fields.object("vision_config")?.ok_or_else(|| fields.missing("vision_config"))?;
        let processor = ConfigFields::read_if_there(folder, PROCESSOR)?;
        let own = ConfigFields::read_if_there(folder, PREPROCESSOR)?;
        let nested = match &processor {
            Some(processor) => processor.object("image_processor")?,
            None => None,
        };
        let preprocessor =
            own.or(nested).ok_or(ConfigError::NoFile { file: PREPROCESSOR, needed_by: "images" })?;
        if model_type == "qwen2_5_vl" {
            return Self::read_qwen2_5_vl(fields, &vision, &preprocessor).map(Some);
        }
        let layout = match model_type.as_str() {
            "llava" => Layout::Llava { rows: llava_rows(fields, &vision)? },
            _ => Layout::Idefics3 { rows: idefics3_rows(fields, &vision)? },
        };
        let split = matches!(layout, Layout::Idefics3 { .. });
        let image_token_id = match fields.token_id("image_token_id")? {
            Some(id) => id,
            None => fields.token_id("image_token_index")?.ok_or_else(|| fields.missing("image_token_id"))?,
        };
        let rules = ImageRules::read(&preprocessor, split)?;
        let side = vision.whole("image_size", 1..=1 << 14)?.unwrap_or(DEFAULT_IMAGE_SIZE) as u32;
        if rules.tile() != (side, side) {
            let found = json!(format!("{:?}", rules.tile()));
            return Err(preprocessor.invalid(
                "size",
                &found,
                &format!("pictures of {side} by {side} pixels"),
            ));
        }
        Ok(Some(Self { layout, image_token_id, rules }))
    }

    fn read_qwen2_5_vl(
        fields: &ConfigFields,
        vision: &ConfigFields,
        preprocessor: &ConfigFields,
    ) -> Result<Self, ConfigError> {
        let patches = PatchRules::read(vision, preprocessor)?;
        Ok(Self {
            // Source of the defaults: `Qwen2_5_VLConfig` of transformers.
            layout: Layout::Qwen2_5Vl {
                patches,
                video_token_id: fields.token_id("video_token_id")?.unwrap_or(151_656),
            },
            image_token_id: fields.token_id("image_token_id")?.unwrap_or(151_655),
            rules: ImageRules::read_patches(preprocessor, patches)?,
        })
    }

    /// The token that stands at each embedding of an image.
    pub fn image_token_id(&self) -> u32 {
        self.image_token_id
    }

    /// The token that would stand at each embedding of a video, which no model is shown.
    pub fn video_token_id(&self) -> Option<u32> {
        match self.layout {
            Layout::Qwen2_5Vl { video_token_id, .. } => Some(video_token_id),
            Layout::Llava { .. } | Layout::Idefics3 { .. } => None,
        }
    }

    /// How pixels are prepared.
    pub fn rules(&self) -> &ImageRules {
        &self.rules
    }

    /// What becomes of an image of this size in pixels.
    pub fn plan(&self, width: u32, height: u32) -> Result<ImagePlan, ImageRefusal> {
        let tiling = self.rules.tiling(width, height)?;
        let (rows_per_tile, grid) = match self.layout {
            Layout::Llava { rows } | Layout::Idefics3 { rows } => (rows, None),
            Layout::Qwen2_5Vl { patches, .. } => {
                let (rows, columns) = patches.grid(tiling.tile);
                (rows * columns, Some((rows, columns)))
            }
        };
        Ok(ImagePlan { tiling, rows_per_tile, grid })
    }

    /// The text that takes the place of `image_token` in the rendered template, for an image with this plan.
    ///
    /// Source: the processors of transformers 5, `LlavaProcessor`, `Idefics3Processor` and `Qwen2_5_VLProcessor`.
    pub fn placeholder(&self, image_token: &str, plan: &ImagePlan) -> String {
        let images = image_token.repeat(plan.rows_per_tile as usize);
        if matches!(self.layout, Layout::Llava { .. } | Layout::Qwen2_5Vl { .. }) {
            return images;
        }
        const FAKE: &str = "<fake_token_around_image>";
        let mut text = String::new();
        if let Some((rows, columns)) = plan.tiling.grid {
            for row in 1..=rows {
                for column in 1..=columns {
                    text.push_str(&format!("{FAKE}<row_{row}_col_{column}>{images}"));
                }
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(&format!("{FAKE}<global-img>{images}{FAKE}"));
        text
    }
}

/// Of transformers' vision configurations, where a checkpoint leaves it out.
const DEFAULT_IMAGE_SIZE: usize = 224;

/// Patches of the image, with the class token where the strategy keeps it.
fn llava_rows(fields: &ConfigFields, vision: &ConfigFields) -> Result<u32, ConfigError> {
    vision.only("model_type", &[json!("clip_vision_model"), json!("siglip_vision_model")])?;
    let class_tokens = usize::from(vision.string("model_type")? != Some("siglip_vision_model"));
    let patches = patches_a_side(vision, 32)?.pow(2);
    let strategy = fields.string("vision_feature_select_strategy")?.unwrap_or("default");
    let dropped = match strategy {
        "default" => 1,
        "full" => 0,
        other => return Err(fields.unsupported("vision_feature_select_strategy", &json!(other))),
    };
    match (patches + class_tokens).checked_sub(dropped) {
        Some(rows @ 1..=ROWS_MAX) => Ok(rows as u32),
        _ => Err(vision.invalid("patch_size", &json!(patches), "as many patches as a prompt can hold")),
    }
}

/// Patches after a pixel shuffle, which joins `scale_factor` by `scale_factor` of them.
fn idefics3_rows(fields: &ConfigFields, vision: &ConfigFields) -> Result<u32, ConfigError> {
    let scale = fields.whole("scale_factor", 1..=64)?.unwrap_or(2);
    let side = patches_a_side(vision, 32)?;
    if !side.is_multiple_of(scale) {
        return Err(fields.invalid(
            "scale_factor",
            &json!(scale),
            &format!("a divisor of {side} patches a side"),
        ));
    }
    match (side / scale).pow(2) {
        rows @ 1..=ROWS_MAX => Ok(rows as u32),
        rows => Err(vision.invalid("patch_size", &json!(rows), "as many patches as a prompt can hold")),
    }
}

fn patches_a_side(vision: &ConfigFields, default_patch: usize) -> Result<usize, ConfigError> {
    let size = vision.whole("image_size", 1..=1 << 14)?.unwrap_or(DEFAULT_IMAGE_SIZE);
    let patch = vision.whole("patch_size", 1..=size)?.unwrap_or(default_patch);
    match size / patch {
        0 => Err(vision.invalid("patch_size", &Value::from(patch), "at most `image_size`")),
        side => Ok(side),
    }
}
