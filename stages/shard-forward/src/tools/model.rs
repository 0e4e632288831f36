//! The model that a tool works with.

use std::path::Path;

use models::ModelFolder;
use pipelines::tools::{Compute, Element};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};

use super::exit::{misuse, unusable};
use crate::engine::{
    ComputeDevice, Decoder, Engine as _, EngineOptions, LayerPlan, RowOutput, RowSpec, StepBatch, StepOutput,
};

pub(super) const BLOCK_TOKENS: u32 = 16;

/// A model folder or GGUF. One that is damaged is misuse.
pub(super) fn open(path: &Path) -> anyhow::Result<ModelFolder> {
    // A path that is not there would read as a folder without a configuration.
    std::fs::metadata(path).map_err(|error| misuse(format!("`{}`: {error}", path.display())))?;
    ModelFolder::open(path).map_err(unusable)
}

/// How to compute, with room for `sequences` sequences of `tokens` tokens. More than the memory that is available is misuse.
pub(super) fn options(
    folder: &ModelFolder,
    compute: &Compute,
    dtype: Element,
    (sequences, tokens): (u32, u32),
) -> anyhow::Result<EngineOptions> {
    let context = folder.context_length();
    if tokens > context {
        return Err(misuse(format!(
            "{tokens} tokens are more than the {context} that the model can look at"
        )));
    }
    let device: ComputeDevice = compute.device.parse().map_err(unusable)?;
    let dtype = DType::from(dtype);
    let config = folder.config();
    let kv_tokens = u64::from(sequences) * u64::from(tokens).next_multiple_of(BLOCK_TOKENS.into());
    let factors = [config.num_hidden_layers, config.num_key_value_heads, config.head_dim, 2 * dtype.size()];
    let bytes = factors.into_iter().try_fold(kv_tokens, |bytes, factor| bytes.checked_mul(factor as u64));
    let available = available_bytes().unwrap_or(u64::MAX);
    let too_many =
        || misuse(format!("keys and values of {sequences} × {tokens} tokens do not fit into memory"));
    let fits = device != ComputeDevice::Cpu || bytes.is_some_and(|bytes| bytes <= available);
    let kv_tokens = u32::try_from(kv_tokens).ok().filter(|_| fits).ok_or_else(too_many)?;
    Ok(EngineOptions {
        dtype,
        device,
        kv_tokens: kv_tokens.max(BLOCK_TOKENS),
        block_tokens: BLOCK_TOKENS,
        threads: compute.threads.map(usize::from),
        deterministic: false,
    })
}

/// The whole of a model. One whose weights are not as its configuration says is misuse.
pub(super) fn load(folder: &ModelFolder, options: &EngineOptions) -> anyhow::Result<Decoder> {
    let whole = plan(folder, 1)?;
    let error =
        |error: anyhow::Error| unusable(error.context(format!("model `{}`", folder.path().display())));
    Decoder::load(folder, &whole, 0, options).map_err(error)
}

/// Its layers on so many shards.
pub(super) fn plan(folder: &ModelFolder, shards: u16) -> anyhow::Result<LayerPlan> {
    Ok(LayerPlan::even(u32::try_from(folder.config().num_hidden_layers)?, shards)?)
}

/// Its name for people: of the folder or file.
pub(super) fn name(folder: &ModelFolder) -> String {
    let path = folder.path().canonicalize().unwrap_or_else(|_| folder.path().to_owned());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Ids of a sequence from `start` on, whose last gives a token.
pub(super) fn slice(sequence: u64, start: u32, ids: Vec<u32>) -> Slice {
    Slice { sequence: SequenceId(sequence), start, ids, sample: true }
}

/// One step of a whole model, as far as `spec` asks of each slice. It is over when this returns.
pub(super) fn step(engine: &mut Decoder, slices: &[Slice], spec: &RowSpec) -> anyhow::Result<Vec<RowOutput>> {
    let specs = vec![spec.clone(); slices.iter().filter(|slice| slice.sample).count()];
    match engine.forward(&StepBatch::new(slices, &specs), None)? {
        StepOutput::Rows(rows) => Ok(rows.into_iter().collect::<Result<_, _>>()?),
        StepOutput::Hidden(_) => anyhow::bail!("the whole model gave no logits"),
    }
}

/// The most probable token of each slice.
pub(super) fn greedy() -> RowSpec {
    RowSpec { candidates: 1, ..RowSpec::default() }
}

/// How many threads the engine's kernels use since it was loaded.
pub(super) fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// The memory that can be had without swapping.
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}
