//! Checkpoints of transformers with what it computes of them, and a model on any number of shards.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use models::{DecoderConfig, ModelFolder};
use safetensors::SafeTensors;
use schemas::hidden::Slice;
use schemas::prompt::Grid;
use schemas::{DType, SequenceId};
use shard_forward::engine::{
    ComputeDevice, Decoder, Engine, EngineOptions, LayerPlan, Overlay, RowSpec, StepBatch, StepOutput,
};

pub const GOLDENS: [&str; 31] = [
    "gqa",
    "tied-wide-heads",
    "llama3-rope",
    "biases",
    "linear-rope",
    "dynamic-rope",
    "yarn-rope",
    "mistral",
    "mistral-v3",
    "qwen2",
    "qwen2-full",
    "qwen3",
    "qwen3-biases",
    "smollm3",
    "smollm3-windows",
    "phi3",
    "phi3-longrope",
    "gemma2",
    "gemma3",
    "mixtral",
    "mixtral-windows",
    "qwen3-moe",
    "qwen3-moe-some",
    "qwen2-5-vl",
    "bitnet",
    "bitnet-long",
    "bitnet-online",
    "bitnet-biases",
    "bitnet-bitlinear",
    "bitnet-plain",
    "llama-bitlinear",
];
pub const BLOCK_TOKENS: u32 = 16;

/// One prompt of a golden file.
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Logits at its last positions.
    pub logits: Vec<Vec<f32>>,
    /// The same by transformers in bf16; none where they were not computed.
    pub bf16_logits: Vec<Vec<f32>>,
    /// What follows it greedily.
    pub greedy: Vec<u32>,
    /// Whether rows go through experts.
    pub sparse: bool,
}

/// All shards of a model, one after the other.
pub struct Model {
    pub shards: Vec<Decoder>,
    /// Of the next step.
    pub overlays: Vec<Overlay>,
    /// Of prompts with images, by sequence.
    pub grids: HashMap<SequenceId, Vec<Grid>>,
    /// Tokens that every sequence was opened with; none where they are in their first slices.
    pub opened: Option<u32>,
}

/// The folder of a golden; an absolute path stays as it is.
pub fn golden(name: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("goldens").join(name)
}

pub fn config(folder: &Path) -> DecoderConfig {
    DecoderConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

pub fn device() -> ComputeDevice {
    std::env::var("TOKENWAY_TEST_DEVICE").map_or(ComputeDevice::Cpu, |name| name.parse().unwrap())
}

pub fn prompts(name: &str) -> Vec<Prompt> {
    let file = std::fs::read(golden(name).join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let ids = |name: String| -> Option<Vec<u32>> {
        let data = tensors.tensor(&name).ok()?.data().to_vec();
        Some(data.chunks(8).map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32).collect())
    };
    let rows = |name: String| -> Option<Vec<Vec<f32>>> {
        let logits = tensors.tensor(&name).ok()?;
        let floats: Vec<f32> =
            logits.data().chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        Some(floats.chunks(logits.shape()[1]).map(<[f32]>::to_vec).collect())
    };
    let sparse = config(&golden(name)).experts.is_some();
    let prompts = (0..).map_while(|i| {
        Some(Prompt {
            sparse,
            ids: ids(format!("input_ids.{i}"))?,
            logits: rows(format!("logits.{i}"))?,
            bf16_logits: rows(format!("bf16_logits.{i}")).unwrap_or_default(),
            greedy: ids(format!("greedy.{i}"))?,
        })
    });
    let prompts: Vec<Prompt> = prompts.collect();
    assert!(!prompts.is_empty());
    prompts
}

pub fn options(dtype: DType, kv_tokens: u32) -> EngineOptions {
    EngineOptions {
        dtype,
        device: device(),
        kv_tokens,
        block_tokens: BLOCK_TOKENS,
        threads: Some(1),
        deterministic: false,
    }
}

pub fn slice(sequence: u64, start: usize, ids: &[u32], sample: bool) -> Slice {
    Slice { sequence: SequenceId(sequence), start: start as u32, ids: ids.to_vec(), sample }
}

pub fn complete() -> RowSpec {
    RowSpec { temperature: 1.0, candidates: u32::MAX, ..RowSpec::default() }
}

pub fn greedy() -> RowSpec {
    RowSpec { candidates: 1, ..RowSpec::default() }
}

impl Model {
    pub fn load(folder: &Path, shards: u16, options: &EngineOptions) -> Self {
        let folder = ModelFolder::open(folder).unwrap();
        let plan = LayerPlan::even(folder.config().num_hidden_layers as u32, shards).unwrap();
        let load = |shard| Decoder::load(&folder, &plan, shard, options).unwrap();
        let shards = (0..shards).map(load).collect();
        Self { shards, overlays: Vec::new(), grids: HashMap::new(), opened: None }
    }

    pub fn golden(name: &str) -> Self {
        Self::load(&golden(name), 1, &options(DType::F32, 32_768))
    }

    pub fn step(&mut self, slices: &[Slice], spec: &RowSpec) -> anyhow::Result<StepOutput> {
        let rows = vec![spec.clone(); slices.iter().filter(|slice| slice.sample).count()];
        let grids = slices.iter().map(|slice| self.grids.get(&slice.sequence).map_or(&[][..], |it| it));
        let grids: Vec<&[Grid]> = grids.collect();
        let opened: Vec<u32> = self.opened.iter().flat_map(|opened| vec![*opened; slices.len()]).collect();
        let mut states = None;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let overlays = if index == 0 { &self.overlays[..] } else { &[] };
            let batch = StepBatch { slices, overlays, grids: &grids, opened: &opened, rows: &rows };
            match shard.forward(&batch, states.as_ref())? {
                StepOutput::Hidden(hidden) => states = hidden,
                rows => return Ok(rows),
            }
        }
        unreachable!("the last shard gives rows")
    }

    /// Logits by id of every slice with `sample`.
    pub fn logits(&mut self, slices: &[Slice]) -> Vec<Vec<f32>> {
        let StepOutput::Rows(rows) = self.step(slices, &complete()).unwrap() else { unreachable!() };
        let by_id = |mut candidates: Vec<(u32, f32)>| {
            candidates.sort_by_key(|(id, _)| *id);
            candidates.into_iter().map(|(_, logit)| logit).collect()
        };
        rows.into_iter().map(|row| by_id(row.unwrap().candidates)).collect()
    }

    /// The largest logit's id of every slice with `sample`.
    pub fn greedy(&mut self, slices: &[Slice]) -> Vec<u32> {
        let StepOutput::Rows(rows) = self.step(slices, &greedy()).unwrap() else { unreachable!() };
        rows.into_iter().map(|row| row.unwrap().candidates[0].0).collect()
    }

    /// What follows each prompt greedily, all in one batch. One that outgrows the model's short length begins anew.
    pub fn continue_greedily(&mut self, prompts: &[Prompt], tokens: usize) -> Vec<Vec<u32>> {
        let short = self.shards[0].short_length().map_or(usize::MAX, |length| length as usize);
        let anew = prompts.len() as u64;
        let mut step: Vec<Slice> =
            (0..).zip(prompts).map(|(i, prompt)| slice(i, 0, &prompt.ids, true)).collect();
        let mut answers = vec![Vec::new(); prompts.len()];
        while answers[0].len() < tokens {
            for (answer, id) in answers.iter_mut().zip(self.greedy(&step)) {
                answer.push(id);
            }
            for ((slice, prompt), answer) in step.iter_mut().zip(prompts).zip(&answers) {
                let length = prompt.ids.len() + answer.len();
                *slice = if prompt.ids.len() <= short && length == short + 1 {
                    self::slice(slice.sequence.0 + anew, 0, &[&prompt.ids[..], answer].concat(), true)
                } else {
                    self::slice(slice.sequence.0, length - 1, &answer[answer.len() - 1..], true)
                };
            }
        }
        answers
    }
}

/// Prefixes of a prompt that end at the positions whose logits are stored, each a sequence of its own.
pub fn prefixes(prompt: &Prompt) -> Vec<Slice> {
    let first = prompt.ids.len() - prompt.logits.len();
    (first..prompt.ids.len()).map(|end| slice(end as u64, 0, &prompt.ids[..=end], true)).collect()
}
