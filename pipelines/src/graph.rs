//! A pipeline as its TOML file declares it: a model, the stages, their sizes and limits.

use std::path::{Path, PathBuf};

use schemas::{DType, Fingerprint, Role};
use serde::{Deserialize, Serialize};

/// A declared pipeline. Every field has a default but `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Id that clients put into the request's `model` field.
    pub model: String,
    /// Model folder, relative to the pipeline file.
    pub path: PathBuf,
    /// Longest time one request may take, in seconds, and its default.
    #[serde(default = "defaults::deadline_seconds")]
    pub deadline_seconds: u64,
    /// One table a stage.
    #[serde(default)]
    pub stages: Stages,
}

/// The stages, in the order of the dataflow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Stages {
    /// Chat template and tokenizer.
    pub tokenize: Tokenize,
    /// Images to embeddings; without it the pipeline takes no images.
    pub vision_encode: Option<VisionEncode>,
    /// The model's layers.
    pub shard_forward: ShardForward,
    /// Logits to token ids.
    pub sample: Sample,
    /// Token ids to text.
    pub detokenize: Detokenize,
}

/// Settings of `tokenize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokenize {
    /// Processes that `up` starts.
    pub replicas: u32,
    /// Requests that may wait for this stage.
    pub queue: u32,
}

/// Settings of `vision-encode`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisionEncode {
    /// Processes that `up` starts.
    pub replicas: u32,
    /// Prompts with images that may wait for this stage.
    pub queue: u32,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads on the CPU; 0 takes the processors that it may run on.
    pub threads: usize,
    /// Pictures encoded together: whole images, or tiles of one.
    pub batch: u32,
    /// Embeddings kept for images that come again, in MiB.
    pub cache_mb: u32,
    /// Images of one request.
    pub images: u32,
    /// Pixels of one image.
    pub pixels: u64,
    /// Bytes of one image file.
    pub bytes: u64,
}

/// Settings of `shard-forward`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardForward {
    /// Processes that `up` starts for each shard.
    pub replicas: u32,
    /// Admitted prompts that may wait for a free sequence.
    pub queue: u32,
    /// What computes.
    pub engine: EngineKind,
    /// Into how many shards the layers are cut, evenly, when `layers` is empty.
    pub shards: u16,
    /// Layers of each shard, instead of an even cut.
    pub layers: Vec<u32>,
    /// Element type of weights, hidden states and KV cache.
    pub dtype: DTypeName,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads of one shard on the CPU; 0 takes as many as pay for the size of its layers, at most the processors that it
    /// may run on.
    pub threads: usize,
    /// Gives each row the same bits whatever is computed with it and wherever: an answer that is taken up by another
    /// instance goes on as it would have. On the CPU only.
    pub deterministic: bool,
    /// Sequences that one instance runs at once.
    pub max_sequences: u32,
    /// KV cache of one instance, in tokens.
    pub kv_tokens: u32,
    /// Tokens a KV block.
    pub block_tokens: u32,
    /// Rows of one step, prefill and decode together.
    pub step_tokens: u32,
    /// Time that one step should take, in milliseconds: bounds the prefill that is mixed into a decode step.
    pub step_ms: u32,
    /// Steps on their way at once: a number, or `auto` to choose by measuring.
    pub in_flight: InFlight,
    /// Tokens that may be on their way to a client which does not read.
    pub window: u32,
}

/// Settings of `sample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Processes that `up` starts.
    pub replicas: u32,
    /// Sequences that one instance holds at once.
    pub max_sequences: u32,
    /// Largest logits that the last shard sends for a row that is not greedy.
    pub candidates: u32,
}

/// Settings of `detokenize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detokenize {
    /// Processes that `up` starts.
    pub replicas: u32,
    /// Sequences that one instance holds at once.
    pub max_sequences: u32,
}

/// What computes a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The model.
    Model,
    /// Nothing: the answer repeats the prompt's token ids, for measuring the bus alone.
    Echo,
}

/// Element type as a pipeline file spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DTypeName {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16.
    Bf16,
}

/// How many steps are on their way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InFlight {
    /// Chosen by measuring.
    Auto,
    /// This many.
    #[serde(untagged)]
    Fixed(u32),
}

impl Default for Tokenize {
    fn default() -> Self {
        Self { replicas: 1, queue: 256 }
    }
}

impl Default for VisionEncode {
    fn default() -> Self {
        Self {
            replicas: 1,
            queue: 256,
            device: "cpu".into(),
            threads: 0,
            batch: 8,
            cache_mb: 64,
            images: 16,
            pixels: 32_000_000,
            bytes: 10 << 20,
        }
    }
}

impl Default for ShardForward {
    fn default() -> Self {
        Self {
            replicas: 1,
            queue: 256,
            engine: EngineKind::Model,
            shards: 1,
            layers: Vec::new(),
            dtype: DTypeName::Bf16,
            device: "cpu".into(),
            threads: 0,
            deterministic: false,
            max_sequences: 64,
            kv_tokens: 65_536,
            block_tokens: 16,
            step_tokens: 512,
            step_ms: 100,
            in_flight: InFlight::Auto,
            window: 256,
        }
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self { replicas: 1, max_sequences: 1024, candidates: 64 }
    }
}

impl Default for Detokenize {
    fn default() -> Self {
        Self { replicas: 1, max_sequences: 1024 }
    }
}

impl From<DTypeName> for DType {
    fn from(name: DTypeName) -> Self {
        match name {
            DTypeName::F32 => DType::F32,
            DTypeName::Bf16 => DType::Bf16,
        }
    }
}

mod defaults {
    pub fn deadline_seconds() -> u64 {
        300
    }
}

/// A pipeline that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The file or a setting cannot be read.
    #[error("pipeline `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<figment::Error>,
    },
    /// A setting is out of its range.
    #[error("pipeline `{file}`: `{field}` is {value}, must be {rule}")]
    Range {
        /// The file.
        file: PathBuf,
        /// The setting.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl Pipeline {
    /// Reads `file`, with `overrides` over `TOKENWAY_*` variables over the file over the defaults.
    ///
    /// A variable names a setting by its path, with two underscores for each dot:
    /// `TOKENWAY_STAGES__SHARD-FORWARD__DTYPE`. `path` comes out absolute.
    pub fn read(file: &Path, overrides: Overrides) -> Result<Self, PipelineError> {
        use figment::Figment;
        use figment::providers::{Env, Format, Serialized, Toml};

        let read =
            |source: figment::Error| PipelineError::Read { file: file.to_owned(), source: Box::new(source) };
        let environment = Env::prefixed("TOKENWAY_")
            .map(|key| {
                let key = key.as_str().replace("SHARD_FORWARD", "SHARD-FORWARD");
                key.replace("VISION_ENCODE", "VISION-ENCODE").into()
            })
            .split("__")
            .filter(|key| {
                let first = key.as_str().split('.').next().unwrap_or_default();
                ["model", "path", "deadline_seconds", "stages"].contains(&first)
            });
        let mut pipeline: Self = Figment::new()
            .merge(Toml::file_exact(file))
            .merge(environment)
            .merge(Serialized::defaults(overrides))
            .extract()
            .map_err(read)?;
        if pipeline.path.is_relative() {
            pipeline.path = file.parent().unwrap_or(Path::new(".")).join(&pipeline.path);
        }
        pipeline.check(file)?;
        Ok(pipeline)
    }

    /// How many shards the layers are cut into.
    pub fn shards(&self) -> u16 {
        let stage = &self.stages.shard_forward;
        if stage.layers.is_empty() { stage.shards } else { stage.layers.len() as u16 }
    }

    /// Every stage's role with the number of its processes, in the order of the dataflow.
    pub fn roles(&self) -> Vec<(Role, u32)> {
        let stages = &self.stages;
        let shards =
            (0..self.shards()).map(|shard| (Role::ShardForward(shard), stages.shard_forward.replicas));
        let vision = stages.vision_encode.as_ref().map(|stage| (Role::VisionEncode, stage.replicas));
        std::iter::once((Role::Tokenize, stages.tokenize.replicas))
            .chain(vision)
            .chain(shards)
            .chain([(Role::Sample, stages.sample.replicas), (Role::Detokenize, stages.detokenize.replicas)])
            .collect()
    }

    /// The pipeline's fingerprint: `content` is the hash of the model folder.
    pub fn fingerprint(&self, content: [u8; 32]) -> Fingerprint {
        let stage = &self.stages.shard_forward;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&content);
        let plan = format!(
            "{}|{}|{:?}|{:?}|{:?}|{}|{}|{}",
            schemas::wire::WIRE_VERSION,
            self.model,
            stage.engine,
            stage.dtype,
            stage.layers,
            self.shards(),
            stage.block_tokens,
            stage.deterministic,
        );
        hasher.update(plan.as_bytes());
        let (half, _) =
            hasher.finalize().as_bytes().split_first_chunk::<16>().map(|(a, b)| (*a, b)).unwrap_or_default();
        Fingerprint(u128::from_le_bytes(half))
    }

    fn check(&self, file: &Path) -> Result<(), PipelineError> {
        let stage = &self.stages.shard_forward;
        let positive: [(&'static str, u64); 10] = [
            ("deadline_seconds", self.deadline_seconds),
            ("stages.tokenize.queue", self.stages.tokenize.queue.into()),
            ("stages.shard-forward.queue", stage.queue.into()),
            ("stages.shard-forward.max_sequences", stage.max_sequences.into()),
            ("stages.shard-forward.block_tokens", stage.block_tokens.into()),
            ("stages.shard-forward.step_tokens", stage.step_tokens.into()),
            ("stages.shard-forward.step_ms", stage.step_ms.into()),
            ("stages.shard-forward.window", stage.window.into()),
            ("stages.sample.max_sequences", self.stages.sample.max_sequences.into()),
            ("stages.detokenize.max_sequences", self.stages.detokenize.max_sequences.into()),
        ];
        let range =
            |field, value: String, rule| PipelineError::Range { file: file.to_owned(), field, value, rule };
        let vision = positive_of_vision(&self.stages);
        if let Some((field, _)) = positive.into_iter().chain(vision).find(|(_, value)| *value == 0) {
            return Err(range(field, "0".into(), "at least 1"));
        }
        if self.shards() == 0 {
            return Err(range("stages.shard-forward.shards", "0".into(), "at least 1"));
        }
        if stage.kv_tokens < stage.block_tokens {
            return Err(range(
                "stages.shard-forward.kv_tokens",
                stage.kv_tokens.to_string(),
                "at least `block_tokens`",
            ));
        }
        if self.model.is_empty() || self.model.len() > 200 {
            return Err(range("model", format!("{} bytes long", self.model.len()), "1 to 200 bytes long"));
        }
        if stage.deterministic && stage.device != "cpu" {
            return Err(range(
                "stages.shard-forward.deterministic",
                "true".into(),
                "false where `device` is not `cpu`",
            ));
        }
        if stage.in_flight == InFlight::Fixed(0) {
            return Err(range("stages.shard-forward.in_flight", "0".into(), "at least 1, or `auto`"));
        }
        Ok(())
    }
}

/// The settings of vision-encode that must be above 0.
fn positive_of_vision(stages: &Stages) -> impl Iterator<Item = (&'static str, u64)> {
    stages.vision_encode.iter().flat_map(|stage| {
        [
            ("stages.vision-encode.queue", stage.queue.into()),
            ("stages.vision-encode.batch", stage.batch.into()),
            ("stages.vision-encode.images", stage.images.into()),
            ("stages.vision-encode.pixels", stage.pixels),
            ("stages.vision-encode.bytes", stage.bytes),
        ]
    })
}

/// Settings given on the command line; those that are none leave the file's.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Overrides {
    /// Replaces `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Replaces `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Replaces `deadline_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
    /// Per stage, per setting.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub stages: serde_json::Map<String, serde_json::Value>,
}

impl Overrides {
    /// Sets `stages.<stage>.<setting>`.
    pub fn set(&mut self, stage: &str, setting: &str, value: impl Into<serde_json::Value>) {
        let table = self.stages.entry(stage).or_insert_with(|| serde_json::Map::new().into());
        if let Some(table) = table.as_object_mut() {
            table.insert(setting.to_owned(), value.into());
        }
    }
}
