//! The vision encoder and projector of a model, in ONNX Runtime.

use std::path::Path;

use anyhow::{Context, ensure};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use crate::runtime;

const INPUT: &str = "pixel_values";
const OUTPUT: &str = "embeddings";

/// What makes embeddings of pictures.
pub trait Encoder: Send {
    /// `pixels`: `[tiles, 3, height, width]` → `[tiles, rows, hidden_size]`, both f32.
    fn encode(&mut self, pixels: &[f32], tiles: usize) -> anyhow::Result<Vec<f32>>;
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
    /// Width and height of a picture.
    pub tile: (u32, u32),
    /// Embeddings of a picture.
    pub rows: u32,
    /// Width of an embedding.
    pub hidden: u32,
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
        loaded.encode(&grey, 1).with_context(encoder)?;
        Ok(loaded)
    }

    fn floats_in(&self) -> usize {
        3 * (self.shape.tile.0 * self.shape.tile.1) as usize
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
    fn encode(&mut self, pixels: &[f32], tiles: usize) -> anyhow::Result<Vec<f32>> {
        let Shape { tile: (width, height), rows, hidden } = self.shape;
        let input = TensorRef::from_array_view(([tiles, 3, height as usize, width as usize], pixels))?;
        let outputs = self.session.run(ort::inputs![INPUT => input])?;
        let output = outputs.get(OUTPUT).with_context(|| format!("no output `{OUTPUT}`"))?;
        let (shape, embeddings) = output.try_extract_tensor::<f32>()?;
        let expected = [tiles as i64, i64::from(rows), i64::from(hidden)];
        ensure!(
            **shape == expected,
            "embeddings of shape {shape:?}, the model's configuration says {expected:?}"
        );
        Ok(embeddings.to_vec())
    }
}
