//! The plan of a folder in Hugging Face layout.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::error::ConvertError;
use super::plan::Plan;
use super::{keys, refusals, rope, tensors, vocabulary};
use crate::architecture;
use crate::config::DecoderConfig;
use crate::config_fields::ConfigFields;
use crate::folder::ModelFolder;
use crate::template_source::TemplateSource;

/// What llama.cpp computes of an architecture. Source: the files of its folder `models`.
pub(super) struct Target {
    /// `model_type` in `config.json`.
    model_type: &'static str,
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// Whether heads are stored for pairs of neighbours.
    pub(super) interleaved_heads: bool,
    /// Whether frequencies may be divided pair by pair.
    pub(super) frequency_divisors: bool,
    /// Whether `o_proj` and the MLP may have a bias.
    pub(super) all_biases: bool,
    /// Whether the heads together are as wide as the hidden state.
    pub(super) heads_fill_hidden: bool,
}

const PLAIN: Target = Target {
    model_type: "llama",
    architecture: "llama",
    interleaved_heads: false,
    frequency_divisors: false,
    all_biases: false,
    heads_fill_hidden: false,
};

const LLAMA: Target = Target { interleaved_heads: true, frequency_divisors: true, all_biases: true, ..PLAIN };

const TARGETS: [Target; 10] = [
    LLAMA,
    Target { model_type: "mistral", ..LLAMA },
    Target { model_type: "mixtral", ..LLAMA },
    Target { model_type: "smollm3", architecture: "smollm3", interleaved_heads: true, ..PLAIN },
    Target { model_type: "qwen2", architecture: "qwen2", heads_fill_hidden: true, ..PLAIN },
    Target { model_type: "qwen3", architecture: "qwen3", ..PLAIN },
    Target { model_type: "qwen3_moe", architecture: "qwen3moe", ..PLAIN },
    Target { model_type: "gemma2", architecture: "gemma2", ..PLAIN },
    Target { model_type: "gemma3_text", architecture: "gemma3", ..PLAIN },
    Target {
        model_type: "phi3",
        architecture: "phi3",
        frequency_divisors: true,
        heads_fill_hidden: true,
        ..PLAIN
    },
];

/// A model folder on its way to a GGUF.
pub(super) struct Source<'a> {
    pub(super) folder: &'a ModelFolder,
    /// `config.json`, or its `text_config`.
    pub(super) fields: ConfigFields,
    pub(super) target: &'static Target,
}

impl<'a> Source<'a> {
    fn open(folder: &'a ModelFolder) -> Result<Self, ConvertError> {
        let path = folder.path().join("config.json");
        let json = std::fs::read(&path).map_err(|source| ConvertError::Io { path, source })?;
        let mut fields = ConfigFields::parse("config.json", &json)?;
        let found = match folder.vision() {
            Some(_) => architecture::of_vision_language(&fields)?,
            None => architecture::find(&fields)?,
        };
        let model_type = found.model_type;
        let target = TARGETS.iter().find(|target| target.model_type == model_type);
        let target = target.ok_or_else(|| fields.unsupported("model_type", &Json::from(model_type)))?;
        if folder.vision().is_some() {
            fields = fields.object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
        }
        Ok(Self { folder, fields, target })
    }

    pub(super) fn config(&self) -> &DecoderConfig {
        self.folder.config()
    }

    /// That llama.cpp does not compute what a field says.
    pub(super) fn inexpressible(&self, field: &'static str) -> ConvertError {
        let value = self.fields.get(field).unwrap_or(&Json::Null).to_string();
        ConvertError::Inexpressible { field, value, architecture: self.target.architecture }
    }

    /// A file of the folder.
    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

impl Plan {
    /// The plan of a model folder; of a vision-language model, its language model. What llama.cpp does not compute is refused.
    ///
    /// `pre` is how the tokenizer cuts text into words (`tokenizer.ggml.pre`), where `tokenizer.json` does it in a way that has no
    /// name.
    pub fn of_folder(folder: &ModelFolder, pre: Option<&str>) -> Result<Self, ConvertError> {
        let source = Source::open(folder)?;
        refusals::check(&source)?;
        // First, so that sizes which the weights do not have reserve no memory.
        let mut tensors = rope::tensors(&source)?;
        tensors.extend(tensors::of_weights(&source)?);
        let mut metadata = keys::general(&source);
        metadata.extend(keys::architecture(&source)?);
        metadata.extend(rope::keys(&source)?);
        let template = TemplateSource::read(folder.path())?;
        metadata.extend(vocabulary::keys(&source, &template, pre)?);
        metadata.extend(keys::templates(&template));
        Ok(Self { metadata, tensors })
    }
}
