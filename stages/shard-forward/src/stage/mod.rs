//! shard-forward as a stage: one shard that schedules, others that follow.

mod admission;
mod alone;
mod first;
mod schedule;

mod depth;
mod farewell;
mod images;
mod lane;
mod sequence;
mod usage;

mod later;
mod shard;

#[cfg(test)]
mod tests;

use anyhow::Context as _;
use models::ModelFolder;
use pipelines::graph::EngineKind;
use pipelines::service::{Loaded, Setup};
use schemas::presence::Room;
use schemas::{DType, Role};

use crate::engine::{ComputeDevice, Decoder, Echo, Engine, EngineOptions, LayerPlan};
use first::First;
use later::Later;
use shard::Shard;

/// Builds the shard that `setup` asks for.
pub fn load(setup: &Setup) -> anyhow::Result<Loaded> {
    let Role::ShardForward(index) = setup.role else {
        anyhow::bail!("`{}` is not a shard", setup.role);
    };
    let pipeline = &setup.pipeline;
    let settings = &pipeline.stages.shard_forward;
    let folder = ModelFolder::open(&pipeline.path)?;
    let fp = pipeline.fingerprint(folder.hash()?);
    let dtype = DType::from(settings.dtype);
    let is_last = index + 1 == pipeline.shards();
    let engine: Box<dyn Engine> = match settings.engine {
        EngineKind::Echo => Box::new(Echo::new(is_last, settings.kv_tokens, settings.block_tokens)?),
        EngineKind::Model => {
            let n_layers = folder.config().num_hidden_layers as u32;
            let plan = match settings.layers.is_empty() {
                true => LayerPlan::even(n_layers, settings.shards)?,
                false => LayerPlan::explicit(n_layers, settings.layers.clone())?,
            };
            let device: ComputeDevice = settings.device.parse()?;
            let options = EngineOptions {
                dtype,
                device,
                kv_tokens: settings.kv_tokens,
                block_tokens: settings.block_tokens,
                threads: (settings.threads > 0).then_some(settings.threads),
                deterministic: settings.deterministic,
            };
            let mut shard = Decoder::load(&folder, &plan, index, &options)
                .with_context(|| format!("model `{}`", folder.path().display()))?;
            shard.warm_up(settings.step_tokens as usize, settings.max_sequences as usize)?;
            Box::new(shard)
        }
    };
    let room = Room { sequences: settings.max_sequences, kv_blocks: engine.blocks_total() };
    let shard = Shard::new(engine, fp, index, is_last, pipeline.stages.sample.candidates);
    let row_bytes = folder.config().hidden_size * dtype.size();
    let stage: Box<dyn pipelines::Stage> = match index {
        0 => Box::new(First::new(shard, settings.clone(), pipeline.shards(), row_bytes)),
        _ => Box::new(Later::new(shard, room)),
    };
    Ok(Loaded { fp, context_length: folder.context_length(), sees: folder.vision().is_some(), stage })
}
