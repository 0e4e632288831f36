//! The vision encoder and projector of a model, in ONNX Runtime.

use std::path::Path;

use anyhow::{Context, ensure};
use models::{ImageRefusal, PatchRules, VisionConfig};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;

use crate::patches::Patches;
use crate::runtime;

const INPUT: &str = "pixel_values";
/// What patches have beside their pixels, see [`Patches`].
const POSITIONS: &str = "positions";
const WINDOWS: &str = "windows";
const PLACES: &str = "places";
const OUTPUT: &str = "embeddings";

/// What makes embeddings of pictures.
pub trait Encoder: Send {
    /// `pixels`: `[tiles, 3, height, width]` → `[tiles, rows, hidden_size]`, both f32; `size`: width and height of each tile.
    fn encode(&mut self, pixels: &[f32], tiles: usize, size: (u32, u32)) -> anyhow::Result<Vec<f32>>;
}

/// Where and with how many threads an encoder computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// On the CPU; none takes the processors that the process may run on.
    pub threads: Option<usize>,
}

/// What an encoder must take and give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width and height of a picture; where pictures differ, of a small one.
    pub tile: (u32, u32),
    /// Embeddings of that picture.
    pub rows: u32,
    /// Width of an embedding.
    pub hidden: u32,
    /// How a picture is cut, where pictures differ in size.
    pub patches: Option<PatchRules>,
}

impl Shape {
    /// That of `vision`, whose embeddings are `hidden` wide.
    pub fn of(vision: &VisionConfig, hidden: u32) -> Result<Self, ImageRefusal> {
        let plan = vision.plan(1, 1)?;
        let patches = vision.rules().patches().copied();
        Ok(Self { tile: plan.tiling.tile, rows: plan.rows_per_tile, hidden, patches })
    }
}

/// An encoder from an ONNX file, see [`models::ENCODER_FILE`].
pub struct OnnxEncoder {
    session: Session,
    shape: Shape,
}

impl OnnxEncoder {
    /// Loads `file` and makes sure, by encoding nothing but grey, that it takes and gives what the model's configuration says.
    pub fn load(file: &Path, shape: Shape, compute: &Compute) -> anyhow::Result<Self> {
        let encoder = || format!("vision encoder `{}`", file.display());
        ensure!(
            file.is_file(),
            "there is no `{}`: make it with `tokenway convert --vision {}`",
            file.display(),
            file.parent().unwrap_or(file).display()
        );
        let session = open(file, compute).with_context(encoder)?;
        let mut loaded = Self { session, shape };
        let grey = vec![0.0; loaded.floats_in()];
        loaded.encode(&grey, 1, shape.tile).with_context(encoder)?;
        Ok(loaded)
    }

    fn floats_in(&self) -> usize {
        3 * (self.shape.tile.0 * self.shape.tile.1) as usize
    }

    /// `pixels`: `[3, height, width]` → `[rows, hidden_size]`.
    fn encode_patches(
        &mut self,
        pixels: &[f32],
        size: (u32, u32),
        rules: &PatchRules,
    ) -> anyhow::Result<Vec<f32>> {
        let patches = Patches::of(pixels, size, rules);
        let (count, window_len) = (patches.count, patches.window_len);
        ensure!(count > 0, "a picture without patches");
        let windows = patches.windows.len() / window_len;
        let outputs = self.session.run(ort::inputs![
            INPUT => TensorRef::from_array_view(([count, patches.pixels.len() / count], &patches.pixels[..]))?,
            POSITIONS => TensorRef::from_array_view(([count, 2], &patches.positions[..]))?,
            WINDOWS => TensorRef::from_array_view(([windows, window_len], &patches.windows[..]))?,
            PLACES => TensorRef::from_array_view(([count], &patches.places[..]))?,
        ])?;
        let (rows, columns) = rules.grid(size);
        embeddings(&outputs, &[i64::from(rows * columns), i64::from(self.shape.hidden)])
    }
}

fn open(file: &Path, compute: &Compute) -> anyhow::Result<Session> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let builder = Session::builder(runtime::environment()?)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(plain)?
        .with_intra_threads(compute.threads.unwrap_or(available))
        .map_err(plain)?
        // Idle threads would take the processors from the other stages.
        .with_intra_op_spinning(false)
        .map_err(plain)?;
    let mut builder = match compute.device.strip_prefix("cuda:") {
        None => builder,
        Some(index) => {
            let device = index.parse().with_context(|| format!("`{}` is not a device", compute.device))?;
            let cuda = ort::ep::CUDA::default().with_device_id(device).build().error_on_failure();
            builder.with_execution_providers([cuda]).map_err(plain)?
        }
    };
    Ok(builder.commit_from_file(file)?)
}

/// An error of the builder without the builder.
fn plain<T>(error: ort::Error<T>) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

impl Encoder for OnnxEncoder {
    fn encode(&mut self, pixels: &[f32], tiles: usize, size: (u32, u32)) -> anyhow::Result<Vec<f32>> {
        let Shape { tile, rows, hidden, patches } = self.shape;
        if let Some(rules) = patches {
            let mut all = Vec::new();
            for picture in pixels.chunks(pixels.len().div_ceil(tiles.max(1)).max(1)) {
                all.extend(self.encode_patches(picture, size, &rules)?);
            }
            return Ok(all);
        }
        ensure!(size == tile, "a picture of {size:?} pixels, the encoder takes {tile:?}");
        let (width, height) = (size.0 as usize, size.1 as usize);
        let input = TensorRef::from_array_view(([tiles, 3, height, width], pixels))?;
        let outputs = self.session.run(ort::inputs![INPUT => input])?;
        embeddings(&outputs, &[tiles as i64, i64::from(rows), i64::from(hidden)])
    }
}

/// The embeddings of a run, of the shape that the model's configuration says.
fn embeddings(outputs: &SessionOutputs<'_>, expected: &[i64]) -> anyhow::Result<Vec<f32>> {
    let output = outputs.get(OUTPUT).with_context(|| format!("no output `{OUTPUT}`"))?;
    let (shape, embeddings) = output.try_extract_tensor::<f32>()?;
    ensure!(
        **shape == *expected,
        "embeddings of shape {shape:?}, the model's configuration says {expected:?}"
    );
    Ok(embeddings.to_vec())
}
