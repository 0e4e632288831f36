//! The vision-encode process.

use std::process::ExitCode;

use anyhow::Context;
use models::ModelFolder;
use pipelines::service::{self, Loaded, Setup};
use schemas::Role;
use vision_encode::VisionEncode;
use vision_encode::encoder::{Compute, OnnxEncoder, Shape};
use vision_encode::stage::Settings;

fn main() -> ExitCode {
    service::main(Role::VisionEncode, load)
}

fn load(setup: &Setup) -> anyhow::Result<Loaded> {
    let pipeline = &setup.pipeline;
    let stage =
        pipeline.stages.vision_encode.as_ref().context("the pipeline has no `stages.vision-encode`")?;
    let folder = ModelFolder::open(&pipeline.path)?;
    let vision = folder
        .vision()
        .with_context(|| format!("model folder `{}` has no vision side", folder.path().display()))?;
    let fp = pipeline.fingerprint(folder.hash()?);
    let shape =
        Shape::of(vision, folder.config().hidden_size as u32).context("the model takes no square picture")?;
    let compute =
        Compute { device: stage.device.clone(), threads: (stage.threads > 0).then_some(stage.threads) };
    let encoder = OnnxEncoder::load(&folder.vision_encoder(), shape, &compute)?;
    let language = &pipeline.stages.shard_forward;
    let settings = Settings {
        fp,
        dtype: language.dtype.into(),
        // The last bits of ONNX Runtime's results may depend on how many pictures it is given.
        batch: if language.deterministic { 1 } else { stage.batch as usize },
        cache_bytes: (stage.cache_mb as usize) << 20,
    };
    let stage = VisionEncode::new(&settings, vision.clone(), Box::new(encoder))?;
    Ok(Loaded {
        fp,
        context_length: folder.context_length(),
        sees: folder.vision().is_some(),
        stage: Box::new(stage),
    })
}
