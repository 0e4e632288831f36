//! Command lines of the tools that compute with a model and need no bus. The `tokenway` command reads them, finds the models, and hands
//! them as JSON to shard-forward, which alone is linked to libtorch.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use schemas::DType;
use serde::{Deserialize, Serialize};

/// The first argument of shard-forward that makes it a tool; the second is a [`Tool`] in JSON.
pub const ARGUMENT: &str = "tool";

const BENCH_EXAMPLES: &str = "\
Examples:
  tokenway bench models/demo
  tokenway bench ~/models/llama-q4_k.gguf --prompt 512 --generate 128 --batch 1,8,32
  tokenway bench ~/models/llama --dtype f32 --threads 8 --json

pp512 is a prompt of 512 random tokens, tg128 are 128 tokens generated one after the other from an empty cache, as in llama-bench; both
in as many sequences as the batch says, straight through the engine. The last column is what a generated token must read of the weights,
over what this machine reads, measured at the start: a model that fits into the processor's caches can exceed it.";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  tokenway validate ~/models/llama
  tokenway validate llama-q4_k.gguf --markdown > report.md
  tokenway validate models/demo --json | jq '.checks[] | select(.outcome == \"failed\")'

Exit code 1 when a check has failed, 2 when there is no model to look at.";

const PERPLEXITY_EXAMPLES: &str = "\
Examples:
  tokenway perplexity llama-q4_k.gguf --text wiki.test.raw
  tokenway perplexity llama-q4_k.gguf --base ~/models/llama --text wiki.test.raw

The text is cut into windows, as by llama.cpp's perplexity: each starts anew, with the token that starts a sequence in its first place
where the tokenizer adds one, and the tokens of its second half are scored. ± is one standard error over the scored tokens.";

const PROFILE_EXAMPLES: &str = "\
Examples:
  tokenway profile models/demo
  tokenway profile ~/models/llama-q4_k.gguf --prompt 256 --trace llama.json

The trace opens in https://ui.perfetto.dev and in chrome://tracing.";

/// One of the tools.
#[derive(Debug, Clone, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Measure tokens per second, prompts and generation apart
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Check a model's files, and that it computes what they say
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(Validate),
    /// Measure how well a model predicts a text, and how far it is from another
    #[command(after_help = PERPLEXITY_EXAMPLES)]
    Perplexity(Perplexity),
    /// Show where the time of a model's steps goes, and what the machine would allow
    #[command(after_help = PROFILE_EXAMPLES)]
    Profile(Profile),
}

impl Tool {
    /// The models that it works with.
    pub fn models(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (model, base) = match self {
            Tool::Bench(tool) => (&mut tool.model, None),
            Tool::Validate(tool) => (&mut tool.model, None),
            Tool::Perplexity(tool) => (&mut tool.model, tool.base.as_mut()),
            Tool::Profile(tool) => (&mut tool.model, None),
        };
        std::iter::once(model).chain(base)
    }
}

/// How a tool computes.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Compute {
    /// Threads of the CPU [default: as many as pay for layers of the model's size]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where the model computes: cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

/// Element type of what is not quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// IEEE 754, 32 bits
    F32,
    /// The upper half of an f32
    Bf16,
}

/// As on the command line.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::F32 => "f32",
            Element::Bf16 => "bf16",
        })
    }
}

impl From<Element> for DType {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => DType::F32,
            Element::Bf16 => DType::Bf16,
        }
    }
}

/// What `bench` measures.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Bench {
    /// Model folder, .gguf file, a name that `tokenway models` shows, or hf:ORG/NAME
    pub model: PathBuf,
    /// Tokens of a prompt; 0 leaves prompts out
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub prompt: u32,
    /// Tokens to generate; 0 leaves generation out
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub generate: u32,
    /// Sequences that are computed together
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,32",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Vec<u16>,
    /// Times that each is measured, after once that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// What weights that are not quantised, hidden states, keys and values are in; quantised weights stay as they are stored
    #[arg(long, value_enum, default_value_t = Element::Bf16)]
    pub dtype: Element,
    /// How it computes
    #[command(flatten)]
    pub compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `validate` looks at.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Validate {
    /// Model folder, .gguf file, a name that `tokenway models` shows, or hf:ORG/NAME
    pub model: PathBuf,
    /// What the forward passes are computed in; quantised weights stay as they are stored
    #[arg(long, value_enum, default_value_t = Element::Bf16)]
    pub dtype: Element,
    /// Threads of the CPU [default: as many as pay for layers of the model's size]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print the report in Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
}

/// What `perplexity` measures.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Perplexity {
    /// Model folder, .gguf file, a name that `tokenway models` shows, or hf:ORG/NAME
    pub model: PathBuf,
    /// Text to predict, in UTF-8, of at most 64 MiB
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Measure this model too, and the Kullback-Leibler divergence from its predictions; its tokenizer makes the tokens
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub context: u32,
    /// Take no more than this many windows, from the start of the text [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: Option<u32>,
    /// What weights that are not quantised, hidden states, keys and values are in; quantised weights stay as they are stored
    #[arg(long, value_enum, default_value_t = Element::F32)]
    pub dtype: Element,
    /// How it computes
    #[command(flatten)]
    pub compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `profile` measures.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Profile {
    /// Model folder, .gguf file, a name that `tokenway models` shows, or hf:ORG/NAME
    pub model: PathBuf,
    /// Tokens of the prompt, which is computed in one step
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub prompt: u32,
    /// Steps of generation behind it
    #[arg(long, value_name = "TOKENS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub generate: u32,
    /// Sequences that generate together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: u16,
    /// What weights that are not quantised, hidden states, keys and values are in; quantised weights stay as they are stored
    #[arg(long, value_enum, default_value_t = Element::Bf16)]
    pub dtype: Element,
    /// How it computes
    #[command(flatten)]
    pub compute: Compute,
    /// Write a trace in Chrome's format
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
